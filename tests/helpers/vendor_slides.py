"""Slides as scanners of several vendors write them, made of one picture: true containers, as small as can be.

Level 0 holds the picture at the resolution that a writer is given, the other levels hold its reductions.
"""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from PIL import Image

from helpers.coded_slides import cut, jpeg
from histo.demo.textures import GLASS, paint
from histo.resample import Pixels, block_means

Writer = Callable[[Path, Pixels, float], Path]
"""Writes a slide into a folder that is there: folder, picture, µm per pixel; returns the file to open."""
Tag = tuple[int, str, Sequence[Any]]
"""Code, format of `struct`, and values of a TIFF tag."""

BLOCK_PX = 256
OVERLAP_PX = 16
INTERVAL_PX = 64
"""Width of a restart interval of Hamamatsu's JPEG files; it is 8 px high."""
WIDEST_PX = 65_535
"""Width that a JPEG header can name."""
TIFF_TYPES = {"s": 2, "H": 3, "I": 4, "f": 11, "i": 9}
"""Codes of the types of tags; a rational number is written as two of `R`."""


def picture(shared: Path, width: int = 1280, height: int = 1024) -> Pixels:
    """Return H&E: a part of a real slide where it is there, else what is painted like it; glass along the top."""
    slide = shared / "slides" / "CMU-1-Small-Region.svs"
    if slide.exists():
        with openslide.OpenSlide(slide) as opened:
            image = np.array(opened.read_region((500, 400), 0, (width, height)).convert("RGB"))
    else:
        halves = [paint(name, height, width // 2, np.random.default_rng(0)) for name in ("TUM", "MUS")]
        image = np.concatenate(halves, axis=1)
    image[: height // 8] = GLASS
    return image


def reduced(image: Pixels, step: int) -> Pixels:
    return np.ascontiguousarray(image) if step == 1 else block_means(image, step, step)


def encoded(image: Pixels, restart_mcus: int | None = None) -> bytes:
    """Code as JPEG without loss of colour resolution, with a restart marker after so many blocks of 8 x 8 px."""
    stream = io.BytesIO()
    restart = {} if restart_mcus is None else {"restart_marker_blocks": restart_mcus}
    Image.fromarray(image).save(stream, "JPEG", quality=90, subsampling=0, **restart)
    return stream.getvalue()


# Hamamatsu


def write_ndpi(folder: Path, image: Pixels, mpp: float, restarts: bool = True) -> Path:
    """Write an NDPI file: a TIFF with places of 64 bits; each level is one strip, one JPEG of restart intervals.

    Args:
        folder: Where to.
        image: The picture; its width and its quarter are multiples of `INTERVAL_PX`.
        mpp: µm per pixel.
        restarts: Whether there are restart markers, and a list of their places.
    """
    levels = [_ndpi_level(reduced(image, step), mpp * step, 20 / step, restarts) for step in (1, 4)]
    macro = encoded(reduced(image, 8))
    levels.append(([*_ndpi_tags(image.shape[1] // 8, image.shape[0] // 8, mpp * 8, -1.0)], macro))
    path = folder / "hamamatsu.ndpi"
    data, links = bytearray(struct.pack("<2sHQ", b"II", 42, 0)), 4
    for tags, strip in levels:
        place = len(data)
        data += strip + b"\0" * (len(strip) % 2)
        struct.pack_into("<Q", data, links, len(data))
        links = _append_directory(data, sorted([*tags, (273, "I", [place]), (279, "I", [len(strip)])]))
    path.write_bytes(data)
    return path


def _ndpi_level(level: Pixels, mpp: float, lens: float, restarts: bool) -> tuple[list[Tag], bytes]:
    """Code a level; the header of one that is wider than it can say names no size."""
    height, width = level.shape[:2]
    strip = bytearray(encoded(_folded(level) if width > WIDEST_PX else level, INTERVAL_PX // 8 if restarts else None))
    tags = _ndpi_tags(width, height, mpp, lens)
    if restarts:
        tags.append((65426, "I", [*_restarts(strip)]))
    if width > WIDEST_PX:
        frame = strip.index(b"\xff\xc0")
        strip[frame + 5 : frame + 9] = bytes(4)
    return tags, bytes(strip)


def _folded(level: Pixels) -> Pixels:
    """Arrange the restart intervals of a wide level so that an encoder takes them; their bytes are the same."""
    height, width = level.shape[:2]
    intervals = level.reshape(height // 8, 8, width // INTERVAL_PX, INTERVAL_PX, 3).swapaxes(1, 2)
    rows = intervals.reshape(-1, 16, 8, INTERVAL_PX, 3).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, 16 * INTERVAL_PX, 3))


def _ndpi_tags(width: int, height: int, mpp: float, lens: float) -> list[Tag]:
    """List the tags of one image; a negative `lens` says that it is the macro."""
    per_cm = [round(1e6 / mpp), 100]
    size: list[Tag] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [8, 8, 8]),
        (259, "H", [7]),
        (262, "H", [6]),
    ]
    maker: list[Tag] = [
        (271, "s", [b"Hamamatsu\0"]),
        (272, "s", [b"NanoZoomer\0"]),
        (277, "H", [3]),
        (278, "I", [height]),
    ]
    scale: list[Tag] = [(282, "R", per_cm), (283, "R", per_cm), (296, "H", [3]), (305, "s", [b"NDP.scan 2.5.89\0"])]
    own: list[Tag] = [(65420, "I", [1]), (65421, "f", [lens]), (65422, "i", [0]), (65423, "i", [0]), (65424, "i", [0])]
    return [*size, *maker, *scale, *own]


def _restarts(strip: bytes | bytearray) -> Iterator[int]:
    """Yield where each restart interval of a JPEG begins."""
    scan = strip.index(b"\xff\xda")
    yield scan + 2 + int.from_bytes(strip[scan + 2 : scan + 4], "big")
    yield from (at + 2 for at in range(scan, len(strip)) if strip[at] == 0xFF and 0xD0 <= strip[at + 1] <= 0xD7)


def _append_directory(data: bytearray, tags: Sequence[Tag]) -> int:
    """Append a directory with its values, and return where the place of the next one is to stand."""
    start = len(data)
    link = start + 2 + 12 * len(tags)
    entries, values = bytearray(), bytearray()
    behind = link + 8 + 4 * len(tags)  # the upper halves of places of 64 bits stand behind the link
    for code, form, content in tags:
        packed = content[0] if form == "s" else struct.pack(f"<{len(content)}{form.replace('R', 'I')}", *content)
        kind, count = (5, 1) if form == "R" else (TIFF_TYPES[form], len(packed) if form == "s" else len(content))
        if len(packed) > 4:
            values += b"\0" * (len(values) % 2)
            place = struct.pack("<I", behind + len(values))
            values += packed
        entries += struct.pack("<HHI", code, kind, count) + (place if len(packed) > 4 else packed.ljust(4, b"\0"))
    data += struct.pack("<H", len(tags)) + entries + bytes(8 + 4 * len(tags)) + values + b"\0" * (len(values) % 2)
    return link


def write_vms(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a VMS slide: an index, two JPEG files side by side, and one of a reduction."""
    height, width = image.shape[:2]
    for name, pixels in (("(0,0)", image[:, : width // 2]), ("(1,0)", image[:, width // 2 :])):
        (folder / f"vms{name}.jpg").write_bytes(encoded(np.ascontiguousarray(pixels), INTERVAL_PX // 8))
    (folder / "vms_map.jpg").write_bytes(encoded(reduced(image, 4), INTERVAL_PX // 8))
    (folder / "vms_macro.jpg").write_bytes(encoded(reduced(image, 8)))
    index = f"""[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=2
NoJpegRows=1
ImageFile=vms(0,0).jpg
ImageFile(1,0)=vms(1,0).jpg
MapFile=vms_map.jpg
MacroImage=vms_macro.jpg
PhysicalWidth={width * mpp * 1000:.0f}
PhysicalHeight={height * mpp * 1000:.0f}
SourceLens=20
"""
    path = folder / "hamamatsu.vms"
    path.write_text(index)
    return path


# MIRAX

PHOTO = 2
"""Images along one edge of a photo."""


def write_mirax(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a MIRAX slide of overlapping photos, each placed by itself, the first column and the last row left out."""
    identity, companions = "0123456789ABCDEF0123456789ABCDEF", folder / "mirax"
    companions.mkdir()
    places = _photo_places(image)
    pages, data = [], bytearray()
    for step in (1, 2, 4):
        page = []
        for index, pixels in _mirax_images(image, places, step):
            block = encoded(pixels)
            page.append((index, len(data), len(block), 0))
            data += block
        pages.append(page)
    positions = b"".join(struct.pack("<?ii", photo in places, *places.get(photo, (0, 0))) for photo in _photos(image))
    (companions / "Data0000.dat").write_bytes(data)
    (companions / "Data0001.dat").write_bytes(positions)
    (companions / "Index.dat").write_bytes(_mirax_index(f"01.02{identity}".encode(), pages, len(positions)))
    (companions / "Slidedat.ini").write_text(_slidedat(identity, image, mpp), encoding="utf-8-sig")
    path = folder / "mirax.mrxs"
    path.write_bytes(encoded(reduced(image, 8)))
    return path


def _photos(image: Pixels) -> list[tuple[int, int]]:
    """List the photos that cover a picture, `(row, column)`."""
    advance = PHOTO * BLOCK_PX - OVERLAP_PX
    return list(product(range(-(-image.shape[0] // advance)), range(-(-image.shape[1] // advance))))


def _photo_places(image: Pixels) -> dict[tuple[int, int], tuple[int, int]]:
    """Place those photos that were taken, `(x, y)` level-0 px: some pixels beside where the camera should have been."""
    advance, last = PHOTO * BLOCK_PX - OVERLAP_PX, max(row for row, _ in _photos(image))
    return {
        (row, column): (column * advance - 3 * row, row * advance + 2 * column)
        for row, column in _photos(image)
        if column > 0 and row < last
    }


def _mirax_images(
    image: Pixels, places: dict[tuple[int, int], tuple[int, int]], step: int
) -> Iterator[tuple[int, Pixels]]:
    """Yield the images of one level: `step` x `step` images of photos side by side, reduced to the size of one."""
    rows, columns = (PHOTO * (1 + max(numbers)) for numbers in zip(*_photos(image), strict=True))
    edges = [(0, 2 * PHOTO * BLOCK_PX)] * 2
    padded = np.pad(image, [*edges, (0, 0)], constant_values=255)
    for row, column in product(range(0, rows, step), range(0, columns, step)):
        canvas = np.full((step * BLOCK_PX, step * BLOCK_PX, 3), GLASS, np.uint8)
        cells = [
            (canvas[down * BLOCK_PX :, across * BLOCK_PX :][:BLOCK_PX, :BLOCK_PX], row + down, column + across)
            for down, across in product(range(step), range(step))
            if ((row + down) // PHOTO, (column + across) // PHOTO) in places
        ]
        for cell, down, across in cells:
            x, y = places[down // PHOTO, across // PHOTO]
            x, y = x + across % PHOTO * BLOCK_PX, y + down % PHOTO * BLOCK_PX
            cell[:] = padded[y : y + BLOCK_PX, x : x + BLOCK_PX]
        if cells:
            yield row * columns + column, reduced(canvas, step)


def _mirax_index(head: bytes, pages: Sequence[Sequence[tuple[int, int, int, int]]], positions: int) -> bytes:
    """Write where the images of each level lie in file 0, and the photos' places in file 1."""
    data = bytearray(head + bytes(8))
    entries = [struct.pack("<ii", len(page), 0) + b"".join(struct.pack("<4i", *e) for e in page) for page in pages]
    records = [_append_record(data, page) for page in entries]
    places = _append_record(data, struct.pack("<7i", 1, 0, 0, 0, 0, positions, 1))
    struct.pack_into("<ii", data, len(head), len(data), len(data) + 4 * len(records))
    return bytes(data + struct.pack(f"<{len(records) + 1}i", *records, places))


def _append_record(data: bytearray, page: bytes) -> int:
    place = len(data)
    data += struct.pack("<ii", 0, place + 8) + page
    return place


def _slidedat(identity: str, image: Pixels, mpp: float) -> str:
    rows, columns = (PHOTO * (1 + max(numbers)) for numbers in zip(*_photos(image), strict=True))
    levels = "".join(
        f"""[LAYER_0_LEVEL_{level}_SECTION]
OVERLAP_X={OVERLAP_PX / 2**level}
OVERLAP_Y={OVERLAP_PX / 2**level}
MICROMETER_PER_PIXEL_X={mpp * 2**level}
MICROMETER_PER_PIXEL_Y={mpp * 2**level}
IMAGE_FORMAT=JPEG
IMAGE_FILL_COLOR_BGR=16777215
DIGITIZER_WIDTH={BLOCK_PX}
DIGITIZER_HEIGHT={BLOCK_PX}
IMAGE_CONCAT_FACTOR={int(level > 0)}
"""
        for level in range(3)
    )
    values = "".join(
        f"HIER_0_VAL_{i}=ZoomLevel_{i}\nHIER_0_VAL_{i}_SECTION=LAYER_0_LEVEL_{i}_SECTION\n" for i in range(3)
    )
    return f"""[GENERAL]
SLIDE_VERSION=01.02
SLIDE_ID={identity}
IMAGENUMBER_X={columns}
IMAGENUMBER_Y={rows}
OBJECTIVE_MAGNIFICATION=20
CameraImageDivisionsPerSide={PHOTO}
[HIERARCHICAL]
HIER_COUNT=1
NONHIER_COUNT=1
INDEXFILE=Index.dat
HIER_0_NAME=Slide zoom level
HIER_0_COUNT=3
{values}NONHIER_0_NAME=VIMSLIDE_POSITION_BUFFER
NONHIER_0_COUNT=1
NONHIER_0_VAL_0=default
NONHIER_0_VAL_0_SECTION=NONHIERLAYER_0_SECTION
[NONHIERLAYER_0_SECTION]
VIMSLIDE_POSITION_DATA_FORMAT_VERSION=257
[DATAFILE]
FILE_COUNT=2
FILE_0=Data0000.dat
FILE_1=Data0001.dat
{levels}"""


# TIFF


def _write_tiled(file: tifffile.TiffWriter, level: Pixels, blocks: Sequence[Pixels] | None = None, **tags: Any) -> None:
    """Write a tiled JPEG image, of these blocks if they are not those of the level as it is."""
    coded = [jpeg()(block) for block in blocks or cut(level, BLOCK_PX, BLOCK_PX)]
    fixed: dict[str, Any] = {"photometric": "ycbcr", "compression": 7, "tile": (BLOCK_PX, BLOCK_PX), "metadata": None}
    file.write(iter(coded), shape=level.shape, dtype=np.uint8, **fixed, **tags)


def write_scn(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a Leica slide, BigTIFF: a macro, and two areas of tissue on a canvas that is larger than both."""
    path, half = folder / "leica.scn", image.shape[1] // 2
    areas = [(np.ascontiguousarray(image[:, :half]), 640, 512), (np.ascontiguousarray(image[:, half:]), 1664, 768)]
    macro, per_cm = reduced(image, 8), (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        _write_tiled(file, macro, description=_scn_description(areas, macro, mpp).encode())
        for area, _, _ in areas:
            for step in (1, 4):
                resolution = (per_cm[0] / step, per_cm[1] / step)
                _write_tiled(file, reduced(area, step), resolution=resolution, resolutionunit="CENTIMETER")
    return path


def _scn_description(areas: Sequence[tuple[Pixels, int, int]], macro: Pixels, mpp: float) -> str:
    """Describe the images; lengths in nm on the slide, but those of `dimension`, which are px."""
    nm, canvas = mpp * 1000, 'sizeX="{}" sizeY="{}"'.format(*(round(edge * mpp * 1000) for edge in (3072, 2304)))
    images = f"""<image><pixels sizeX="{macro.shape[1]}" sizeY="{macro.shape[0]}">
<dimension sizeX="{macro.shape[1]}" sizeY="{macro.shape[0]}" r="0" ifd="0"/></pixels>
<view {canvas} offsetX="0" offsetY="0"/>
<scanSettings><illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>
<objectiveSettings><objective>0.6</objective></objectiveSettings></scanSettings></image>"""
    for number, (area, x, y) in enumerate(areas):
        height, width = area.shape[:2]
        images += f"""<image><pixels sizeX="{width}" sizeY="{height}">
<dimension sizeX="{width}" sizeY="{height}" r="0" ifd="{2 * number + 1}"/>
<dimension sizeX="{width // 4}" sizeY="{height // 4}" r="1" ifd="{2 * number + 2}"/></pixels>
<view sizeX="{width * nm:.0f}" sizeY="{height * nm:.0f}" offsetX="{x * nm:.0f}" offsetY="{y * nm:.0f}"/>
<scanSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings>
<objectiveSettings><objective>20</objective></objectiveSettings></scanSettings></image>"""
    return f"""<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
<collection name="slide" {canvas}>{images}</collection></scn>"""


def write_trestle(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a Trestle slide, whose blocks overlap on level 0."""
    path, advance = folder / "trestle.tif", BLOCK_PX - OVERLAP_PX
    rows, columns = (-(-(extent - OVERLAP_PX) // advance) for extent in image.shape[:2])
    padded = np.pad(image, [(0, BLOCK_PX), (0, BLOCK_PX), (0, 0)], constant_values=255)
    places = product(range(0, rows * advance, advance), range(0, columns * advance, advance))
    blocks = [np.ascontiguousarray(padded[y : y + BLOCK_PX, x : x + BLOCK_PX]) for y, x in places]
    level = np.zeros((rows * BLOCK_PX, columns * BLOCK_PX, 3), np.uint8)
    text = f"Background Color=ffffff;Objective Power=20;OverlapsXY= {OVERLAP_PX} {OVERLAP_PX} 0 0;Image Format=JPEG"
    described = {"software": "MedScan", "description": text, "resolution": (mpp, mpp), "resolutionunit": "NONE"}
    with tifffile.TiffWriter(path) as file:
        _write_tiled(file, level, blocks, **described)
        _write_tiled(file, reduced(padded[: rows * advance + OVERLAP_PX, : columns * advance + OVERLAP_PX], 4))
    return path


def write_philips(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a Philips TIFF, whose levels are padded to whole blocks."""
    path, steps = folder / "philips.tiff", (1, 2, 4)
    spacing = "".join(
        f"""<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028"
Element="0x0030" PMSVR="IDoubleArray">&quot;{mpp * step / 1000}&quot; &quot;{mpp * step / 1000}&quot;</Attribute>
</DataObject>"""
        for step in steps
    )
    text = f"""<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">
<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>
<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>
<Attribute Name="DICOM_PIXEL_SPACING">&quot;{mpp / 1000}&quot; &quot;{mpp / 1000}&quot;</Attribute>
<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{spacing}</Array></Attribute>
</DataObject></Array></Attribute></DataObject>"""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in steps:
            level = reduced(image, step)
            whole = [(0, -extent % BLOCK_PX) for extent in level.shape[:2]]
            level = np.pad(level, [*whole, (0, 0)], constant_values=255)
            first = {"description": text.encode(), "software": "Philips DP v1.0"}
            _write_tiled(file, level, subfiletype=int(step > 1), **(first if step == 1 else {"software": False}))
    return path


def write_bif(folder: Path, image: Pixels, mpp: float) -> Path:
    """Write a Ventana slide, BigTIFF: blocks that overlap by what is said of each joint between two."""
    path, advance = folder / "ventana.bif", BLOCK_PX - OVERLAP_PX
    rows, columns = ((extent - OVERLAP_PX) // advance for extent in image.shape[:2])
    blocks = [
        np.ascontiguousarray(image[y : y + BLOCK_PX, x : x + BLOCK_PX])
        for y, x in product(range(0, rows * advance, advance), range(0, columns * advance, advance))
    ]
    whole = np.concatenate([np.concatenate(blocks[i * columns : (i + 1) * columns], axis=1) for i in range(rows)])
    scan = f'<iScan Z-layers="1" Magnification="20" ScanRes="{mpp}"/>'.encode()
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        _write_tiled(file, reduced(whole, 8), description="Label Image", extratags=[_packet(scan)])
        for level, step in enumerate((1, 2, 4)):
            packet = [_packet(_bif_joints(rows, columns))] if step == 1 else []
            text = f"level={level} mag={20 / step:g} quality=90"
            _write_tiled(file, reduced(whole, step), description=text, extratags=packet, subfiletype=int(step > 1))
    return path


def _packet(text: bytes) -> tuple[int, int, int, bytes, bool]:
    return 700, 1, len(text), text, True


def _bif_joints(rows: int, columns: int) -> bytes:
    """Say by how much neighbours overlap; blocks are numbered from the lowest row up, to and fro."""

    def number(row: int, column: int) -> int:
        up = rows - 1 - row
        return up * columns + (columns - 1 - column if up % 2 else column) + 1

    overlaps = f'Confidence="100" OverlapX="{OVERLAP_PX}" OverlapY="{OVERLAP_PX}"'
    joints = "".join(
        f'<TileJointInfo Direction="RIGHT" Tile1="{number(r, c)}" Tile2="{number(r, c + 1)}" {overlaps}/>'
        for r, c in product(range(rows), range(columns - 1))
    ) + "".join(
        f'<TileJointInfo Direction="UP" Tile1="{number(r + 1, c)}" Tile2="{number(r, c)}" {overlaps}/>'
        for r, c in product(range(rows - 1), range(columns))
    )
    return f"""<EncodeInfo><SlideStitchInfo><ImageInfo AOIScanned="1" Width="{BLOCK_PX}" Height="{BLOCK_PX}"
Pos-X="0" Pos-Y="0" NumRows="{rows}" NumCols="{columns}">{joints}</ImageInfo></SlideStitchInfo>
<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>""".encode()


WRITERS: dict[str, tuple[str, Writer]] = {
    "Hamamatsu NDPI": ("hamamatsu", write_ndpi),
    "Hamamatsu VMS": ("hamamatsu", write_vms),
    "Leica SCN": ("leica", write_scn),
    "MIRAX": ("mirax", write_mirax),
    "Philips TIFF": ("philips", write_philips),
    "Trestle": ("trestle", write_trestle),
    "Ventana BIF": ("ventana", write_bif),
}
"""What OpenSlide calls the vendor of each format, and what writes it."""
