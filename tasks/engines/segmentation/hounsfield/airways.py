"""The trachea and the bronchi, by region growing from the trachea.

The trachea is a stack of small compact components of air in axial slices; its lumen is followed
into the bronchi by region growing (Hu, Hoffman and Reinhardt, IEEE TMI 20(6), 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import (
    IN_PLANE,
    Grid,
    Mask3D,
    components,
    largest,
    touching,
)

LUMEN_HU = -900
"""Air in the trachea is near -1000 HU; most lung, even emphysematous, is above this."""
LEAST_LUMEN_HU, LUMEN_STEP_HU = -980, 10
"""A lumen that leaks into the lungs is grown again below lower ceilings, down to this one."""
LUMEN_SIGMA = 0.7
"""Gaussian smoothing before growing, in working voxels: noise opens thin bronchial walls."""
WALL_HU = -450
"""Halfway between the lumen and its wall: the airway's surface on the scan's own grid."""
AREA_MM2 = (50.0, 900.0)
"""Cross-section of a tube to follow; adult tracheas have 100 to 400 mm² (Breatnach, AJR 1984)."""
LEAST_FILL = 0.35
"""Share of its bounding square that a trachea's cross-section fills; a disc fills 0.79."""
LEAST_HEIGHT_MM = 20.0
"""Height of the shortest stack: gas in the esophagus or bowel is seldom as straight."""
BELOW_LUNG_TOP_MM = 60.0
"""A tube that ends further below the top of the lungs is gas in the bowel."""
LEAK_FACTOR, LEAK_ML = 2.0, 15.0
"""Growth beyond this multiple of the trachea and this volume has leaked into the lungs."""
LARYNX_SHARE = 0.7
"""Above the cricoid the airway is narrower than this share of the trachea's median area."""
PARTIAL_VOLUME_MM = 3.0
"""Two working voxels: at the wall, partial volume lifts the lumen above its ceiling."""
BRANCH_MM2 = 40.0
"""Cross-section from which a component is a main bronchus (one of 8 mm has 50 mm²)."""
HILUM_BOX_MM, HILUM_LUNG = 20.0, 0.5
"""A bronchus has left the mediastinum where this share of a box around it is lung."""
BELOW_CARINA_MM = 30.0
"""Main bronchi end within this height; the left one, 5 cm long, descends at about 45°."""


@dataclass(frozen=True)
class Airways:
    """The airways on the working grid, walls excluded; all empty if there is no trachea.

    tree: everything connected, larynx and segmental bronchi included.
    trachea: the trachea with the main bronchi, as TotalSegmentator and SAT label it.
    left_main, right_main: the main bronchi from the carina to the hilum.
    """

    tree: Mask3D
    trachea: Mask3D
    left_main: Mask3D
    right_main: Mask3D


def name_airways(grid: Grid, tree: Mask3D, lungs: Mask3D) -> Airways:
    """Label the central parts of an airway tree.

    Args:
        grid: the scan.
        tree: what `segment_airways` found.
        lungs: both lungs, vessels included.
    """
    nothing = np.zeros_like(tree)
    if not tree.any():
        return Airways(tree, nothing, nothing, nothing)
    box = [max(1, round(HILUM_BOX_MM / mm)) for mm in grid.spacing_mm]
    central = tree & (ndi.uniform_filter(lungs.astype(np.float32), box) < HILUM_LUNG)
    carina = _carina(grid, central)
    central[..., _end_below_larynx(central, carina) :] = False
    central[..., : max(0, carina - int(BELOW_CARINA_MM / grid.spacing_mm[2]))] = False
    # Bronchi cut off from the carina by the box are not central.
    central = largest(central)
    left, right = nothing, nothing.copy()
    at_carina = central[..., carina].nonzero()[0]
    if at_carina.size:
        # x grows to the patient's right.
        middle = int(at_carina.mean())
        left[:middle, :, :carina] = central[:middle, :, :carina]
        right[middle:, :, :carina] = central[middle:, :, :carina]
    return Airways(tree, central, left, right)


def segment_airways(grid: Grid, body: Mask3D, lungs: Mask3D) -> Mask3D:
    """Segment the trachea and the bronchi open to it, walls excluded, on the working grid.

    Args:
        grid: the scan.
        body: the patient, air included.
        lungs: the air of the lungs with the airways open to it.

    Returns:
        The airway tree; empty where no trachea is in the field of view.
    """
    trachea = _trachea(grid, lungs)
    if not trachea.any():
        return trachea
    smooth = ndi.gaussian_filter(grid.hu, LUMEN_SIGMA)
    # 0 HU is tissue: the lumen cannot grow out of the body through the mouth.
    smooth[~body] = 0
    most = LEAK_FACTOR * trachea.sum() + LEAK_ML / grid.voxel_ml
    ceiling_hu = LUMEN_HU
    lumen = touching(smooth < ceiling_hu, trachea)
    while lumen.sum() > most and ceiling_hu > LEAST_LUMEN_HU:
        ceiling_hu -= LUMEN_STEP_HU
        lumen = touching(smooth < ceiling_hu, trachea)
    # The dilation restores the wall's partial volume, the threshold keeps it out of tissue.
    return grid.dilate(lumen, PARTIAL_VOLUME_MM) & (grid.hu < WALL_HU)


def _trachea(grid: Grid, lungs: Mask3D) -> Mask3D:
    """The tallest stack of compact components that reaches the top of the lungs."""
    labels, count = ndi.label(_compact_air(grid, lungs))
    levels_with_lung = np.flatnonzero(lungs.any(axis=(0, 1)))
    if not (count and levels_with_lung.size):
        return np.zeros_like(lungs)
    dz = grid.spacing_mm[2]
    lowest_end = levels_with_lung[-1] - BELOW_LUNG_TOP_MM / dz
    spans = [extent[2] for extent in ndi.find_objects(labels)]
    heights_mm = [(s.stop - s.start) * dz * (s.stop > lowest_end) for s in spans]
    # Several tubes may reach the top of the lungs, such as gas in the esophagus.
    tallest = int(np.argmax(heights_mm))
    if heights_mm[tallest] < LEAST_HEIGHT_MM:
        return np.zeros_like(lungs)
    trachea: Mask3D = labels == tallest + 1
    return trachea


def _compact_air(grid: Grid, air: Mask3D) -> Mask3D:
    """The components of air in axial slices with the size and shape of a trachea's lumen."""
    labels, sizes = components(air, IN_PLANE)
    dx, dy, _ = grid.spacing_mm
    area_mm2 = sizes * dx * dy
    width_mm = np.ones(len(sizes))
    for label, (x, y, _) in enumerate(ndi.find_objects(labels), start=1):
        width_mm[label] = max((x.stop - x.start) * dx, (y.stop - y.start) * dy)
    least, most = AREA_MM2
    compact = (area_mm2 > least) & (area_mm2 < most) & (area_mm2 > LEAST_FILL * width_mm**2)
    selected: Mask3D = compact[labels]
    return selected


def _carina(grid: Grid, central: Mask3D) -> int:
    """Index of the lowest slice above the bifurcation; 0 if the field of view ends above it."""
    labels, sizes = components(central, IN_PLANE)
    branch = sizes * grid.spacing_mm[0] * grid.spacing_mm[1] > BRANCH_MM2
    for level in range(central.shape[2] - 1, -1, -1):
        # From the top down, the first slice with two components is just below the carina.
        if branch[np.unique(labels[..., level])].sum() > 1:
            return level + 1 if level + 1 < central.shape[2] else 0
    return 0


def _end_below_larynx(central: Mask3D, carina: int) -> int:
    """Index above the last slice of the trachea proper."""
    area: NDArray[np.int64] = central[..., carina:].sum(axis=(0, 1))
    median = np.median(area[area > 0]) if area.any() else 0
    wide = np.flatnonzero(area > LARYNX_SHARE * median)
    return carina + int(wide[-1]) + 1 if wide.size else central.shape[2]
