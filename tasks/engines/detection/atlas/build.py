"""The frontal atlas: every reference structure of one CT, projected, as curves in one picture.

Source: the example chest CT with TotalSegmentator v2 labels (`inputs.yaml`, `chest_ct`), projected
as PAX-Ray does (`storage.imaging.projection`). Structures that have no label of their own (arch
and parts of the aorta, main bronchi, mediastinum) are derived in 3D from those that have.
Points are x, y in pixels of the projected radiograph. The scan was made with raised arms.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from storage import inputs
from storage.datasets import chest_ct
from storage.images.label_map import LabelMap
from storage.images.types import Volume
from storage.imaging.projection import FrontalGrid, project, project_mask
from tasks.engines.detection.atlas.lung_fields import find_lung_fields
from tasks.engines.detection.atlas.outlines import SIDES, LungFields, Points, Side, trace

VERSION = "1"
"""Raised with every change of what this module builds: the cached atlas is then built anew."""

Voxels = NDArray[np.bool_]

LOBES: dict[Side, tuple[str, ...]] = {
    "right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
}
BESIDE_THE_FIELDS = ("heart", "aorta", "superior_vena_cava")
BELOW_THE_FIELDS = ("liver", "spleen", "stomach", "colon")
MEDIASTINUM = (
    *BESIDE_THE_FIELDS,
    "trachea",
    "esophagus",
    "brachiocephalic_trunk",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
    "pulmonary_vein",
)


@dataclass(frozen=True)
class Atlas:
    """What is known of the atlas patient, in pixels of the projected radiograph.

    shape: lung fields traced from the reference masks: what a pair of lungs looks like.
    landmarks: lung fields found in the projection as they are in any radiograph, so that the
    finder's own bias cancels when two images are registered.
    structures: outline points (n, 2) by name.
    """

    shape: LungFields
    landmarks: LungFields
    structures: dict[str, Points]


def digest() -> str:
    """What decides the atlas: its source file and how it is built."""
    return f"{inputs.artefacts()['chest_ct'].sha256[:16]}-{VERSION}"


def load_atlas() -> Atlas:
    """The atlas; built on first use (some seconds) and kept in the data folder.

    Raises:
        storage.inputs.InputError: if the CT was never fetched.
    """
    path = inputs.home() / "derived" / f"atlas-{digest()}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: several workers may build the atlas at once.
        partial = path.with_suffix(f".{uuid.uuid4().hex}")
        partial.write_text(_to_json(build_atlas()))
        partial.replace(path)
    stored = json.loads(path.read_text())
    shape, landmarks = (
        LungFields(np.array(stored[name]["right"]), np.array(stored[name]["left"]), quality=1.0)
        for name in ("shape", "landmarks")
    )
    structures = {name: np.array(points) for name, points in stored["structures"].items()}
    return Atlas(shape, landmarks, structures)


def _to_json(atlas: Atlas) -> str:
    def rounded(points: Points) -> list[list[float]]:
        return [[round(float(x), 2), round(float(y), 2)] for x, y in points]

    return json.dumps(
        {
            "shape": {side: rounded(atlas.shape[side]) for side in SIDES},
            "landmarks": {side: rounded(atlas.landmarks[side]) for side in SIDES},
            "structures": {name: rounded(points) for name, points in atlas.structures.items()},
        }
    )


def build_atlas() -> Atlas:
    """Project the reference structures of the chest CT.

    Raises:
        storage.inputs.InputError: if the CT was never fetched.
    """
    return project_atlas(chest_ct.load_ct(), chest_ct.load_labels())


def project_atlas(volume: Volume, labels: LabelMap) -> Atlas:
    """Project a label map, and what is derived from it, to the frontal radiograph's pixels."""
    grid = FrontalGrid.of(volume)
    shadows = {name: project_mask(*labels.crop(name), grid) for name in labels.names}
    for name, mask, affine in _derived(labels):
        shadows[name] = project_mask(mask, affine, grid)
    for side in SIDES:
        shadows[f"lung_{side}"] = np.any([shadows[lobe] for lobe in LOBES[side]], axis=0)
    shadows["mediastinum"] = np.any([shadows[name] for name in MEDIASTINUM], axis=0)
    right, left = (trace(_field(labels, grid, side), side) for side in SIDES)
    shape = LungFields(right, left, quality=1.0)
    landmarks = find_lung_fields(project(volume).pixels, shape)
    structures = {name: outline_points(shadow) for name, shadow in shadows.items() if shadow.any()}
    return Atlas(shape, landmarks, structures)


def outline_points(shadow: Voxels) -> Points:
    """Points around the parts of a projected structure; specks under a tenth of it are left out."""
    parts, count = ndimage.label(shadow)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    kept = np.isin(parts, 1 + np.flatnonzero(sizes >= 0.1 * sizes.max()))
    curves = measure.find_contours(np.pad(kept, 1).astype(float), 0.5)
    points = [curve[:: max(1, len(curve) // 64), ::-1] - 0.5 for curve in curves]
    return np.concatenate(points)


def _field(labels: LabelMap, grid: FrontalGrid, side: Side) -> Voxels:
    """The lung field as a reader sees it: enough air in the ray, beside heart, above the dome."""
    lung, heart, abdomen = (
        _depth_mm(labels, grid, names)
        for names in (LOBES[side], BESIDE_THE_FIELDS, BELOW_THE_FIELDS)
    )
    visible = (lung > 50) & (heart < 15) & (abdomen < 40)
    parts, count = ndimage.label(ndimage.binary_opening(visible, iterations=4))
    largest = 1 + np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:])
    field: Voxels = parts == largest
    return field


def _depth_mm(labels: LabelMap, grid: FrontalGrid, names: tuple[str, ...]) -> NDArray[np.float64]:
    """How much of some structures each ray passes, in mm."""
    total = np.zeros((grid.rows, grid.columns))
    for name in names:
        mask, affine = labels.crop(name)
        depth = mask.sum(axis=1) * float(np.linalg.norm(affine[:3, 1]))
        rows_z, columns_x = grid.voxel_indices(affine)
        coordinates = np.meshgrid(columns_x, rows_z)
        total += ndimage.map_coordinates(depth, coordinates, order=1, mode="constant")
    return total


def _derived(labels: LabelMap) -> Iterator[tuple[str, Voxels, NDArray[np.float64]]]:
    aorta, affine = labels.crop("aorta")
    for name, part in _aorta_parts(aorta).items():
        yield name, part, affine
    descending = _aorta_parts(aorta)["descending_aorta"]
    # The aorta passes the diaphragm at the level of the twelfth thoracic vertebra.
    vertebra, vertebra_affine = labels.crop("vertebrae_T12")
    z_mm = vertebra_affine[2, 3] + vertebra_affine[2, 2] * vertebra.shape[2] / 2
    hiatus = round((z_mm - affine[2, 3]) / affine[2, 2])
    thoracic, abdominal = aorta.copy(), descending.copy()
    thoracic[..., :hiatus], abdominal[..., hiatus:] = False, False
    yield "thoracic_aorta", thoracic, affine
    yield "abdominal_aorta", abdominal, affine
    airway, airway_affine = labels.crop("trachea")
    for name, part in _bronchi(airway).items():
        yield name, part, airway_affine


def _aorta_parts(aorta: Voxels) -> dict[str, Voxels]:
    """Ascending, arch and descending: the arch is above the last slice that shows two lumens."""
    split = max(z for z in range(aorta.shape[2]) if _large_parts(aorta[..., z]) == 2) + 1
    arch, below = aorta.copy(), aorta.copy()
    arch[..., :split], below[..., split:] = False, False
    lumens, _ = ndimage.label(below)
    # In the uppermost slice with two lumens the ascending one is in front; y grows to the front.
    top = lumens[..., split - 1]
    depth_by_lumen = {
        int(i): float(np.argwhere(top == i)[:, 1].mean()) for i in np.unique(top[top > 0])
    }
    return {
        "aortic_arch": arch,
        "ascending_aorta": lumens == max(depth_by_lumen, key=depth_by_lumen.__getitem__),
        "descending_aorta": lumens == min(depth_by_lumen, key=depth_by_lumen.__getitem__),
    }


def _large_parts(slice_: Voxels) -> int:
    parts, count = ndimage.label(slice_)
    return int(np.sum(np.bincount(parts.ravel(), minlength=count + 1)[1:] > 50))


def _bronchi(airway: Voxels) -> dict[str, Voxels]:
    """The airway down to the carina, and its two parts below: the main bronchi."""
    two = [z for z in range(airway.shape[2]) if _large_parts(airway[..., z]) == 2]
    below = airway.copy()
    below[..., two[-1] + 1 :] = False
    # x grows to the patient's right.
    x = np.flatnonzero(below[..., two[-1]].any(axis=1))
    carina = x[np.argmax(np.diff(x))] + 1
    right, left = below.copy(), below.copy()
    right[:carina], left[carina:] = False, False
    trunk = airway.copy()
    trunk[..., : two[-1] + 1] = False
    return {"trachea_trunk": trunk, "main_bronchus_right": right, "main_bronchus_left": left}
