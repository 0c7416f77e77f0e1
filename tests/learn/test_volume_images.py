from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import fake_dicom as fake
from helpers.volume_files import PREPARATION, noise, write, write_classes

from histo.errors import ImageError, UsageError
from histo.learn.array_layout import TILES, VolumeLayout
from histo.learn.data.inspection import check_broken, inspect_images
from histo.learn.data.source import read_sources
from histo.learn.data.volume_images import VolumeImages
from histo.learn.fit.augment_spec import AugmentSpec
from histo.learn.fit.batch_order import BatchOrder
from histo.learn.fit.batches import ImageBatches
from histo.resample import resize


def test_class_folders_of_volumes_are_a_source(tmp_path: Path) -> None:
    source = read_sources([write_classes(tmp_path / "volumes")])

    assert source.classes == ("mts", "norma")
    assert [case.case_id for case in source.cases[:2]] == ["mts/P000.nii.gz", "mts/P002.nii.gz"]
    assert source.images.layout == VolumeLayout(2, 4, PREPARATION)
    assert source.images.load(0).shape == (2, 4, 16, 16)


def test_a_manifest_in_a_folder_gives_groups_and_splits(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "volumes", per_class=2)
    lines = ["path,label,group,split", "mts/P000.nii.gz,mts,P000,train", "norma/P001.nii.gz,norma,P000,"]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")

    source = read_sources([root])

    assert [(case.case_id, case.group, case.split) for case in source.cases] == [
        ("mts/P000.nii.gz", "P000", "train"),
        ("norma/P001.nii.gz", "P000", None),
    ]


def test_volumes_beside_pictures_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "volumes")
    (root / "mts" / "a.png").write_bytes(b"")

    with pytest.raises(UsageError, match=r"holds volumes \(P000.nii.gz\) and pictures \(a.png\)"):
        read_sources([root])


def test_volumes_beside_tiles_in_several_sources_are_refused(tmp_path: Path, tiles: Path) -> None:
    with pytest.raises(UsageError, match=r"tiles beside volumes of 2 series of 4 slices|volumes of 2 .* beside tiles"):
        read_sources([write_classes(tmp_path / "volumes"), tiles], classes=["mts", "norma", "x"])


def test_sources_that_were_prepared_in_two_ways_are_refused(tmp_path: Path) -> None:
    first = write_classes(tmp_path / "a")
    for label in ("mts", "norma"):
        write(tmp_path / "b" / label / "x.nii.gz", noise(7), {"slices": 4, "intensity": "zscore"})

    with pytest.raises(UsageError, match="prepared in several ways"):
        read_sources([first, tmp_path / "b"])


@pytest.mark.parametrize(
    ("shape", "preparation", "message"),
    [
        ((2, 3, 16, 16), PREPARATION, "2 series of 3 slices, the others have 2 of 4"),
        ((2, 4, 16, 12), PREPARATION, "12x16 px; volumes must be square"),
        ((2, 4, 16, 16), {"slices": 5}, "prepared in another way than the others"),
        ((2, 4, 16, 16), None, "prepared in another way than the others"),
    ],
)
def test_a_volume_unlike_the_others_is_left_out(
    tmp_path: Path, shape: tuple[int, ...], preparation: dict[str, int] | None, message: str
) -> None:
    root = write_classes(tmp_path / "volumes")
    write(root / "norma" / "Z.nii.gz", noise(9, shape), preparation)

    found = inspect_images(read_sources([root]))

    assert found.edges_px == (16,) * 6 + (None,)
    (line,) = check_broken(found, limit=0.5)
    assert message in line


def test_contents_tell_shapes_apart(tmp_path: Path) -> None:
    volume = noise(0, (2, 4, 16, 16))
    paths = [write(tmp_path / f"{i}.nii.gz", v) for i, v in enumerate((volume, volume, volume[::-1]))]
    found = inspect_images(read_sources([_one_class_each(tmp_path, paths)]))

    first, second, third = found.content_hashes
    assert first == second != third


def _one_class_each(tmp_path: Path, paths: list[Path]) -> Path:
    lines = ["path,label", *(f"{path},{('a', 'b')[i % 2]}" for i, path in enumerate(paths))]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "list.csv"


def test_without_a_readable_volume_the_first_trouble_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"")

    with pytest.raises(UsageError, match=r"no volume can be used; the first: .*a\.nii\.gz"):
        _ = VolumeImages((tmp_path / "a.nii.gz",)).layout


def test_studies_that_are_not_prepared_are_called_so_with_the_way_out(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        for name in ("FLAIR", "T1", "T2"):
            fake.write_nifti(tmp_path / "train" / "mts" / patient / name / "x.nii.gz", noise(1)[0], np.eye(4))

    with pytest.raises(
        UsageError, match=r"mts/P1/FLAIR/x\.nii\.gz\) that are not prepared; prepare them with histo prep"
    ):
        read_sources([tmp_path])


def test_an_unreadable_volume_is_an_image_error(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    (root / "mts" / "P002.nii.gz").write_bytes(b"no")

    with pytest.raises(ImageError, match=r"P002\.nii\.gz: not a readable NIfTI file"):
        read_sources([root]).images.load(1)


def test_a_stream_gives_five_axes_resampled_in_plane(tmp_path: Path) -> None:
    source = read_sources([write_classes(tmp_path)])

    (batch,) = ImageBatches(source, BatchOrder((0, 3), 2, shuffle=False), 8).batches(0)

    assert batch.inputs.shape == (2, 2, 4, 8, 8)
    plane = source.images.load(3)[1, 2]
    np.testing.assert_array_equal(batch.inputs[1, 1, 2].numpy(), resize(plane[..., None], 8)[..., 0])


def test_a_stream_changes_training_volumes_and_no_others(tmp_path: Path) -> None:
    source = read_sources([write_classes(tmp_path)])
    order = BatchOrder((0, 3), 2, shuffle=False)

    (plain,) = ImageBatches(source, order, 16).batches(1)
    (changed,) = ImageBatches(source, order, 16, AugmentSpec(preset="volume")).batches(1)

    assert changed.inputs.shape == plain.inputs.shape
    assert not torch.equal(changed.inputs, plain.inputs)


def test_the_picture_of_a_volume_shows_the_middle_of_each_series_from_the_feet() -> None:
    volume = np.zeros((3, 5, 8, 8), np.uint8)
    volume[1, 2, 7, 0] = 200  # anterior, at the left-hand end of L->R: shown at the top, and on the viewer's right

    picture = VolumeLayout(3, 5).picture(volume)

    assert picture.shape == (16, 16, 3)
    assert np.argwhere(picture[..., 0] == 200).tolist() == [[0, 15]]


def test_layouts_know_the_channels_of_networks() -> None:
    assert [VolumeLayout(3, 20).channels(dimensions) for dimensions in (2, 3)] == [60, 3]
    assert [TILES.channels(dimensions) for dimensions in (2, 3)] == [3, None]
