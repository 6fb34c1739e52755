"""Contrast-enhanced blood as bright as bone: homogeneous pools without a cortex.

Values were chosen on the chest CT unless a reason is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.morphology import convex_hull_image

from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D, components
from tasks.engines.segmentation.hounsfield.lungs import Lungs

ENHANCED_HU = 150
"""Blood without contrast medium stays below 80 HU."""
BOX_MM, LEAST_BOX = 6.0, 3
"""Side of the box of local mean and spread; at least three voxels, for a spread at all."""
LEAST_SD_HU = 40.0
"""Least bound of a pool's standard deviation, for scans with little noise."""
NOISE_FACTOR = 1.8
"""A pool's standard deviation, streaks and mixing included, in units of the noise."""
NOISE_PERCENTILE = 20
"""Of the local spreads in soft tissue, a low one is noise; higher ones are borders."""
SOFT_TISSUE_HU = (20, 100)
"""Muscle and unenhanced organs, fat and bone excluded: where the noise is measured."""
SMALLEST_POOL_ML = 1.0
"""Smaller homogeneous regions occur inside bones."""
CONTRAST_ML = 20.0
"""A scan with less homogeneous bright volume has no contrast medium in its large vessels."""
CORTEX_ABOVE_HU = 150
"""Density of a cortex over the mean of the marrow that it surrounds."""
CORTEX_SHARE = 0.12
"""A pool with this share of denser surroundings is marrow in its cortex."""
RIM_MM = 6.0
"""Width of the surroundings: a pool's core ends about 3 mm inside it, a cortex is 2 to 3 mm."""
STERNUM_MM = 15.0
"""Thickness of the anterior chest wall's bone, at the front of the lungs' hull."""
LEAST_LUNG_MM2 = 300.0
"""Cross-section of the smaller lung below which its slice has no mediastinum to enclose."""


def find_pools(grid: Grid, candidates: Mask3D) -> Mask3D:
    """The cores of enhanced vessels and organs: bright, homogeneous, without a denser shell.

    Empty in a scan without contrast medium. The cores end about 3 mm inside the pools.
    """
    mean, spread = _local_mean_and_sd(grid)
    least, most = SOFT_TISSUE_HU
    soft = (mean > least) & (mean < most)
    noise = float(np.percentile(spread[soft], NOISE_PERCENTILE)) if soft.any() else LEAST_SD_HU
    limit = max(LEAST_SD_HU, NOISE_FACTOR * noise)
    labels, sizes = components(candidates & (mean > ENHANCED_HU) & (spread < limit))
    large = sizes * grid.voxel_ml > SMALLEST_POOL_ML
    renumbered = np.where(large, np.cumsum(large), 0).astype(np.int16)
    # int16: few components are large, and the filter below reads every voxel.
    kept: NDArray[np.int16] = renumbered[labels]
    bare = _share_of_denser_rim(grid, kept, int(large.sum()) + 1) < CORTEX_SHARE
    bare[0] = False  # label 0 is the background
    pools: Mask3D = bare[kept]
    if pools.sum() * grid.voxel_ml < CONTRAST_ML:
        pools[:] = False
    return pools


def mediastinum(grid: Grid, lungs: Lungs) -> Mask3D:
    """The convex hull of the two lungs in each axial slice, without lungs and sternum."""
    dx, dy, _ = grid.spacing_mm
    both = lungs.both
    between = np.zeros_like(both)
    for level in range(both.shape[2]):
        smaller = min(lungs.left[..., level].sum(), lungs.right[..., level].sum())
        if smaller * dx * dy > LEAST_LUNG_MM2:
            between[..., level] = convex_hull_image(both[..., level])
    rows = np.arange(both.shape[1])[:, None]
    # y grows anteriorly.
    front = np.where(between.any(axis=0), rows, -1).max(axis=0)
    between &= rows < front - STERNUM_MM / dy
    return between & ~both


def _local_mean_and_sd(grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation in a box around each voxel, in HU."""
    # An odd number of voxels (`| 1`) centers the box.
    box = [max(LEAST_BOX, round(BOX_MM / mm) | 1) for mm in grid.spacing_mm]
    hu = grid.hu.astype(np.float32)
    mean = ndi.uniform_filter(hu, box)
    hu *= hu  # in place: three volumes of float32 are enough
    variance = ndi.uniform_filter(hu, box)
    variance -= mean * mean
    return mean, np.sqrt(np.maximum(variance, 0, out=variance), out=variance)


def _share_of_denser_rim(grid: Grid, labels: NDArray[np.int16], count: int) -> NDArray[np.float64]:
    """For each label, the share of its surroundings that is denser than its mean by a cortex."""
    sizes = np.bincount(labels.ravel(), minlength=count)
    mean_hu = np.bincount(labels.ravel(), grid.hu.ravel(), count) / np.maximum(sizes, 1)
    grown = ndi.maximum_filter(labels, [2 * round(RIM_MM / mm) + 1 for mm in grid.spacing_mm])
    rim = (grown > 0) & (labels == 0)
    owner = grown[rim]
    denser = grid.hu[rim] > mean_hu[owner] + CORTEX_ABOVE_HU
    share: NDArray[np.float64] = np.bincount(owner, denser, count) / np.maximum(
        np.bincount(owner, minlength=count), 1
    )
    return share
