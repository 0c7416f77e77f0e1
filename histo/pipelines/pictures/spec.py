"""The settings of a job that draws slides, as a person writes them."""

from typing import ClassVar

from pydantic import Field

from histo.spec.base import Place, Spec, StoredPath
from histo.spec.cache import CacheSpec


class ReportSpec(Spec):
    """Draw every labelled slide: thumbnail beside class map (PNG), and the class map as a pyramid (TIFF)."""

    POSITIONAL: ClassVar[str | None] = "out"

    out: StoredPath
    """Folder of a label run; pictures go to `pictures` and `class_maps` in it."""
    slides: Place | None = None
    """Where the slides are, as for a label job, where they are not any more where they were labelled."""
    probabilities: list[str] | None = None
    """Classes of which a map of probabilities is drawn, too."""
    colours: dict[str, str] | None = None
    """Colours of classes, as TUM=#AA0000; default: a scheme for colour-blind readers, and grey for background."""
    workers: int | None = Field(default=None, ge=1)
    """Slides that are drawn at the same time; default: one for each CPU."""
    read_timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    """Seconds that reading one slide may take, after which it is tried alone."""
    cache: CacheSpec = CacheSpec()
