"""ASAP's XML: groups, order of points, shapes without an area, and what is refused."""

from pathlib import Path

import pytest

from histo.errors import SlideError
from histo.slides.annotations.asap import read_asap
from histo.slides.annotations.shapes import Drawing

CORNERS = ((0, 0), (10, 0), (10, 10), (0, 10))


def annotation(kind: str = "Polygon", group: str = "Tumor", corners: tuple[tuple[float, float], ...] = CORNERS) -> str:
    points = [f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(corners)]
    inside = f"<Coordinates>{''.join(points[::-1])}</Coordinates>"
    return f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">{inside}</Annotation>'


def read(folder: Path, *annotations: str) -> Drawing:
    path = folder / "s.xml"
    listed = "".join(annotations)
    groups = '<AnnotationGroups><Group Name="Tumor" PartOfGroup="None" Color="#ff0000"/></AnnotationGroups>'
    path.write_text(
        f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{listed}</Annotations>{groups}</ASAP_Annotations>'
    )
    return read_asap(path)


def test_shapes_have_the_name_of_their_group_and_the_order_of_their_points(tmp_path: Path) -> None:
    drawing = read(tmp_path, annotation(), annotation("Spline", "None"), annotation("Rectangle", "Stroma"))

    assert [(shape.name, shape.area.area) for shape in drawing.shapes] == [("Tumor", 100), (None, 100), ("Stroma", 100)]
    assert all(shape.area.is_valid for shape in drawing.shapes)


def test_rings_are_closed_without_a_word_since_asap_never_closes_them(tmp_path: Path) -> None:
    assert not read(tmp_path, annotation()).notes


def test_dots_and_point_sets_are_counted(tmp_path: Path) -> None:
    drawing = read(tmp_path, annotation("Dot"), annotation("PointSet"), annotation())

    assert len(drawing.shapes) == 1
    assert drawing.notes == {"points and lines, left out": 2}


def listed(*annotations: str) -> str:
    return f"<ASAP_Annotations>{''.join(annotations)}</ASAP_Annotations>"


NOT_FINITE = annotation(corners=((float("nan"), 1), (2, 1), (3, 5)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<a>", "not XML"),
        ("<Annotations MicronsPerPixel='0.5'/>", "not ASAP's XML: it begins with <Annotations>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><ASAP_Annotations/>', "declares a document type"),
        (listed(annotation(corners=CORNERS[:2])), "annotation 1 (a): a ring of fewer than 3"),
        (listed(annotation(), annotation().replace('X="10"', 'X="a"')), "annotation 2 (a): its point 2 has no X and Y"),
        (listed("<Annotation Type='Polygon'/>"), "annotation 1 (): a ring of fewer than 3"),
        (listed(NOT_FINITE), "annotation 1 (a): a coordinate is not a finite number"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_file_and_annotation(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "s.xml"
    path.write_text(content)

    with pytest.raises(SlideError) as caught:
        read_asap(path)

    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
