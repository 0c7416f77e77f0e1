"""Optimiser of a phase: its parameter groups and learning rates."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from histo.errors import UsageError
from histo.learn.fit.phases import Phase, TuneSpec
from histo.learn.network.model import Network

SCALE = "scale"
"""Key of a parameter group: its learning rate over that of the head."""


def make_optimizer(network: Network, phase: Phase) -> torch.optim.Optimizer:
    """Freeze what does not learn in a phase, and make an optimiser of what does.

    Raises:
        UsageError: If the backbone has fewer layers than are to be trained.
    """
    network.requires_grad_(False)
    groups = _groups(list(network.head.parameters()), 1.0, phase.spec.weight_decay)
    if isinstance(phase.settings, TuneSpec):
        for depth, layer in enumerate(_last_layers(network.backbone, phase.settings.layers), start=1):
            groups += _groups(layer, phase.settings.layer_decay**depth, phase.spec.weight_decay)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    if phase.spec.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=phase.settings.learning_rate)
    momentum = phase.spec.momentum
    return torch.optim.SGD(groups, lr=phase.settings.learning_rate, momentum=momentum, nesterov=momentum > 0)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the head, and with it that of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SCALE]


def _groups(parameters: list[nn.Parameter], scale: float, weight_decay: float) -> list[dict[str, Any]]:
    """Make the groups of one layer: kernels and matrices decay, vectors (biases, normalisations) do not."""
    kinds = (
        ([p for p in parameters if p.ndim > 1], weight_decay),
        ([p for p in parameters if p.ndim <= 1], 0.0),
    )
    return [{"params": members, SCALE: scale, "weight_decay": decay} for members, decay in kinds if members]


def _last_layers(backbone: nn.Module, count: int | None) -> list[list[nn.Parameter]]:
    """Return the parameters of the last layers, the very last first."""
    layers = layers_of(backbone)
    if count is not None and count > len(layers):
        raise UsageError(f"--fit.tune.layers {count}: this backbone has {len(layers)}; ask for at most that many")
    return layers[::-1][:count]


def layers_of(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Return a backbone's parameters layer by layer, as timm groups them; without timm, its direct children."""
    named = dict(backbone.named_parameters())
    matcher: Callable[..., Any] | None = getattr(backbone, "group_matcher", None)
    if matcher is not None:
        groups: dict[int, list[str]] = group_parameters(backbone, matcher(coarse=False))
        return [[named[name] for name in groups[number]] for number in sorted(groups)]
    children = [list(child.parameters()) for child in backbone.children()]
    return [parameters for parameters in children if parameters]
