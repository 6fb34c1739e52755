"""Bone in scans with or without contrast medium: the skeleton, the vertebrae and the ribs.

A threshold alone takes contrast-filled vessels for bone. Here both are seeded where they are
certain (blood: homogeneous, or between the lungs; bone: cortex away from blood, and the vertebral
bodies in front of the spinal canal), and a watershed on the gradient divides what is bright
between them (Meyer, Signal Processing 38, 1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi
from skimage.morphology import disk
from skimage.segmentation import watershed

from tasks.engines.segmentation.hounsfield.grid import IN_PLANE, Grid, Mask3D, components
from tasks.engines.segmentation.hounsfield.lungs import Lungs
from tasks.engines.segmentation.hounsfield.spine import Spine, find_spine
from tasks.engines.segmentation.hounsfield.vessels import find_pools, mediastinum

BRIGHT_HU = 130
WALL_HU = 200
SEED_HU, CORTEX_HU = 220, 310
CORTEX_SHARE = 0.13
"""Bone has at least this share of cortical density; enhanced kidneys and veins have less."""
METAL_HU = 1300
SMALLEST_ML = 0.5
RIM_MM = 6.0
SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM = 45.0, 35.0
PREVERTEBRAL_MM = (48.0, 62.0)
"""No bone lies at this distance in front of the canal, less than 35 mm from the midline."""
PREVERTEBRAL_HALF_WIDTH_MM = 35.0
GAP_MM = 3.0
LARGEST_MARROW_MM2 = 2500.0
MARROW_HU = -120
SURFACE_HU = 160

VERTEBRA_HALF_WIDTH_MM, VERTEBRA_DEPTH_MM = 33.0, 48.0
PLEURA_TO_RIB_MM = 12.0
STERNUM_HALF_WIDTH_MM = 35.0
BELOW_LUNGS_MM = 120.0
"""The lowest ribs hang this far below the lung that they enclose."""


@dataclass(frozen=True)
class Bones:
    """Bone on the working grid, marrow included, and the parts told apart by their place."""

    skeleton: Mask3D
    vertebrae: Mask3D
    left_ribs: Mask3D
    right_ribs: Mask3D


def segment_bones(grid: Grid, body: Mask3D, lungs: Lungs) -> Bones:
    """Segment the bones on the working grid; empty masks where the scan shows none."""
    lung = grid.dilate(lungs.both, max(grid.spacing_mm))
    bright = body & ~lung & (grid.hu > BRIGHT_HU)
    pools = find_pools(grid, bright)
    walls = bright & (grid.hu > WALL_HU) & ~grid.dilate(pools, RIM_MM)
    spine = find_spine(grid, body, walls)
    between = _boneless(grid, lungs, spine) if pools.any() else np.zeros_like(pools)
    bony, blood = _divide(grid, bright, pools, between, spine)
    shell = _with_cortex(grid, bony, CORTEX_HU - 10, SMALLEST_ML)
    skeleton = _filled(grid, shell, lung | blood, spine)
    return Bones(skeleton, *_name_bones(grid, skeleton, spine, lungs))


def draw_bone(grid: Grid, bone: Mask3D, skeleton: Mask3D) -> Mask3D:
    """Draw a bone on the scan's grid, its surface where the scan crosses 160 HU."""
    reach = ndi.binary_dilation(bone) & ~(skeleton & ~bone)
    core = bone & ndi.binary_erosion(skeleton)
    drawn: Mask3D = grid.enlarge(core) | (grid.enlarge(reach) & (grid.scan_hu > SURFACE_HU))
    return drawn


def _boneless(grid: Grid, lungs: Lungs, spine: Spine) -> Mask3D:
    """Between the lungs, and in front of the spine below them."""
    near, far = PREVERTEBRAL_MM
    ahead = spine.zone(PREVERTEBRAL_HALF_WIDTH_MM, far) & (spine.front_mm > near) & spine.certain
    at_spine = spine.zone(SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM)
    return (mediastinum(grid, lungs) & ~at_spine) | ahead


def _divide(
    grid: Grid, bright: Mask3D, pools: Mask3D, between: Mask3D, spine: Spine
) -> tuple[Mask3D, Mask3D]:
    """Divide bright voxels into bone and blood (or metal)."""
    cores = spine.vertebral_cores()
    metal = grid.dilate(grid.erode(grid.hu > METAL_HU, RIM_MM / 4), RIM_MM / 2)
    metal &= ~spine.zone(SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM)
    vessel = (pools & ~cores) | metal
    seeds = bright & (grid.hu > SEED_HU) & ~between & ~grid.dilate(vessel, RIM_MM)
    seeds = _with_cortex(grid, seeds, CORTEX_HU, SMALLEST_ML / 2) | (cores & bright)
    markers = np.zeros(bright.shape, np.int32)
    markers[seeds] = 2
    markers[bright & (vessel | between) & ~cores] = 1
    slope = ndi.gaussian_gradient_magnitude(grid.hu.astype(np.float32), 0.7)
    owner = watershed(slope, markers, mask=bright)
    return owner == 2, owner == 1


def _with_cortex(grid: Grid, bright: Mask3D, cortex_hu: int, least_ml: float) -> Mask3D:
    """The components that are large enough and partly as dense as cortical bone."""
    labels, sizes = components(bright)
    cortical = np.bincount(labels[grid.hu > cortex_hu], minlength=len(sizes))
    bony = (sizes * grid.voxel_ml > least_ml) & (cortical > CORTEX_SHARE * sizes)
    shell: Mask3D = bony[labels]
    return shell


def _filled(grid: Grid, shell: Mask3D, others: Mask3D, spine: Spine) -> Mask3D:
    """Close gaps and fill marrow in axial slices, the spinal canal left open."""
    dx, dy, _ = grid.spacing_mm
    radius = max(1, round(GAP_MM / max(dx, dy)))
    margin = [(radius, radius), (radius, radius), (0, 0)]
    closed = ndi.binary_closing(np.pad(shell, margin), disk(radius, dtype=bool)[..., None])
    closed = closed[radius:-radius, radius:-radius] & ~others
    labels, sizes = components(~closed, IN_PLANE)
    mean_hu = np.bincount(labels.ravel(), grid.hu.ravel(), len(sizes)) / np.maximum(sizes, 1)
    marrow = (sizes * dx * dy < LARGEST_MARROW_MM2) & (mean_hu > MARROW_HU)
    marrow[labels[spine.canal(GAP_MM * 2)]] = False
    marrow[0] = False
    filled: Mask3D = (closed | marrow[labels]) & ~others
    return filled


def _name_bones(
    grid: Grid, skeleton: Mask3D, spine: Spine, lungs: Lungs
) -> tuple[Mask3D, Mask3D, Mask3D]:
    """Vertebrae are the bone at the canal; ribs are what lies on the pleura beside it."""
    at_spine = spine.zone(VERTEBRA_HALF_WIDTH_MM, VERTEBRA_DEPTH_MM)
    at_sternum = (np.abs(spine.right_mm) < STERNUM_HALF_WIDTH_MM) & ~at_spine
    cage = _hanging_down(lungs.both, int(BELOW_LUNGS_MM / grid.spacing_mm[2]))
    ribs = skeleton & ~at_spine & ~at_sternum & grid.dilate(cage, PLEURA_TO_RIB_MM)
    ribs = _large(grid, ribs)
    vertebrae = _large(grid, skeleton & at_spine & spine.certain)
    return vertebrae, ribs & (spine.right_mm < 0), ribs & (spine.right_mm >= 0)


def _hanging_down(mask: Mask3D, slices: int) -> Mask3D:
    """A mask repeated in the given number of slices below each of its own."""
    counts = np.cumsum(mask[..., ::-1], axis=2, dtype=np.int16)[..., ::-1]
    counts[..., : -slices - 1] -= counts[..., slices + 1 :].copy()
    hanging: Mask3D = counts > 0
    return hanging


def _large(grid: Grid, mask: Mask3D) -> Mask3D:
    labels, sizes = components(mask)
    large: Mask3D = (sizes * grid.voxel_ml > SMALLEST_ML)[labels]
    return large
