import io
import os
import pickle
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from histo.errors import ImageError
from histo.learn.data.images import ArrayImages, FileImages, SelectedImages, decode, join_images


def levels(*values: int) -> ArrayImages:
    """Images whose grey level is their own number."""
    return ArrayImages((np.array(values, np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8),))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_joined_images_are_the_parts_one_after_the_other(counts: list[int]) -> None:
    numbers = iter(range(99))
    parts = [levels(*[next(numbers) for _ in range(count)]) for count in counts]

    joined = join_images(parts, counts)

    assert [int(joined.load(i)[0, 0, 0]) for i in range(sum(counts))] == list(range(sum(counts)))


def test_selected_images_are_in_the_order_of_the_selection() -> None:
    selected = SelectedImages(levels(10, 20, 30), (2, 0))

    assert [int(selected.load(i)[0, 0, 0]) for i in (0, 1)] == [30, 10]


@pytest.mark.parametrize("shape", [(2, 5, 5, 3), (2, 5, 5)])
def test_an_encoded_array_decodes_to_its_own_pixels(shape: tuple[int, ...]) -> None:
    images = ArrayImages((np.random.default_rng(0).integers(0, 256, shape, np.uint8),))

    np.testing.assert_array_equal(decode("x", images.encoded(1)), images.load(1))


def test_an_encoded_file_is_the_file(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.jpg")

    assert FileImages((tmp_path / "a.jpg",)).encoded(0) == (tmp_path / "a.jpg").read_bytes()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_absurd_size_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    with pytest.raises(ImageError, match=r"a\.png: not a readable image"):
        FileImages((tmp_path / "a.png",)).load(0)


DEEP = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16


def deep_png(colours: int, bits: int = 16) -> bytes:
    """A PNG of so many bits per channel (and colour type), written by hand: Pillow writes none in colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    rows = b"".join(b"\0" + np.repeat(row, channels).astype(">u2").tobytes() for row in DEEP)
    header = struct.pack(">IIBBBBB", 64, 64, bits, colours, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def deep_tiff(axis: int = 2, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([DEEP] * 3, axis=axis), photometric="rgb", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        *[pytest.param(deep_png(colours), id=f"png{colours}") for colours in (0, 2, 4, 6)],
        pytest.param(deep_tiff(), id="tiff"),
        pytest.param(deep_tiff(compression="zlib"), id="tiff-zlib"),
        pytest.param(deep_tiff(byteorder=">"), id="tiff-big-endian"),
        pytest.param(deep_tiff(tile=(32, 32), compression="zlib"), id="tiff-tiles"),
        pytest.param(deep_tiff(axis=0, planarconfig="separate"), id="tiff-planes"),
        pytest.param(b"P6 64 64 65535\n" + np.stack([DEEP] * 3, 2).astype(">u2").tobytes(), id="ppm"),
        pytest.param(b"P6 # 255\n64 64 4095\n" + np.stack([DEEP] * 3, 2).astype(">u2").tobytes(), id="ppm-12"),
        pytest.param(b"P3 1 1 1000 1 2 3", id="ppm-text"),
        pytest.param(b"P5 64 64 256\n" + DEEP.astype(">u2").tobytes(), id="pgm"),
    ],
)
def test_more_than_8_bits_per_channel_are_refused_in_colour_as_in_grey(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"x: .*expected 8 bits per channel, convert the image"):
        decode("x", data)


def test_signed_8_bits_are_refused() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((8, 8), np.int8))

    with pytest.raises(ImageError, match="signed numbers"):
        decode("x", file.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"])
def test_the_formats_that_are_meant_are_read(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).save(file, kind)

    assert np.abs(decode("x", file.getvalue()).astype(int) - (200, 100, 50)).max() < 8


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PDF", "ICNS", "JPEG2000", "TGA", "PCX"])
def test_other_formats_are_not_opened_whatever_the_name_is(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, kind)

    with pytest.raises(ImageError, match=r"a\.png: not a readable image \(no PNG, JPEG, TIFF, BMP, WEBP or PPM\)"):
        decode("a.png", file.getvalue())


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "MPO"])
def test_more_than_one_page_or_frame_is_an_error_that_names_the_manifest(kind: str) -> None:
    file = io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), (level, 0, 0)) for level in (10, 200))
    first.save(file, kind, save_all=True, append_images=[second])

    with pytest.raises(ImageError, match=r"x: more than one page or frame; .* manifest"):
        decode("x", file.getvalue())


@pytest.mark.parametrize("one", [b"P6 2 2 255\n" + bytes(12), b"P5 2 2 255\n" + bytes(4), b"P4 9 2\n" + bytes(4)])
def test_a_second_ppm_behind_the_first_is_found(one: bytes) -> None:
    decode("x", one + b"\n")

    with pytest.raises(ImageError, match="more than one page or frame"):
        decode("x", one + one)


def test_an_image_of_too_many_pixels_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("1", (5793, 5793)).save(file, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))

    with pytest.raises(ImageError, match=r"x: 5793 x 5793 px, more than 33,554,432 pixels, 5792 x 5792; cut it"):
        decode("x", file.getvalue())


def test_a_tile_inside_a_small_tiff_has_the_same_limit() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", compression="zlib")
    data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        places = [opened.pages[0].tags[tag].valueoffset for tag in ("TileWidth", "TileLength")]
        kind = opened.pages[0].tags["TileWidth"].dtype
    absurd = bytearray(data)
    for place in places:
        struct.pack_into("<H" if kind == 3 else "<I", absurd, place, 60_000)

    with pytest.raises(ImageError, match=r"more than 33,554,432 pixels"):
        decode("x", bytes(absurd))


@pytest.mark.parametrize("size", ["0 0", "0 5", "5 0"])
def test_an_image_without_pixels_is_an_error(size: str) -> None:
    with pytest.raises(ImageError, match=r"x: "):
        decode("x", f"P6 {size} 255\n".encode())


def test_a_pipe_a_device_and_a_huge_file_are_image_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)

    for name in ("pipe.png", "device.png", "huge.png", "null\0.png"):
        with pytest.raises(ImageError, match=r"\.png: (not readable \(is (a|larger)|no path)"):
            FileImages((tmp_path / name,)).load(0)


@pytest.mark.filterwarnings("ignore")
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"]))
def test_a_damaged_file_is_an_image_or_an_image_error(data: st.DataObject, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind)
    damaged = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    with suppress(ImageError):
        assert decode("x", bytes(damaged[: data.draw(st.integers(0, len(damaged)))])).dtype == np.uint8


def test_an_image_error_survives_pickling() -> None:
    assert str(pickle.loads(pickle.dumps(ImageError("a.png: broken")))) == "a.png: broken"


def noisy() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
def test_a_jpeg_of_which_a_part_is_missing_or_zero_is_no_image(settings: dict[str, Any]) -> None:
    noisy().save(file := io.BytesIO(), "JPEG", quality=95, **settings)
    data = file.getvalue()
    half, end = data[: len(data) // 2], data[-2:]
    assert decode("whole.jpg", data).shape == (64, 64, 3)

    for damaged in (half + end, half + bytes(len(data) - len(half) - 2) + end):
        with pytest.raises(ImageError, match=r"t\.jpg: damaged \(.*\); replace or remove it"):
            decode("t.jpg", damaged)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_sound_jpeg_of_other_colours_is_an_image(mode: str) -> None:
    noisy().convert(mode).save(file := io.BytesIO(), "JPEG")

    assert decode("t.jpg", file.getvalue()).shape == (64, 64, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("tiled", [False, True])
def test_a_jpeg_block_of_a_tiff_that_lacks_a_part_is_damaged(mode: str, tiled: bool) -> None:
    random = np.random.default_rng(0).integers(0, 255, (96, 96, 4), np.uint8)
    pixels = np.asarray(Image.fromarray(random[..., :3]).convert(mode))
    file, settings = io.BytesIO(), {"tile": (32, 32)} if tiled else {"rowsperstrip": 32}
    photometric = {"RGB": "rgb", "L": "minisblack", "CMYK": "separated"}[mode]
    tifffile.imwrite(file, pixels, compression="jpeg", photometric=photometric, **settings)
    data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages.first
        start, size = page.dataoffsets[1], page.databytecounts[1]

    whole = decode("t.tif", data)
    damaged = data[: start + size // 2] + bytes(size - size // 2) + data[start + size :]

    assert whole.shape == (96, 96, 3)
    with pytest.raises(ImageError, match=r"t\.tif: (damaged|not a readable image)"):
        decode("t.tif", damaged)


def test_a_jpeg_with_a_damaged_colour_profile_is_an_image() -> None:
    noisy().save(file := io.BytesIO(), "JPEG")
    data = file.getvalue()
    profile = b"ICC_PROFILE\0\3\1"
    profiled = data[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(profile)) + profile + data[2:]

    assert decode("t.jpg", profiled).any()
    with pytest.raises(ImageError, match=r"t\.jpg: damaged"):  # the profile hides no damage
        decode("t.jpg", profiled[: len(profiled) // 2] + data[-2:])


def test_bytes_behind_the_end_of_a_jpeg_are_no_damage() -> None:
    noisy().save(file := io.BytesIO(), "JPEG")

    assert (decode("t.jpg", file.getvalue() + b"of a camera") == decode("t.jpg", file.getvalue())).all()


def test_a_tiff_of_which_a_block_lies_nowhere_is_no_image() -> None:
    tifffile.imwrite(file := io.BytesIO(), np.asarray(noisy()), photometric="rgb", tile=(32, 32))
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        at = tiff.pages[0].tags["TileOffsets"].valueoffset + 4  # of the second place
    data = bytearray(file.getvalue())
    assert decode("whole.tif", bytes(data)).shape == (64, 64, 3)
    data[at : at + 4] = bytes(4)

    with pytest.raises(ImageError, match=r"t\.tif: damaged \(a block has no data\)"):
        decode("t.tif", bytes(data))
