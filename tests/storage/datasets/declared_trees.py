"""One small case of a declared segmentation set, written from the declaration's own patterns.

Every value of every label has one voxel, on a grid that is anisotropic, oblique and flipped.
"""

import csv
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from storage.datasets.declaration import Declaration
from storage.datasets.masks import Layout, Masks, Part
from storage.datasets.nnunet import Layout as NnUnetLayout
from tests.storage.images.dicom_files import decimals, write_ct_slice
from tests.storage.images.volume_writers import write_volume

SHAPE = (7, 6, 5)
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", (10, -20, 15), degrees=True).as_matrix() @ np.diag(
    [-0.8, 1.2, 2.5]
)
AFFINE[:3, 3] = 30, -40, 55
AXIAL = np.diag([-0.5, -0.5, 2.0, 1.0])  # of DICOM series with the default orientation

_NAME = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_SAMPLES = {
    "case": [
        "k7",
        "7",
        "120",
        "patient007_frame01",
        "amos_0006",
        "amos_0508",
        "ATM_007",
        "malignant (7)",
        "benign (7)",
        "normal (7)",
        "liver_7",
        "volume-covid19-A-0007_ct",
        "HN_P007",
        "1.3.6.1.4.1.9328.50.4.0007",
        "10007_1000007",
        "RibFrac7",
        "s0007",
    ],
    "patient": ["sub-9", "10007"],
    "session": ["ses-1"],
    "center": ["Dongyang"],
    "split": ["Tr"],
}

Expected = dict[str, set[tuple[int, ...]]]
"""The indices in the file of the voxels of each label."""


def write_cases(declared: Declaration, root: Path) -> list[tuple[Path, str, Expected]]:
    """A tree with one case for each part of the layout: root, study id, voxels by label."""
    if declared.reader == "nnunet":
        return [(root, "k7", _write_nnunet(declared, root))]
    layout = Layout.model_validate(declared.layout)
    trees = []
    for at, part in enumerate(layout.parts):
        known = {name: sample(name, form) for name, form in _NAME.findall(part.images[0].path)}
        tree = root / str(at)
        expected = write_part(declared, part, known, tree)
        _write_tables(layout, known["case"], tree)
        trees.append((tree, part.key.format_map(known), expected))
    return trees


def sample(name: str, form: str) -> str:
    """What a name of a pattern may stand for: the first sample that has its form."""
    return next(text for text in _SAMPLES[name] if re.fullmatch(form or ".+", text))


def path_of(pattern: str, known: dict[str, str], root: Path) -> Path:
    path = root / _NAME.sub(lambda name: known[name[1]], pattern).replace("*", "x")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_part(declared: Declaration, part: Part, known: dict[str, str], root: Path) -> Expected:
    for image in part.images:
        path = path_of(image.path, known, root)
        if path.suffix in (".png", ".tif"):
            Image.fromarray(np.full(SHAPE[:2], 90, np.uint8)).save(path)
        elif part.masks[0].stack:
            _write_series(path, image.modality)
        else:
            write_volume(path, np.zeros(SHAPE, np.int16), AFFINE)
    (path.parent / f"._{path.name}").write_bytes(b"Mac OS X")
    expected: Expected = {}
    for masks in part.masks:
        if not masks.by_class:
            expected |= _write_masks(masks, path_of(masks.path, known, root))
            continue
        for at, label in enumerate(declared.targets):
            expected |= _write_masks(
                Masks(path="x", rest=label), path_of(masks.path, known | {"class": label}, root), at
            )
    return expected


def _write_masks(masks: Masks, path: Path, first: int = 0) -> Expected:
    values = {label: list(numbers) for label, numbers in masks.values.items()}
    if masks.rest:
        values[masks.rest] = [255] if path.suffix == ".png" else [1]
    picture = path.suffix in (".png", ".tif")
    shape = SHAPE[:2] if picture else SHAPE
    ids = np.zeros(shape, np.uint32)
    place = {
        value: np.unravel_index(at + first, shape)
        for at, value in enumerate(sorted({v for numbers in values.values() for v in numbers}))
    }
    for value, index in place.items():
        ids[index] = 1 << value if masks.packed else value
    if picture:
        stored = ids.astype(np.int32) if masks.packed else ids.astype(np.uint8)
        Image.fromarray(stored).save(path)
    elif masks.stack:
        path.mkdir()
        for z in range(SHAPE[2]):
            Image.fromarray(ids[:, :, z].T.astype(np.uint8)).save(path / f"{z:03}.png")
    else:
        write_volume(path, ids.astype(np.int16), AFFINE)
    return {
        label: {tuple(map(int, place[value])) for value in numbers}
        for label, numbers in values.items()
    }


def _write_series(folder: Path, modality: str) -> None:
    folder.mkdir()
    x, y, z = SHAPE
    for at in range(z):
        write_ct_slice(
            folder / f"i{at:03}.dcm",
            np.zeros((y, x), np.int16),
            (0, 0, 2.0 * at),
            Modality=modality,
            PixelSpacing=decimals(0.5, 0.5),
            RescaleSlope=1 if modality == "CT" else None,
            RescaleIntercept=0 if modality == "CT" else None,
        )


def _write_tables(layout: Layout, case: str, root: Path) -> None:
    for at, table in enumerate(layout.split_tables):
        cell = f"train/{case}/t2.nii.gz" if table.form else case
        cells = {table.key: cell if at == 0 else "other", table.column or "n": "train"}
        with (root / table.table).open("w", encoding="utf-8-sig") as stream:
            writer = csv.DictWriter(stream, list(cells), delimiter=table.separator or ",")
            writer.writeheader()
            writer.writerow(cells)


def _write_nnunet(declared: Declaration, root: Path) -> Expected:
    """As the Medical Decathlon has it: labels by value, sequences along a fourth axis."""
    layout = NnUnetLayout.model_validate(declared.layout)
    folder = root / (layout.folder or "Dataset001_Own")
    names = dict(enumerate(["background", *declared.targets]))
    channels = dict(enumerate(layout.modalities or ["CT"]))
    shape = SHAPE if len(channels) == 1 else (*SHAPE, len(channels))
    write_volume(folder / "imagesTr" / "k7.nii.gz", np.zeros(shape, np.float32), AFFINE)
    (folder / "imagesTr" / "._k7.nii.gz").write_bytes(b"Mac OS X")
    labels = [name for name in names.values() if name != "background"]
    expected = _write_masks(
        Masks(path="x", values={name: at for at, name in enumerate(labels, start=1)}),
        folder / "labelsTr" / "k7.nii.gz",
    )
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "relase": "1.0",
                "modality": {str(at): name for at, name in channels.items()},
                "labels": {str(at): name for at, name in names.items()},
                "training": [{"image": "./imagesTr/k7.nii.gz", "label": "./labelsTr/k7.nii.gz"}],
            }
        )
    )
    return expected
