"""Transferred labels, moved to the surfaces that the scan itself shows."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import Grid, Labels, Mask3D, largest

ORGAN_REACH_MM = 4.0
"""How far the surface of an organ may move."""

CORE_MM = 4.0
"""Erosion of an organ's label before its density is measured: its border is uncertain."""

SPREAD = 2.0
"""Voxels of an organ lie within this many median absolute deviations of the median, scaled to
standard deviations of a normal distribution."""

MAD_TO_SD = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""

LEAST_CORE = 100
"""Working voxels of an eroded label from which its density is known."""

NOISE_MM = 1.5
"""Sigma of the Gaussian before an organ's voxels are judged by their density."""


def of_organ(grid: Grid, transferred: Mask3D, others: Mask3D) -> Mask3D:
    """The largest part of an organ with the density of its middle, not far from its label.

    Args:
        grid: the scan.
        transferred: the organ's label.
        others: what belongs to other structures.
    """
    window = grid.window(transferred, ORGAN_REACH_MM)
    if window is None:
        return transferred
    label = transferred[window]
    core = ndi.distance_transform_edt(label, sampling=grid.spacing_mm) > CORE_MM
    if core.sum() < LEAST_CORE:
        return transferred
    smooth = ndi.gaussian_filter(
        grid.hu[window].astype(np.float32), [NOISE_MM / mm for mm in grid.spacing_mm]
    )
    median = float(np.median(smooth[core]))
    spread = MAD_TO_SD * float(np.median(np.abs(smooth[core] - median)))
    alike = np.abs(smooth - median) <= SPREAD * spread
    near = ndi.distance_transform_edt(~label, sampling=grid.spacing_mm) <= ORGAN_REACH_MM
    deep = ndi.distance_transform_edt(label, sampling=grid.spacing_mm) > ORGAN_REACH_MM
    # Deep inside, vessels and lesions belong to the organ whatever their density.
    refined = np.zeros_like(transferred)
    refined[window] = largest((near & alike & ~others[window]) | deep)
    return refined


def of_lung(labels: Labels, lobes: tuple[int, ...], all_lobes: Mask3D, lung: Mask3D) -> Mask3D:
    """The voxels of the scan's lungs to which these lobes are the nearest.

    Args:
        labels: the transferred labels.
        lobes: the labels wanted.
        all_lobes: where `labels` has any lobe.
        lung: both lungs of the scan.
    """
    nearest = ndi.distance_transform_edt(~all_lobes, return_distances=False, return_indices=True)
    refined: Mask3D = lung & np.isin(labels[tuple(nearest)], lobes)
    return refined
