"""The frontal atlas: the reference structures of one labeled CT, projected to one radiograph.

Source: the example chest CT with TotalSegmentator v2 labels (`inputs.yaml`, `chest_ct`), projected
as PAX-Ray does (`storage.imaging.projection`). Structures without a label of their own (arch and
parts of the aorta, main bronchi, mediastinum) are derived in 3D from labeled ones.
Points are x, y in pixels of the projected radiograph. The arms were raised during the scan.
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
from tasks.engines.detection.atlas.lung_fields.outlines import (
    PIXEL_CENTER,
    SIDES,
    LungFields,
    Points,
    Side,
    trace,
)
from tasks.engines.detection.atlas.lung_fields.search import find_lung_fields

VERSION = "1"
"""Raised with every change of what this module builds, so that a cached atlas is rebuilt."""

Voxels = NDArray[np.bool_]

LOBES: dict[Side, tuple[str, ...]] = {
    "right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
}
BESIDE_FIELDS = ("heart", "aorta", "superior_vena_cava")
BELOW_FIELDS = ("liver", "spleen", "stomach", "colon")
MEDIASTINUM = (
    *BESIDE_FIELDS,
    "trachea",
    "esophagus",
    "brachiocephalic_trunk",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
    "pulmonary_vein",
)

LEAST_LUNG_MM, MOST_HEART_MM, MOST_ABDOMEN_MM = 50.0, 15.0, 40.0
"""Path lengths of a ray in the visible lung field: through at least this much lung and at most
this much heart or vessel, and liver, spleen or bowel. Chosen on the projected chest CT, so that
the field ends at the borders that are visible in it."""

FIELD_OPENING_PX = 4
"""Opening of the lung field, in px: removes the gaps between ribs and thin margins."""

LEAST_PART = 0.1
"""Parts of a projected structure below this share of its largest one are label noise."""

MASK_LEVEL = 0.5
"""Level of a 0/1 mask at its border."""

CURVE_POINTS = 64
"""Points kept per curve (at least; below twice as many): boxes need the extremes alone."""

DECIMALS = 2
"""Decimals of a stored point, in px: far below the accuracy of a registration."""

AORTIC_HIATUS = "vertebrae_T12"
"""The aorta passes the diaphragm at the level of the twelfth thoracic vertebra."""

LEAST_LUMEN_VOXELS = 50
"""Voxels of an axial slice from which a part counts as a lumen of aorta or airway."""


@dataclass(frozen=True)
class Atlas:
    """The reference patient, in pixels of the projected radiograph.

    shape: lung fields traced from the reference masks, the shape prior of the search.
    landmarks: lung fields found in the projection as in any other radiograph, so that the bias of
        the search cancels when the atlas is registered.
    structures: outline points (n, 2) by name.
    """

    shape: LungFields
    landmarks: LungFields
    structures: dict[str, Points]


def digest() -> str:
    """Identifies the atlas: its source file and the version of its construction."""
    return f"{inputs.artefacts()['chest_ct'].sha256[:16]}-{VERSION}"


def load_atlas() -> Atlas:
    """The atlas; built on first use (some seconds) and cached in the data folder.

    Raises:
        storage.inputs.InputError: if the CT was never fetched.
    """
    path = inputs.home() / "derived" / f"atlas-{digest()}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A unique name, then an atomic rename: several workers may build the atlas at once.
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
        return [[round(float(x), DECIMALS), round(float(y), DECIMALS)] for x, y in points]

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
    """Project a label map, and the structures derived from it, to a frontal radiograph."""
    grid = FrontalGrid.of(volume)
    projected = {name: project_mask(*labels.crop(name), grid) for name in labels.names}
    for name, mask, affine in _derived(labels):
        projected[name] = project_mask(mask, affine, grid)
    for side in SIDES:
        projected[f"lung_{side}"] = np.any([projected[lobe] for lobe in LOBES[side]], axis=0)
    projected["mediastinum"] = np.any([projected[name] for name in MEDIASTINUM], axis=0)
    right, left = (trace(_field(labels, grid, side), side) for side in SIDES)
    shape = LungFields(right, left, quality=1.0)
    landmarks = find_lung_fields(project(volume).pixels, shape)
    structures = {name: outline_points(mask) for name, mask in projected.items() if mask.any()}
    return Atlas(shape, landmarks, structures)


def outline_points(mask: Voxels) -> Points:
    """Contour points (n, 2) of a projected structure (rows, columns), small parts left out."""
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    kept = np.isin(parts, 1 + np.flatnonzero(sizes >= LEAST_PART * sizes.max()))
    curves = measure.find_contours(np.pad(kept, 1).astype(float), MASK_LEVEL)
    # One pixel of padding off, half a pixel from its center on; rows, columns become x, y.
    points = [curve[:: max(1, len(curve) // CURVE_POINTS), ::-1] - PIXEL_CENTER for curve in curves]
    return np.concatenate(points)


def _field(labels: LabelMap, grid: FrontalGrid, side: Side) -> Voxels:
    """The visible lung field (rows, columns): lateral to the heart and above the diaphragm."""
    lung, heart, abdomen = (
        _path_mm(labels, grid, names) for names in (LOBES[side], BESIDE_FIELDS, BELOW_FIELDS)
    )
    visible = (lung > LEAST_LUNG_MM) & (heart < MOST_HEART_MM) & (abdomen < MOST_ABDOMEN_MM)
    parts, count = ndimage.label(ndimage.binary_opening(visible, iterations=FIELD_OPENING_PX))
    largest = 1 + np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:])
    field: Voxels = parts == largest
    return field


def _path_mm(labels: LabelMap, grid: FrontalGrid, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Path length (rows, columns) of each ray through some structures, in mm."""
    total = np.zeros((grid.rows, grid.columns))
    for name in names:
        mask, affine = labels.crop(name)
        # y runs from back to front: the rays of a frontal radiograph.
        path = mask.sum(axis=1) * float(np.linalg.norm(affine[:3, 1]))
        rows_z, columns_x = grid.voxel_indices(affine)
        coordinates = np.meshgrid(columns_x, rows_z)
        total += ndimage.map_coordinates(path, coordinates, order=1, mode="constant")
    return total


def _derived(labels: LabelMap) -> Iterator[tuple[str, Voxels, NDArray[np.float64]]]:
    """Name, mask and affine of each structure that the labels do not give themselves."""
    aorta, affine = labels.crop("aorta")
    for name, part in _aorta_parts(aorta).items():
        yield name, part, affine
    descending = _aorta_parts(aorta)["descending_aorta"]
    vertebra, vertebra_affine = labels.crop(AORTIC_HIATUS)
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
    """Ascending, arch and descending: the arch lies above the topmost slice with two lumens."""
    split = max(z for z in range(aorta.shape[2]) if _lumens(aorta[..., z]) == 2) + 1
    arch, below = aorta.copy(), aorta.copy()
    arch[..., :split], below[..., split:] = False, False
    lumens, _ = ndimage.label(below)
    # In the topmost slice with two lumens the ascending aorta is the anterior one; y grows
    # anteriorly.
    top = lumens[..., split - 1]
    depth_by_lumen = {
        int(i): float(np.argwhere(top == i)[:, 1].mean()) for i in np.unique(top[top > 0])
    }
    return {
        "aortic_arch": arch,
        "ascending_aorta": lumens == max(depth_by_lumen, key=depth_by_lumen.__getitem__),
        "descending_aorta": lumens == min(depth_by_lumen, key=depth_by_lumen.__getitem__),
    }


def _lumens(slice_: Voxels) -> int:
    """Number of lumens in an axial slice (x, y)."""
    parts, count = ndimage.label(slice_)
    return int(np.sum(np.bincount(parts.ravel(), minlength=count + 1)[1:] > LEAST_LUMEN_VOXELS))


def _bronchi(airway: Voxels) -> dict[str, Voxels]:
    """The trachea down to the carina, and the two parts below it: the main bronchi."""
    bifurcated = [z for z in range(airway.shape[2]) if _lumens(airway[..., z]) == 2]
    below = airway.copy()
    below[..., bifurcated[-1] + 1 :] = False
    # x grows to the patient's right; the carina is in the widest gap between the bronchi.
    x = np.flatnonzero(below[..., bifurcated[-1]].any(axis=1))
    carina = x[np.argmax(np.diff(x))] + 1
    right, left = below.copy(), below.copy()
    right[:carina], left[carina:] = False, False
    trunk = airway.copy()
    trunk[..., : bifurcated[-1] + 1] = False
    return {"trachea_trunk": trunk, "main_bronchus_right": right, "main_bronchus_left": left}
