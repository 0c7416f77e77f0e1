"""The settings of the demonstration."""

from pydantic import Field

from histo.spec.base import AbsolutePath, Spec


class DemoSpec(Spec):
    """Fabricate a tile set and three slides, fine-tune from ImageNet weights, label, and compare with the truth."""

    out: AbsolutePath
    """Folder of everything that the demo makes."""
    tiles_per_class: int = Field(default=40, ge=5)
    """Fabricated training tiles of each class."""
    epochs: int = Field(default=30, ge=1)
    """Passes over the training tiles; only the head learns, from features that are computed once."""
    seed: int = Field(default=0, ge=0)
    """Fixes what is fabricated."""
