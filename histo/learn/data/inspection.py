"""Inspect every image once before work starts: content, size, usability."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from histo.errors import ImageError, UsageError
from histo.learn.bundle import TileInput
from histo.learn.data.images import Content, Images
from histo.learn.data.source import Source
from histo.resample import Pixels

_SHOWN = 3
_SAME_FIELD = 0.02
"""How much the resolution of several sources may differ, as a share; as a pyramid level's may in labelling."""


@dataclass(frozen=True)
class Inspection:
    """What a look at every image of a source finds; None for an image that cannot be used.

    Attributes:
        content_hashes: sha256 of shape and decoded pixels.
        edges_px: Edge of each (square) image.
        errors: Why an image cannot be used; None for one that can.
    """

    content_hashes: tuple[str | None, ...]
    edges_px: tuple[int | None, ...]
    errors: tuple[str | None, ...]

    def usable(self) -> list[int]:
        """Return the indices of the cases that can be used."""
        return [i for i, error in enumerate(self.errors) if error is None]

    def select(self, members: Sequence[int]) -> "Inspection":
        """Return the inspection of some of the cases, in the given order."""
        return Inspection(
            content_hashes=tuple(self.content_hashes[i] for i in members),
            edges_px=tuple(self.edges_px[i] for i in members),
            errors=tuple(self.errors[i] for i in members),
        )

    def fingerprint(self, source: Source) -> str:
        """Return the sha256 of all usable cases: id, class name and content."""
        rows = [
            [source.cases[i].case_id, source.classes[source.cases[i].label], self.content_hashes[i]]
            for i in self.usable()
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def inspect_images(source: Source) -> Inspection:
    """Look at every image once: decode it, unless a tile table already says what it holds."""
    with ThreadPoolExecutor() as pool:
        looks = pool.map(lambda i: examine(source.images, i, source.cases[i].case_id), range(len(source.cases)))
        return make_inspection(list(looks))


def make_inspection(found: Sequence[Content | str]) -> Inspection:
    """Make an inspection of what `examine` returned for every image."""
    return Inspection(
        content_hashes=tuple(look.content_hash if isinstance(look, Content) else None for look in found),
        edges_px=tuple(look.edge_px if isinstance(look, Content) else None for look in found),
        errors=tuple(look if isinstance(look, str) else None for look in found),
    )


def examine(images: Images, index: int, case_id: str) -> Content | str:
    """Return the content of one image, or why it cannot be used."""
    known = images.recorded_content(index)
    if known is not None:
        return known
    try:
        pixels = images.load(index)
    except ImageError as error:
        return " ".join(str(error).split())
    height, width = images.layout.edges(pixels)
    if height != width:
        return f"{case_id}: {width}x{height} px; {images.layout.task} must be square"
    return Content(hash_pixels(pixels), width)


def hash_pixels(pixels: Pixels) -> str:
    """Return the sha256 of an image's shape and pixels."""
    digest = hashlib.sha256(f"{'x'.join(map(str, pixels.shape[:-1]))}:".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def check_broken(found: Inspection, limit: float, noun: str = "images") -> list[str]:
    """Make sure that not too many images are unusable; returns a line for each of them, to be shown.

    Args:
        found: The inspection.
        limit: Greatest share of all images (0 to 1) that may be unusable.
        noun: What messages call them.

    Raises:
        UsageError: If there are more, or nothing else.
    """
    errors = [error for error in found.errors if error is not None]
    count = len(found.errors)
    if len(errors) > limit * count or len(errors) == count:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise UsageError(
            f"{len(errors)} of {count} {noun} cannot be used, more than --max-broken {limit:g} allows: "
            f"{'; '.join(errors[:_SHOWN])}{more}"
        )
    return [f"left out: {error}" for error in errors]


def tile_mpp(mpps: Sequence[float] | None, source: Source, found: Inspection, size_px: int) -> float | None:
    """Return the resolution of tiles made from images of another size: source mpp x source px / size_px.

    Args:
        mpps: Resolution of the images (µm/px), one for all sources or one for each; None for what the sources say.
        source: The cases.
        found: Their inspection.
        size_px: Edge of the tiles.

    Returns:
        The resolution; None if it is not known of all sources.

    Raises:
        UsageError: If the tiles would show fields of several sizes, or a source says otherwise.
    """
    mpps = _resolutions(mpps, source)
    if not mpps:
        return None
    each = dict(zip(source.names, mpps if len(mpps) > 1 else list(mpps) * len(source.names), strict=True))
    edges = {name: _edge(name, each[name], source, found) for name in source.names}
    fields = {name: each[name] * edge for name, edge in edges.items() if edge is not None}
    first = next(iter(fields))
    for name, field in fields.items():
        if abs(field / fields[first] - 1) > _SAME_FIELD:
            raise UsageError(
                f"--mpp {_joined(mpps)}: images of {first} show {fields[first]:.4g} µm ({edges[first]} px at "
                f"{each[first]:g} µm/px), those of {name} {field:.4g} µm ({edges[name]} px at {each[name]:g} µm/px); "
                "tiles of one resolution need one field"
            )
    return fields[first] / size_px


def _resolutions(mpps: Sequence[float] | None, source: Source) -> Sequence[float] | None:
    """Return the given resolutions, or those that all sources say of themselves.

    Raises:
        UsageError: If a source says otherwise.
    """
    if not mpps:
        known = [mpp for mpp in source.mpps if mpp is not None]
        return known if len(known) == len(source.names) else None
    each = mpps if len(mpps) > 1 else list(mpps) * len(source.names)
    for name, given, own in zip(source.names, each, source.mpps, strict=False):
        if own is not None and abs(given / own - 1) > _SAME_FIELD:
            raise UsageError(
                f"--mpp {_joined(mpps)}: the tiles of {name or 'the source'} were cut at {own:g} µm/px, which their "
                "table says; leave it out"
            )
    return mpps


def check_field(mpps: Sequence[float] | None, source: Source, found: Inspection, seen: TileInput) -> str | None:
    """Make sure that images show a field of the size that a bundle was trained on: they are resampled to its pixels.

    Args:
        mpps: As of `tile_mpp`.
        source: The cases.
        found: Their inspection.
        seen: What the bundle takes.

    Returns:
        A line for a person, where that cannot be told.

    Raises:
        UsageError: If they show another field.
    """
    mpp = tile_mpp(mpps, source, found, seen.size_px)
    if seen.mpp is None:
        return "resolution: the bundle does not say at which one it was trained, so that of the images is not compared"
    field = seen.mpp * seen.size_px
    trained = f"{field:.4g} µm ({seen.size_px} px at {seen.mpp:.4g} µm/px)"
    if mpp is None:
        return f"resolution: that of the images is not known; the bundle expects tiles of {trained}; --mpp checks it"
    if abs(mpp / seen.mpp - 1) > _SAME_FIELD:
        raise UsageError(
            f"--mpp {_joined(mpps or [])}: images of {source.names[0] or 'the source'} show "
            f"{mpp * seen.size_px:.4g} µm, the bundle was trained on tiles of {trained}; cut tiles of that "
            "field, or train on this one"
        )
    return None


def _edge(name: str, mpp: float, source: Source, found: Inspection) -> int | None:
    """Return the edge of a source's images in px, None if it has none that can be used."""
    edges = Counter(
        edge
        for case, edge in zip(source.cases, found.edges_px, strict=True)
        if case.source == name and edge is not None
    )
    sizes = [size for size, _ in edges.most_common(2)]
    if len(sizes) > 1:
        raise UsageError(
            f"--mpp {mpp:g}: images of {name or 'the source'} have several sizes ({sizes[0]} and {sizes[1]} px, for "
            "instance); tiles of one resolution need one size"
        )
    return sizes[0] if sizes else None


def _joined(mpps: Sequence[float]) -> str:
    return ",".join(f"{mpp:g}" for mpp in mpps)
