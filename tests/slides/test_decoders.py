"""Single file blocks: what is decoded, and what is refused though other decoders show something."""

import io
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from helpers.coded_slides import scenery, segments
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histo.resample import Pixels
from histo.slides.readers.tiff_decoders import ForeignError, JpegDecoder, decode_jpeg_2000

BLOCK = scenery(64, 64)
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def jpeg(data: bytes, is_rgb: bool = False, tables: bytes = b"") -> Pixels:
    out = np.zeros_like(BLOCK)
    JpegDecoder(tables, is_rgb).decode(data, out)
    return out


def by_pillow(**settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(BLOCK).save(file, "JPEG", **settings)
    return file.getvalue()


ENCODED = {
    **{
        f"4:{name}": imagecodecs.jpeg8_encode(BLOCK, level=85, subsampling=factors)
        for name, factors in {"4:4": (1, 1), "2:2": (2, 1), "2:0": (2, 2), "4:0": (1, 2), "1:1": (4, 1)}.items()
    },
    "RGB with Adobe's marker": imagecodecs.jpeg8_encode(BLOCK, level=85, colorspace="RGB", outcolorspace="RGB"),
    "progressive": by_pillow(progressive=True),
    "with intervals": by_pillow(restart_marker_blocks=2, optimize=True, comment=b"\xff\xd9 and \xff\xda"),
}


def segment(marker: int, parameters: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(parameters) + 2).to_bytes(2, "big") + parameters


legal = st.one_of(
    st.sampled_from([ADOBE_RGB, ADOBE_RGB[:-1] + b"\1", ADOBE_RGB[:-1] + b"\2", JFIF, b"\xff\x01"]),
    st.builds(segment, st.sampled_from([0xFE, *range(0xE0, 0xF0)]), st.binary(max_size=20)),
)
fill = st.integers(0, 5).map(lambda count: b"\xff" * count)


def jpeg_2000(data: bytes) -> Pixels:
    out = np.zeros_like(BLOCK)
    decode_jpeg_2000(data, is_rgb=True, out=out)
    return out


@pytest.mark.parametrize("marker", [ADOBE_RGB, JFIF, JFIF + ADOBE_RGB], ids=["Adobe", "JFIF", "both"])
@pytest.mark.parametrize("is_rgb", [True, False])
def test_markers_of_a_block_do_not_change_its_colours(marker: bytes, is_rgb: bool) -> None:
    data = imagecodecs.jpeg8_encode(BLOCK, level=90)

    assert np.array_equal(jpeg(data[:2] + marker + data[2:], is_rgb), jpeg(data, is_rgb))
    assert not np.array_equal(jpeg(data, True), jpeg(data, False))


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data(), st.sampled_from(sorted(ENCODED)), st.booleans())
def test_legal_markers_and_fill_bytes_in_any_order_change_no_pixel(
    data: st.DataObject, name: str, is_rgb: bool
) -> None:
    start, *parts = segments(ENCODED[name])

    more = b"".join(b"".join([*data.draw(st.lists(fill | legal, max_size=3)), data.draw(fill), part]) for part in parts)

    assert np.array_equal(jpeg(start + more, is_rgb), jpeg(ENCODED[name], is_rgb))


@settings(max_examples=50)
@given(st.data(), st.sampled_from(sorted(ENCODED)))
def test_tables_that_blocks_share_may_have_any_marker_too(data: st.DataObject, name: str) -> None:
    start, *parts = segments(ENCODED[name])
    tables = [part for part in parts if part[1] in (0xC4, 0xDB)]
    more = st.lists(fill | legal | st.just(segment(0xDD, b"\0\1")), max_size=3).map(b"".join)

    shared = (
        start + b"".join(data.draw(more) + data.draw(fill) + part for part in tables) + data.draw(fill) + b"\xff\xd9"
    )
    block = start + b"".join(part for part in parts if part not in tables)

    assert np.array_equal(jpeg(block, tables=shared + b"\0\0"), jpeg(ENCODED[name]))


@pytest.mark.parametrize(
    "strange",
    [
        b"\0",
        b"\xff\0",
        b"\xff\xd8",
        b"\xff\x02\0\2",
        b"\xff\xc8\0\2",
        b"\xff\xe1",
        b"\xff\xe1\0\1",
        b"\xff\xe1\xff\xff",
        b"\xfe",
    ],
)
def test_what_has_no_place_before_a_scan_is_damage(strange: bytes) -> None:
    data = ENCODED["4:4:4"]
    with pytest.raises(ValueError, match=r"the JPEG header is damaged at byte 2"):
        jpeg(data[:2] + strange + data[2:])


def test_tables_that_hold_an_image_are_damaged() -> None:
    with pytest.raises(ValueError, match="they hold a frame"):
        JpegDecoder(ENCODED["4:4:4"], is_rgb=False)


def with_frame(change: Callable[[bytearray], object]) -> bytes:
    """Change the frame's segment; its parameters begin at 4."""
    parts = [bytearray(part) for part in segments(ENCODED["4:2:0"])]
    change(next(part for part in parts if part[1] == 0xC0))
    return b"".join(parts)


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF])
def test_another_process_of_jpeg_is_left_to_openslide(marker: int) -> None:
    with pytest.raises(ForeignError, match=f"JPEG of process {marker - 0xC0} and 8 bits"):
        jpeg(with_frame(lambda frame: frame.__setitem__(1, marker)))


def test_jpeg_of_12_bits_is_left_to_openslide() -> None:
    with pytest.raises(ForeignError, match="JPEG of process 0 and 12 bits"):
        jpeg(with_frame(lambda frame: frame.__setitem__(4, 12)))


@pytest.mark.parametrize("high", [0, 255])
def test_the_size_of_a_frame_is_checked_before_it_is_decoded(high: int) -> None:
    with pytest.raises(ValueError, match=r"the block is of 64 x \d+ px, not 64 x 64"):
        jpeg(with_frame(lambda frame: frame.__setitem__(slice(5, 7), bytes([high, 0]))))


@pytest.mark.parametrize("count", [0, 2])
def test_a_block_has_one_frame(count: int) -> None:
    parts = [part * count if part[1] == 0xC0 else part for part in segments(ENCODED["4:2:0"])]
    with pytest.raises(ValueError, match="not one JPEG frame"):
        jpeg(b"".join(parts))


def test_a_grey_block_is_none_of_three_channels() -> None:
    with pytest.raises(ValueError, match="not 3 channels"):
        jpeg(imagecodecs.jpeg8_encode(np.ascontiguousarray(BLOCK[..., 0]), level=90))


@pytest.mark.parametrize("cut", [0, 1, 3, 20, 200, -1])
def test_what_is_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        jpeg(imagecodecs.jpeg8_encode(BLOCK, level=90)[:cut])


CODESTREAM = bytes(imagecodecs.jpeg2k_encode(BLOCK, codecformat="j2k", reversible=True))


def test_a_jpeg_2000_block_is_decoded() -> None:
    assert np.array_equal(jpeg_2000(CODESTREAM), BLOCK)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (8, (65).to_bytes(4, "big"), "65 x 64 px of 3 channels"),
        (12, (128).to_bytes(4, "big"), "64 x 128 px of 3 channels"),
        (8, (65).to_bytes(4, "big") + CODESTREAM[12:16] + (1).to_bytes(4, "big"), r"from \(1, 0\) on, not 64 x 64"),
        (20, (63).to_bytes(4, "big"), r"from \(0, 63\) on"),
        (24, bytes(4), "tiles do not cover it"),
        (28, bytes(4), "tiles do not cover it"),
        (32, (1).to_bytes(4, "big"), "tiles do not cover it"),
        (36, (1).to_bytes(4, "big"), "tiles do not cover it"),
        (24, (1).to_bytes(4, "big") * 2, "4096 tiles of its own, more than 1024"),
        (40, b"\0\4", "of 4 channels"),
        (42, b"\x0b", "not 8 bits per channel"),
        (45, b"\x06", "not 8 bits per channel"),
        (48, b"\x87", "not 8 bits per channel"),
    ],
)
def test_each_field_of_the_header_of_a_jpeg_2000_block_must_fit(place: int, value: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        jpeg_2000(CODESTREAM[:place] + value + CODESTREAM[place + len(value) :])

    assert not isinstance(caught.value, ForeignError)


@pytest.mark.parametrize("place", [43, 44, 46, 47, 49, 50])
def test_a_jpeg_2000_block_of_colours_of_a_lower_resolution_is_left_to_openslide(place: int) -> None:
    with pytest.raises(ForeignError, match="colours of a lower resolution"):
        jpeg_2000(CODESTREAM[:place] + b"\2" + CODESTREAM[place + 1 :])


@pytest.mark.parametrize("tile", [16, 48, 100])
def test_a_jpeg_2000_block_may_be_coded_in_tiles(tile: int) -> None:
    file = io.BytesIO()
    Image.fromarray(BLOCK).save(file, "JPEG2000", no_jp2=True, tile_size=(tile, tile))

    assert np.array_equal(jpeg_2000(file.getvalue()), BLOCK)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9])
def test_a_jpeg_2000_block_with_a_zeroed_end_is_an_error(kept: float) -> None:
    end = int(kept * len(CODESTREAM))

    with pytest.raises(ValueError, match="does not end at byte"):
        jpeg_2000(CODESTREAM[:end] + bytes(len(CODESTREAM) - end))


@pytest.mark.parametrize("tile", [16, 100])
def test_a_jpeg_2000_block_whose_last_part_has_no_length_goes_to_the_end(tile: int) -> None:
    file = io.BytesIO()
    Image.fromarray(BLOCK).save(file, "JPEG2000", no_jp2=True, tile_size=(tile, tile))
    data = file.getvalue()
    last = data.rindex(b"\xff\x90\x00\x0a")

    open_end = data[: last + 6] + bytes(4) + data[last + 10 :]

    assert np.array_equal(jpeg_2000(open_end), BLOCK)
    with pytest.raises(ValueError, match="does not end at byte"):
        jpeg_2000(open_end[:-2] + bytes(2))


@pytest.mark.parametrize("length", [0, 4, 50, 60])
def test_a_jpeg_2000_block_that_is_cut_off_is_an_error(length: int) -> None:
    with pytest.raises((OSError, ValueError), match=r"."):
        jpeg_2000(CODESTREAM[:length])


def test_a_damaged_colour_profile_costs_no_block() -> None:
    whole = by_pillow()
    profile = segment(0xE2, b"ICC_PROFILE\0\3\1")

    assert (jpeg(whole[:2] + profile + whole[2:]) == jpeg(whole)).all()


def or_error(decode: Callable[[], Pixels]) -> Pixels | str:
    try:
        return decode()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


HEADS = st.builds(
    lambda data, more, stop: data[:2] + more + data[2:stop],
    st.sampled_from(sorted(ENCODED)).map(ENCODED.__getitem__),
    st.lists(fill | legal | st.just(b"\0"), max_size=1).map(b"".join),
    st.sampled_from([None, 20, 200]),
)


@settings(max_examples=100)
@given(st.lists(HEADS, min_size=2, max_size=5), st.booleans())
def test_a_decoder_decodes_each_block_as_if_it_were_the_first(blocks: list[bytes], is_rgb: bool) -> None:
    decoder = JpegDecoder(b"", is_rgb)

    def decode(data: bytes) -> Pixels:
        out = np.zeros_like(BLOCK)
        decoder.decode(data, out)
        return out

    for data in [*blocks, *blocks]:
        assert np.array_equal(or_error(lambda data=data: decode(data)), or_error(lambda data=data: jpeg(data, is_rgb)))


def test_a_block_of_another_shape_is_refused_after_one_of_the_same_head() -> None:
    decoder = JpegDecoder(b"", is_rgb=False)
    decoder.decode(ENCODED["4:2:0"], np.zeros_like(BLOCK))

    with pytest.raises(ValueError, match="the block is of 64 x 64 px, not 64 x 32"):
        decoder.decode(ENCODED["4:2:0"], np.zeros_like(BLOCK[:32]))


def test_a_block_without_a_scan_is_damaged() -> None:
    start, *parts = segments(ENCODED["4:2:0"])

    with pytest.raises(ValueError, match="the block has no JPEG scan"):
        jpeg(start + b"".join(parts[:-1]) + b"\xff\xd9")
