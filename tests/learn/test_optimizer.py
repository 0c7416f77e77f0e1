import pytest
import torch

from histo.errors import UsageError
from histo.learn.fit.optimizer import layers_of, make_optimizer, set_learning_rate
from histo.learn.fit.phases import FitSpec, Phase, TuneSpec
from histo.learn.network.backbones import Normalisation, create_backbone
from histo.learn.network.model import Network


def network(backbone: str = "resnet18") -> Network:
    return Network(create_backbone(backbone), Normalisation((127.0,) * 3, (128.0,) * 3), classes=3, dropout=0.2)


def tune(**settings: float) -> FitSpec:
    return FitSpec(tune=TuneSpec.model_validate(settings))


def learning(model: Network) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def rate_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> float:
    return next(float(group["lr"]) for group in optimizer.param_groups if any(p is parameter for p in group["params"]))


def test_the_head_phase_trains_the_head_alone() -> None:
    model = network()

    optimizer = make_optimizer(model, Phase("head", FitSpec()))

    assert learning(model) == {"head.norm.weight", "head.norm.bias", "head.linear.weight", "head.linear.bias"}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_the_tune_phase_trains_everything_also_after_the_head_phase() -> None:
    model = network()
    make_optimizer(model, Phase("head", FitSpec()))

    optimizer = make_optimizer(model, Phase("tune", FitSpec()))

    assert learning(model) == {name for name, _ in model.named_parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_the_last_layers_are_the_ones_next_to_the_head() -> None:
    model = network()

    make_optimizer(model, Phase("tune", tune(layers=2)))

    blocks = {name.rsplit(".", 2)[0] for name in learning(model) if name.startswith("backbone")}
    assert {".".join(block.split(".")[:3]) for block in blocks} == {"backbone.layer4.0", "backbone.layer4.1"}


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--fit\.tune\.layers 40: this backbone has 9"):
        make_optimizer(network(), Phase("tune", tune(layers=40)))


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_every_parameter_of_a_backbone_is_in_one_layer(backbone: str) -> None:
    model = network(backbone)

    grouped = [id(parameter) for layer in layers_of(model.backbone) for parameter in layer]

    assert sorted(grouped) == sorted(id(parameter) for parameter in model.backbone.parameters())
    assert len(layers_of(model.backbone)) > 8


def test_the_step_size_decays_layer_by_layer() -> None:
    model = network()
    optimizer = make_optimizer(model, Phase("tune", tune(layer_decay=0.5)))

    set_learning_rate(optimizer, 0.8)

    assert rate_of(optimizer, model.head.linear.weight) == pytest.approx(0.8)
    last, before_last = layers_of(model.backbone)[::-1][:2]
    assert {rate_of(optimizer, parameter) for parameter in last} == {0.4}
    assert {rate_of(optimizer, parameter) for parameter in before_last} == {0.2}


def test_without_layer_decay_all_layers_have_one_step_size() -> None:
    optimizer = make_optimizer(network(), Phase("tune", tune(layer_decay=1)))

    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}


def test_kernels_decay_and_vectors_do_not() -> None:
    optimizer = make_optimizer(network(), Phase("tune", FitSpec(weight_decay=0.3)))

    kinds = {(group["weight_decay"], p.ndim > 1) for group in optimizer.param_groups for p in group["params"]}

    assert kinds == {(0.3, True), (0.0, False)}


def test_the_optimiser_is_the_one_asked_for() -> None:
    adamw = make_optimizer(network(), Phase("head", FitSpec()))
    sgd = make_optimizer(network(), Phase("head", FitSpec(optimizer="sgd", momentum=0.7)))

    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.7}
