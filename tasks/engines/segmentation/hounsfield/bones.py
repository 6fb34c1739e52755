"""Bone in scans with or without contrast medium: the skeleton, the vertebrae and the ribs.

A threshold alone includes contrast-filled vessels. Here both are seeded where they are certain
(blood: homogeneous, or between the lungs; bone: cortex away from blood, and the vertebral bodies
anterior to the spinal canal), and a watershed on the gradient assigns the other bright voxels
(Meyer, Signal Processing 38, 1994). Values were chosen on the chest CT unless a reason is given.
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
"""Everything that may be bone: cancellous bone of the elderly starts near here."""
WALL_HU = 200
"""What may enclose the spinal canal: denser than cartilage and unenhanced tissue."""
SEED_HU, CORTEX_HU = 220, 310
"""Bone seeds, and cortical bone within them; enhanced veins rarely reach the latter."""
SHELL_HU = CORTEX_HU - 10
"""Cortical bone in the result: thin ribs lose a little density to partial volume."""
CORTEX_SHARE = 0.13
"""Bone has at least this share of cortical density; enhanced kidneys and veins have less."""
METAL_HU = 1300
"""Denser than most cortical bone: metal and its streaks, or undiluted contrast medium."""
METAL_ERODE_MM, METAL_DILATE_MM = 1.5, 3.0
"""An erosion keeps thick metal alone (not dense cortex); a dilation adds its blurred border."""
SMALLEST_ML = 0.5
"""Smallest bone; calcifications are mostly smaller."""
SMALLEST_SEED_ML = 0.25
"""Smallest seed of bone, half of the smallest bone."""
RIM_MM = 6.0
"""Distance of bone seeds from blood: its pools are cores that end about 3 mm inside."""
SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM = 45.0, 35.0
"""Beside and in front of the canal, bone may lie between the lungs: vertebrae and rib heads."""
PREVERTEBRAL_MM = (48.0, 62.0)
"""No bone lies at this distance anterior to the canal, less than 35 mm from the midline."""
PREVERTEBRAL_HALF_WIDTH_MM = 35.0
"""Half-width of that region: aorta and vena cava lie in it, no rib does."""
GRADIENT_SIGMA = 0.7
"""Gaussian smoothing of the gradient for the watershed, in working voxels."""
GAP_MM = 3.0
"""Gaps in a cortical shell, of two working voxels, that are closed."""
CANAL_RADIUS_MM = 2 * GAP_MM
"""The canal stays open around its middle, also where the closing has narrowed it."""
LARGEST_MARROW_MM2 = 2500.0
"""Area of the largest hole filled in an axial slice: a vertebral body (50 mm across) fits."""
MARROW_HU = -120
"""Mean density of marrow (fat, -100 HU) and above; holes with air are below."""
SURFACE_HU = 160
"""The bone's surface on the scan's own grid: between marrow and cortex."""

VERTEBRA_HALF_WIDTH_MM, VERTEBRA_DEPTH_MM = 33.0, 48.0
"""Extent of a vertebra beside the canal (transverse processes) and anterior to it (its body)."""
PLEURA_TO_RIB_MM = 12.0
"""Ribs lie within this distance of the lungs: pleura, fat and the rib's own thickness."""
STERNUM_HALF_WIDTH_MM = 35.0
"""Bone this near the midline and not at the spine is sternum."""
BELOW_LUNGS_MM = 120.0
"""The lowest ribs extend this far below the lung that they enclose."""

BLOOD_MARKER, BONE_MARKER = 1, 2
"""Labels of the watershed."""


@dataclass(frozen=True)
class Bones:
    """Bone on the working grid, marrow included, its parts by position, and the spinal canal."""

    skeleton: Mask3D
    vertebrae: Mask3D
    left_ribs: Mask3D
    right_ribs: Mask3D
    spine: Spine


def segment_bones(grid: Grid, body: Mask3D, lungs: Lungs) -> Bones:
    """Segment the bones on the working grid; empty masks where the scan shows none."""
    lung = grid.dilate(lungs.both, max(grid.spacing_mm))
    # Voxels at the lungs' surface are excluded: pulmonary vessels there are as bright as bone.
    bright = body & ~lung & (grid.hu > BRIGHT_HU)
    pools = find_pools(grid, bright)
    walls = bright & (grid.hu > WALL_HU) & ~grid.dilate(pools, RIM_MM)
    spine = find_spine(grid, body, walls)
    # Without contrast medium there is no blood to exclude.
    between = _boneless(grid, lungs, spine) if pools.any() else np.zeros_like(pools)
    bony, blood = _divide(grid, bright, pools, between, spine)
    shell = _with_cortex(grid, bony, SHELL_HU, SMALLEST_ML)
    skeleton = _filled(grid, shell, lung | blood, spine)
    return Bones(skeleton, *_label_bones(grid, skeleton, spine, lungs), spine)


def draw_bone(grid: Grid, bone: Mask3D, skeleton: Mask3D) -> Mask3D:
    """Draw a bone on the scan's grid, its surface where the scan crosses 160 HU."""
    reach = ndi.binary_dilation(bone) & ~(skeleton & ~bone)
    # Inside, marrow is kept whatever its density; only the surface follows the scan.
    core = bone & ndi.binary_erosion(skeleton)
    drawn: Mask3D = grid.enlarge(core) | (grid.enlarge(reach) & (grid.scan_hu > SURFACE_HU))
    return drawn


def _boneless(grid: Grid, lungs: Lungs, spine: Spine) -> Mask3D:
    """The mediastinum, and the prevertebral region below it: no bone lies there."""
    near, far = PREVERTEBRAL_MM
    ahead = spine.zone(PREVERTEBRAL_HALF_WIDTH_MM, far) & (spine.front_mm > near) & spine.certain
    at_spine = spine.zone(SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM)
    return (mediastinum(grid, lungs) & ~at_spine) | ahead


def _divide(
    grid: Grid, bright: Mask3D, pools: Mask3D, between: Mask3D, spine: Spine
) -> tuple[Mask3D, Mask3D]:
    """Divide bright voxels into bone and blood (or metal)."""
    cores = spine.vertebral_cores()
    metal = grid.dilate(grid.erode(grid.hu > METAL_HU, METAL_ERODE_MM), METAL_DILATE_MM)
    # Metal at the spine is mostly an implant in bone, and dense cortex is common there.
    metal &= ~spine.zone(SPINE_HALF_WIDTH_MM, SPINE_DEPTH_MM)
    vessel = (pools & ~cores) | metal
    # Nothing near blood is a seed: partial volume makes its border look like cortex.
    seeds = bright & (grid.hu > SEED_HU) & ~between & ~grid.dilate(vessel, RIM_MM)
    seeds = _with_cortex(grid, seeds, CORTEX_HU, SMALLEST_SEED_ML) | (cores & bright)
    markers = np.zeros(bright.shape, np.int32)
    markers[seeds] = BONE_MARKER
    markers[bright & (vessel | between) & ~cores] = BLOOD_MARKER
    slope = ndi.gaussian_gradient_magnitude(grid.hu.astype(np.float32), GRADIENT_SIGMA)
    owner = watershed(slope, markers, mask=bright)
    return owner == BONE_MARKER, owner == BLOOD_MARKER


def _with_cortex(grid: Grid, bright: Mask3D, cortex_hu: int, least_ml: float) -> Mask3D:
    """The components that are large enough and partly as dense as cortical bone."""
    labels, sizes = components(bright)
    cortical = np.bincount(labels[grid.hu > cortex_hu], minlength=len(sizes))
    bony = (sizes * grid.voxel_ml > least_ml) & (cortical > CORTEX_SHARE * sizes)
    shell: Mask3D = bony[labels]
    return shell


def _filled(grid: Grid, shell: Mask3D, others: Mask3D, spine: Spine) -> Mask3D:
    """Close the gaps of cortical shells and fill their marrow, but not the spinal canal."""
    dx, dy, _ = grid.spacing_mm
    radius = max(1, round(GAP_MM / max(dx, dy)))
    margin = [(radius, radius), (radius, radius), (0, 0)]
    closed = ndi.binary_closing(np.pad(shell, margin), disk(radius, dtype=bool)[..., None])
    closed = closed[radius:-radius, radius:-radius] & ~others
    labels, sizes = components(~closed, IN_PLANE)
    mean_hu = np.bincount(labels.ravel(), grid.hu.ravel(), len(sizes)) / np.maximum(sizes, 1)
    marrow = (sizes * dx * dy < LARGEST_MARROW_MM2) & (mean_hu > MARROW_HU)
    marrow[labels[spine.canal(CANAL_RADIUS_MM)]] = False
    marrow[0] = False  # label 0 is what is closed already
    filled: Mask3D = (closed | marrow[labels]) & ~others
    return filled


def _label_bones(
    grid: Grid, skeleton: Mask3D, spine: Spine, lungs: Lungs
) -> tuple[Mask3D, Mask3D, Mask3D]:
    """Vertebrae are the bone at the canal; ribs are the bone near the pleura elsewhere."""
    at_spine = spine.zone(VERTEBRA_HALF_WIDTH_MM, VERTEBRA_DEPTH_MM)
    at_sternum = (np.abs(spine.right_mm) < STERNUM_HALF_WIDTH_MM) & ~at_spine
    cage = _extended_down(lungs.both, int(BELOW_LUNGS_MM / grid.spacing_mm[2]))
    # Floating ribs lie below the lungs, so the lungs are extended downwards.
    ribs = skeleton & ~at_spine & ~at_sternum & grid.dilate(cage, PLEURA_TO_RIB_MM)
    ribs = _large(grid, ribs)
    vertebrae = _large(grid, skeleton & at_spine & spine.certain)
    return vertebrae, ribs & (spine.right_mm < 0), ribs & (spine.right_mm >= 0)


def _extended_down(mask: Mask3D, slices: int) -> Mask3D:
    """A mask repeated in this number of slices below each of its own."""
    counts = np.cumsum(mask[..., ::-1], axis=2, dtype=np.int16)[..., ::-1]
    counts[..., : -slices - 1] -= counts[..., slices + 1 :].copy()
    extended: Mask3D = counts > 0
    return extended


def _large(grid: Grid, mask: Mask3D) -> Mask3D:
    """The components of at least the smallest bone's size."""
    labels, sizes = components(mask)
    large: Mask3D = (sizes * grid.voxel_ml > SMALLEST_ML)[labels]
    return large
