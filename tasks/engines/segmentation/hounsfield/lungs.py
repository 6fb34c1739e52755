"""The lungs: air of parenchymal density, separated into left and right, vessels filled in.

Thresholding, removal of the airways, separation at the junction lines and smoothing follow
Hu, Hoffman and Reinhardt, "Automatic lung segmentation", IEEE TMI 20(6), 2001.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D, components, fill_holes

AERATED_HU = -500
"""Halfway between lung (about -850) and soft tissue; also the lungs' surface on the scan's grid."""
SMALLEST_ML = 15.0
"""Smaller pockets of air are bowel gas or noise; a lung base at the edge of a scan is larger."""
GAS_HU, GAS_SHARE = -950, 0.5
"""Half of a gas pocket is darker than this; half of a lung, even an emphysematous one, is not."""
LEAST_SHARE = 0.15
"""Share of the air that an erosion must leave on each side to have separated two lungs."""
JUNCTION_MM = (1.6, 2.5, 3.5, 5.0, 7.0, 10.0)
"""Radii of the erosions tried: junction lines are a few mm thin, so the least one that separates
the lungs is used."""
LEFT_LABEL, RIGHT_LABEL = 1, 2
FILL_MM = 5.0
"""Vessels, nodules and juxtapleural gaps up to about twice this are filled in."""


def find_lung_air(grid: Grid, body: Mask3D) -> Mask3D:
    """Find air inside the body with the density of lung, the airways open to it included."""
    labels, sizes = components(body & (grid.hu < AERATED_HU))
    gas = np.bincount(labels[grid.hu < GAS_HU], minlength=len(sizes))
    is_lung = (sizes * grid.voxel_ml >= SMALLEST_ML) & (gas < GAS_SHARE * sizes)
    air: Mask3D = is_lung[labels]
    return air


@dataclass(frozen=True)
class Lungs:
    """The two lungs on the working grid, vessels and nodules included, airways excluded.

    An absent lung is an empty mask. `air` is the aerated part of both.
    """

    left: Mask3D
    right: Mask3D
    air: Mask3D

    @property
    def both(self) -> Mask3D:
        """The union of the two lungs."""
        return self.left | self.right


def segment_lungs(grid: Grid, body: Mask3D, lung_air: Mask3D, airways: Mask3D) -> Lungs:
    """Segment the lungs on the working grid.

    Args:
        grid: the scan.
        body: the patient, air included; its center gives the side of a single lung.
        lung_air: what `find_lung_air` found.
        airways: what is removed from it.
    """
    air = lung_air & ~airways
    left_air, right_air = _sides(grid, body, air)
    # The left lung is filled first; what it takes at the junction is not filled twice.
    left = _filled(grid, left_air, airways | right_air)
    right = _filled(grid, right_air, airways | left)
    return Lungs(left, right, air)


def draw_lung(grid: Grid, lungs: Lungs, lung: Mask3D, airways: Mask3D) -> Mask3D:
    """Draw one lung on the scan's grid, its surface where the scan crosses -500 HU."""
    air = lungs.air & lung
    voxel_mm = max(grid.spacing_mm)
    # Vessels and nodules are dense, so a threshold would remove them: they belong to the core.
    core = grid.erode(lung, voxel_mm) | (lung & ~air)
    other = grid.dilate(lungs.both & ~lung, voxel_mm) & ~lung
    reach = grid.dilate(air, voxel_mm) & ~other & ~airways
    drawn: Mask3D = grid.enlarge(core) | (grid.enlarge(reach) & (grid.scan_hu < AERATED_HU))
    return drawn


def _sides(grid: Grid, body: Mask3D, air: Mask3D) -> tuple[Mask3D, Mask3D]:
    """Left and right air: each voxel goes to the nearer of two cores separated by erosion."""
    nothing = np.zeros_like(air)
    window = grid.window(air, 0.0)
    if window is None:
        return nothing, nothing
    cores = _cores(grid, air[window])
    if cores is None:
        body_x = np.flatnonzero(body.any(axis=(1, 2))).mean()
        # x grows to the patient's right.
        alone_on_right = np.nonzero(air)[0].mean() > body_x
        return (nothing, air) if alone_on_right else (air, nothing)
    nearest = ndi.distance_transform_edt(
        cores == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
    )
    owner = cores[tuple(nearest)]
    left, right = nothing.copy(), nothing
    left[window] = (owner == LEFT_LABEL) & air[window]
    right[window] = (owner == RIGHT_LABEL) & air[window]
    return left, right


def _cores(grid: Grid, air: Mask3D) -> NDArray[np.uint8] | None:
    """Labels of the two lungs' cores (uint8, 0 elsewhere); None if there is one lung only."""
    depth_mm = ndi.distance_transform_edt(air, sampling=grid.spacing_mm)
    for radius_mm in JUNCTION_MM:
        # An erosion, by the distance to the border.
        labels, sizes = components(depth_mm > radius_mm)
        second, first = np.argsort(sizes)[-2:] if len(sizes) > 2 else (0, 0)
        if sizes[second] < LEAST_SHARE * sizes.sum():
            continue
        x_mean = [np.nonzero(labels == label)[0].mean() for label in (first, second)]
        left, right = (first, second) if x_mean[0] < x_mean[1] else (second, first)
        cores = np.zeros(air.shape, np.uint8)
        cores[labels == left] = LEFT_LABEL
        cores[labels == right] = RIGHT_LABEL
        return cores
    return None


def _filled(grid: Grid, air: Mask3D, others: Mask3D) -> Mask3D:
    """The air with the vessels and nodules in it, without other structures."""
    if not air.any():
        return air
    return air | (fill_holes(grid.closing(air, FILL_MM)) & ~others)
