"""Single file blocks: what is decoded, and what is refused though other decoders show something."""

import imagecodecs
import numpy as np
import pytest
from slides.coded import scenery

from histo.resample import Pixels
from histo.slides.decoders import decode_jpeg, decode_jpeg_2000, jpeg_prefix

BLOCK = scenery(64, 64)
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def jpeg(data: bytes, is_rgb: bool = False) -> Pixels:
    out = np.zeros_like(BLOCK)
    decode_jpeg(jpeg_prefix(b"", is_rgb), data, out)
    return out


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


def test_a_grey_block_is_none_of_three_channels() -> None:
    with pytest.raises(ValueError, match="not 3 channels"):
        jpeg(imagecodecs.jpeg8_encode(np.ascontiguousarray(BLOCK[..., 0]), level=90))


@pytest.mark.parametrize("cut", [0, 1, 3, 20, 200, -1])
def test_what_is_cut_off_is_an_error(cut: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        jpeg(imagecodecs.jpeg8_encode(BLOCK, level=90)[:cut])


def test_a_jpeg_2000_block_that_begins_elsewhere_is_an_error() -> None:
    data = bytearray(imagecodecs.jpeg2k_encode(BLOCK, codecformat="j2k", reversible=True))
    assert np.array_equal(jpeg_2000(bytes(data)), BLOCK)
    data[16:20] = (63).to_bytes(4, "big")

    with pytest.raises(ValueError, match="not 64 x 64 px"):
        jpeg_2000(bytes(data))
