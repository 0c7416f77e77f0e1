from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo.errors import UsageError
from histo.learn.bundle import TileInput
from histo.learn.data.inspection import check_broken, check_field, inspect_images, tile_mpp
from histo.learn.data.source import Source, read_sources


def save(path: Path, level: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level,) * 3).save(path)


def broken_source(root: Path, bad: int, good: int) -> Source:
    for i in range(good):
        save(root / "A" / f"good{i}.png", i)
    (root / "A").mkdir(exist_ok=True)
    for i in range(bad):
        (root / "A" / f"bad{i}.png").write_bytes(b"not a picture")
    return read_sources([root])


def test_an_image_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    save(tmp_path / "A" / "good.png", 1)
    save(tmp_path / "A" / "wide.png", 1, size=(9, 8))
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "A" / "deep.png")
    (tmp_path / "A" / "text.png").write_bytes(b"not a picture")
    (tmp_path / "A" / "short.png").write_bytes((tmp_path / "A" / "good.png").read_bytes()[:50])

    found = inspect_images(read_sources([tmp_path]))

    deep, good, short, text, wide = found.errors
    assert found.usable() == [1]
    assert [content is None for content in found.content_hashes] == [True, False, True, True, True]
    assert found.edges_px == (None, 8, None, None, None)
    assert good is None
    assert "deep.png: pixels of mode I;16; expected 8 bits" in str(deep)
    assert "short.png: not a readable image" in str(short)
    assert "text.png: not a readable image (no PNG, JPEG, TIFF, BMP, WEBP or PPM)" in str(text)
    assert "A/wide.png: 9x8 px; tiles must be square" in str(wide)


def test_a_file_that_is_gone_is_unusable(tmp_path: Path) -> None:
    source = broken_source(tmp_path, bad=0, good=2)
    (tmp_path / "A" / "good0.png").unlink()

    assert "good0.png: not readable (No such file or directory)" in str(inspect_images(source).errors[0])


def test_few_broken_images_are_listed_and_more_are_an_error(tmp_path: Path) -> None:
    found = inspect_images(broken_source(tmp_path, bad=5, good=5))

    lines = check_broken(found, limit=0.5)
    with pytest.raises(
        UsageError, match=r"5 of 10 images cannot be used, more than --max-broken 0\.4 allows"
    ) as caught:
        check_broken(found, limit=0.4)

    assert len(lines) == 5
    assert lines[0].startswith(f"left out: {tmp_path / 'A' / 'bad0.png'}: not a readable image")
    assert "bad2.png" in str(caught.value)
    assert "bad3.png" not in str(caught.value)
    assert str(caught.value).endswith("; and 2 more")


def test_nothing_but_broken_images_is_an_error_whatever_the_limit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 of 2 images cannot be used"):
        check_broken(inspect_images(broken_source(tmp_path, bad=2, good=0)), limit=1)


def test_a_broken_image_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    whole, hurt = broken_source(tmp_path / "a", 0, 3), broken_source(tmp_path / "b", 2, 3)

    assert inspect_images(whole).fingerprint(whole) == inspect_images(hurt).fingerprint(hurt)


def test_the_content_hash_is_of_the_pixels(tmp_path: Path) -> None:
    for name, level in (("A/a.png", 1), ("A/b.tif", 1), ("B/c.png", 2)):
        save(tmp_path / name, level)

    first, second, third = inspect_images(read_sources([tmp_path])).content_hashes

    assert first == second != third


def seen(size_px: int, mpp: float | None) -> TileInput:
    return TileInput(size_px=size_px, mpp=mpp, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_images_of_the_bundles_field_are_resampled_whatever_their_pixels(tmp_path: Path) -> None:
    source = broken_source(tmp_path, bad=1, good=2)  # of 8 px
    found = inspect_images(source)

    assert check_field([1.0], source, found, seen(16, 0.5)) is None
    assert check_field([0.5], source, found, seen(8, 0.505)) is None


def test_images_of_another_field_than_the_bundles_are_refused(tmp_path: Path) -> None:
    source = broken_source(tmp_path, bad=0, good=2)

    with pytest.raises(UsageError, match=r"--mpp 1\.18: images of .* show 9\.44 µm, the bundle .* 4 µm \(8 px at 0\.5"):
        check_field([1.18], source, inspect_images(source), seen(8, 0.5))


def test_a_resolution_that_is_not_known_is_said(tmp_path: Path) -> None:
    source = broken_source(tmp_path, bad=0, good=2)
    found = inspect_images(source)

    assert "that of the images is not known" in str(check_field(None, source, found, seen(8, 0.5)))
    assert "the bundle does not say" in str(check_field([0.5], source, found, seen(8, None)))


def test_the_fingerprint_changes_with_pixels_and_labels(tmp_path: Path) -> None:
    def fingerprint(level: int, labels: list[int]) -> str:
        np.savez(tmp_path / "t.npz", data=np.full((2, 8, 8, 3), level, np.uint8), labels=np.array(labels))
        source = read_sources([tmp_path / "t.npz"], ["A", "B"])
        return inspect_images(source).fingerprint(source)

    same, again, pixels, labels = (fingerprint(*a) for a in [(1, [0, 1]), (1, [0, 1]), (2, [0, 1]), (1, [1, 1])])

    assert same == again
    assert len({same, pixels, labels}) == 3


def sized(root: Path, **edges: list[int]) -> Source:
    for name, sizes in edges.items():
        (root / name).mkdir()
        for i, edge in enumerate(sizes):
            save(root / name / "tiles" / f"K{i}" / "a.png", 1, (edge, edge))
    return read_sources([root / name / "tiles" for name in edges])


def test_the_resolution_of_tiles_is_that_of_the_source_times_the_ratio_of_sizes(tmp_path: Path) -> None:
    source = sized(tmp_path, a=[28, 28])

    assert tile_mpp([4.0], source, inspect_images(source), size_px=224) == 0.5
    assert tile_mpp(None, source, inspect_images(source), size_px=224) is None


def test_sources_of_one_field_agree_whatever_their_size(tmp_path: Path) -> None:
    source = sized(tmp_path, a=[28, 28], b=[95, 95])

    assert tile_mpp([4.0, 1.179], source, inspect_images(source), size_px=224) == 0.5


@pytest.mark.parametrize(
    ("mpps", "message"),
    [
        ([4.0], r"a/tiles show 112 µm \(28 px at 4 µm/px\), those of b/tiles 380 µm \(95 px at 4 µm/px\)"),
        ([4.0, 1.21], r"--mpp 4,1\.21: images of a/tiles show 112 µm .* those of b/tiles 115 µm"),
    ],
)
def test_sources_of_several_fields_are_refused(tmp_path: Path, mpps: list[float], message: str) -> None:
    source = sized(tmp_path, a=[28, 28], b=[95, 95])

    with pytest.raises(UsageError, match=message):
        tile_mpp(mpps, source, inspect_images(source), size_px=224)


def test_one_source_of_several_sizes_has_no_resolution(tmp_path: Path) -> None:
    source = sized(tmp_path, a=[28, 30])

    with pytest.raises(UsageError, match="several sizes"):
        tile_mpp([4.0], source, inspect_images(source), size_px=224)


def test_a_subset_that_lost_a_source_keeps_each_sources_resolution(tmp_path: Path) -> None:
    source = sized(tmp_path, a=[28, 28], b=[95, 95]).select([2, 3])

    assert tile_mpp([4.0, 1.179], source, inspect_images(source), size_px=224) == 1.179 * 95 / 224
