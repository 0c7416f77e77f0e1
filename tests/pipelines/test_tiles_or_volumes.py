"""What is for tiles is asked of volumes, or the other way round: one line says so before anything begins. No Ray."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.volume_files import PREPARATION, write, write_classes

from histo.cli import main
from histo.demo.bundle import random_volume_bundle
from histo.errors import StudyError
from histo.learn.array_layout import TILES, VolumeLayout
from histo.learn.fit.augment import augment
from histo.learn.fit.augment_spec import AugmentSpec, check_augmentation
from histo.volumes.preparation import prepare
from histo.volumes.spec import PreparationSpec

ON_VOLUMES = "--size-px 16 --network.backbone lenet_3d --network.initial random --augment.preset volume"
NO_MPP = "--mpp: volumes of 2 series of 4 slices have none, they keep their own spacing; leave it out"
IS_OF_TILES = "sees tiles, and the data are volumes of 2 series of 4 slices; give other data, or another bundle"
IS_OF_VOLUMES = "sees volumes of 2 series of 4 slices, and the data are tiles; give other data, or another bundle"
NO_COLOURS = "--colour-baseline: volumes have no colours; leave it out"


@pytest.fixture
def here(bare_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a bundle of either kind: volumes and study-model, tiles.npz and tile-model."""
    write_classes(tmp_path / "volumes")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "tiles.npz", images=images, labels=np.arange(8) % 2)
    (tmp_path / "tile-model").symlink_to(bare_bundle)
    bundle = random_volume_bundle(tmp_path / "made", VolumeLayout(2, 4, PREPARATION), size_px=16)
    (tmp_path / "study-model").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"train --data volumes {ON_VOLUMES} --mpp 0.5", NO_MPP),
        (f"crossval --data volumes {ON_VOLUMES} --folds 3 --mpp 0.5", NO_MPP),
        (
            f"train --data volumes {ON_VOLUMES} --augment.preset stain",
            "--augment.stain-scale: changes colours, which volumes of 2 series of 4 slices have not; give "
            "--augment.preset volume, or none",
        ),
        (f"train --data volumes {ON_VOLUMES} --augment.hue-turns 0.1", "--augment.hue-turns: changes colours"),
        (
            "train --data tiles.npz --network.backbone lenet_3d --network.initial random",
            "--network.backbone lenet_3d: convolves along three axes, tiles have two; give one of timm's",
        ),
        (
            f"train --data volumes --test tiles.npz {ON_VOLUMES}",
            "the sources hold volumes of 2 series of 4 slices beside tiles; give sources of one kind",
        ),
        ("train --data volumes --start-from tile-model --network.backbone test_efficientnet", IS_OF_TILES),
        ("train --data volumes --start-from tile-model --network.backbone lenet_3d", IS_OF_TILES),
        ("train --data tiles.npz --start-from study-model --network.backbone lenet_3d", IS_OF_VOLUMES),
        ("train --data tiles.npz --start-from study-model", IS_OF_VOLUMES),
        ("evaluate --data volumes --model study-model --colour-baseline", NO_COLOURS),
        ("evaluate --data volumes --model tile-model", IS_OF_TILES),
        ("evaluate --data tiles.npz --model study-model", IS_OF_VOLUMES),
        (
            "prepare tiles --data volumes",
            "a tile table is for tiles; give volumes to histo train as they are",
        ),
        ("label --slides volumes --model study-model", "give --studies, or a bundle that classifies tiles"),
        ("label --studies volumes --model tile-model", "give --slides, or a bundle that classifies studies"),
    ],
)
def test_one_kind_in_the_place_of_the_other_is_one_line(
    here: Path, command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*command.split(), "--out", "out"])

    shown = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(shown) == 1
    assert message in shown[0]
    assert not list((here / "out").glob("*")), "nothing was begun"


@pytest.mark.parametrize("job", ["train", "crossval --folds 3"])
def test_a_resolution_is_refused_before_any_volume_is_read(
    here: Path, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "volumes" / "norma" / "Z.nii.gz", np.zeros((2, 9, 16, 16), np.uint8))

    assert main([*f"{job} --data volumes {ON_VOLUMES} --mpp 0.5 --out out".split()]) == 2
    assert NO_MPP in capsys.readouterr().err


def test_tiles_are_changed_by_the_preset_for_volumes_as_well() -> None:
    spec = AugmentSpec(preset="volume")
    tiles_BCHW = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)

    check_augmentation(spec, TILES)
    changed = augment(tiles_BCHW, spec, [(0, 1, 0, 0), (0, 1, 1, 0)])

    assert changed.shape == tiles_BCHW.shape
    assert not torch.equal(changed, tiles_BCHW)


def test_a_prepared_volume_is_not_prepared_again_as_if_it_were_a_study(tmp_path: Path) -> None:
    volume = write(tmp_path / "P000.nii.gz", np.ones((3, 4, 16, 16), np.uint8))

    with pytest.raises(StudyError, match=r"P000\.nii\.gz is a volume that histo prepared; give the study that it was"):
        prepare("P000", [volume], PreparationSpec(slices=4, size_px=16))
