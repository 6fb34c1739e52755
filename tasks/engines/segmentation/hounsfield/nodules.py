"""Solid nodules in the lungs: compact components thicker than the vessels around them.

An opening removes vessels and leaves nodules (after Kostis et al., IEEE TMI 22(10), 2003).
Elongated components are vessels, and so are those that enhance like blood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D, components
from tasks.engines.segmentation.hounsfield.lungs import Lungs

SOLID_HU = -400
"""Halfway between lung and soft tissue: the border of a solid nodule."""
CORE_MM = 3.0
"""Radius of the opening: the smallest nodule reported has 6 mm, peripheral vessels are thinner."""
LEAST_ML = 0.1
"""A ball of 6 mm, from which on guidelines ask for follow-up (MacMahon et al., Radiology 2017)."""
MOST_ELONGATED = 1.8
"""Ratio of the longest to the shortest half-axis; a ball has 1, a vessel more than 2."""
BLOOD_HU, BLOOD_PERCENTILE = 150, 90
"""A scan has contrast medium where this percentile of the thick components is above this; blood
alone stays below 80 HU."""
NODULE_HU = 120
"""Mean above which a component of such a scan is a vessel; nodules enhance less."""
LEAST_CONTACT = 0.5
"""A nodule has lung on at least this share of its surface; a bulge of the mediastinum less."""


RING_VOXELS = (1, 2)
"""Inner and outer distance, in working voxels, of the ring whose contact with lung is measured."""
VARIANCE_DIVISOR = 12
"""The variance of a uniform distribution is its width squared over 12: a voxel's own extent."""
FISSURE_HEIGHT, FISSURE_SLOPE = 0.85, 0.8
"""The oblique fissure's height at the back of a lung, and its fall to the front, in shares of the
lung's height and depth. Fitted to the lobes of the chest CT."""


@dataclass(frozen=True)
class Nodule:
    """A nodule on the working grid and its place in its lung.

    voxels: indices along x, y, z.
    height: 0 at the base of the lung, 1 at its top. depth: 0 at its back, 1 at its front.
    score: the smallest over the largest half-axis; 1 for a ball.
    """

    voxels: tuple[NDArray[np.intp], ...]
    side: str
    height: float
    depth: float
    score: float

    def in_lower_lobe(self) -> bool:
        """Whether it lies behind and below a plane that approximates the oblique fissure.

        On the chest CT of the benchmark the plane separates 98 % (left) and 95 % (right) of the
        voxels of the lower lobes from the others.
        """
        return self.height < FISSURE_HEIGHT - FISSURE_SLOPE * self.depth


ZONES: dict[str, Callable[[Nodule], bool]] = {
    "upper": lambda nodule: not nodule.in_lower_lobe() and nodule.height > 1 / 3,
    "middle": lambda nodule: nodule.height < 2 / 3 and not nodule.height < 0.2,
    "lower": lambda nodule: nodule.in_lower_lobe() or nodule.height < 1 / 3,
    "apical": lambda nodule: nodule.height > 2 / 3,
    "basal": lambda nodule: nodule.height < 1 / 3,
    "lingular": lambda nodule: not nodule.in_lower_lobe() and nodule.height < 2 / 3,
    "anterior": lambda nodule: nodule.depth > 1 / 2,
    "posterior": lambda nodule: nodule.depth < 1 / 2,
}
"""Words of a report for a part of a lung; "lower" is a lower lobe or a lower zone alike."""


def find_nodules(grid: Grid, lungs: Lungs) -> list[Nodule]:
    """Find solid nodules of at least 6 mm, the largest first."""
    solid = lungs.both & ~lungs.air & (grid.hu > SOLID_HU)
    cores = grid.opening(solid, CORE_MM)
    labels, sizes = components(cores)
    ceiling_hu = NODULE_HU if _is_enhanced(grid, cores) else np.inf
    found = []
    for label, extent in enumerate(ndi.find_objects(labels), start=1):
        if sizes[label] * grid.voxel_ml < LEAST_ML:
            continue
        core = np.zeros_like(solid)
        core[extent] = labels[extent] == label
        if grid.hu[core].mean() < ceiling_hu and _contact(grid, core, lungs) > LEAST_CONTACT:
            roundness = _roundness(grid, core)
            if roundness > 1 / MOST_ELONGATED:
                found.append((int(sizes[label]), _described(grid, core, solid, lungs, roundness)))
    return [nodule for _, nodule in sorted(found, key=lambda pair: -pair[0])]


def at_site(nodule: Nodule, laterality: str | None, zones: tuple[str, ...]) -> bool:
    """Whether a nodule is where a report says; zones without a rule here exclude nothing."""
    if laterality in ("left", "right") and nodule.side != laterality:
        return False
    tests = [ZONES[zone] for zone in zones if zone in ZONES]
    return not tests or any(test(nodule) for test in tests)


def _is_enhanced(grid: Grid, cores: Mask3D) -> bool:
    """Whether the thick vessels of the lungs contain contrast medium."""
    return bool(cores.any() and np.percentile(grid.hu[cores], BLOOD_PERCENTILE) > BLOOD_HU)


def _contact(grid: Grid, core: Mask3D, lungs: Lungs) -> float:
    """Share of the ring around a core that is aerated lung."""
    near_mm, far_mm = (voxels * max(grid.spacing_mm) for voxels in RING_VOXELS)
    ring = grid.dilate(core, far_mm) & ~grid.dilate(core, near_mm)
    return float(lungs.air[ring].mean()) if ring.any() else 0.0


def _roundness(grid: Grid, core: Mask3D) -> float:
    """The shortest over the longest half-axis of the ellipsoid with the same moments."""
    points_mm = np.argwhere(core) * grid.spacing_mm
    # The voxel's own extent keeps a component of one slice from having an axis of zero.
    moments = np.cov(points_mm.T) + np.diag(np.square(grid.spacing_mm) / VARIANCE_DIVISOR)
    axes = np.sqrt(np.linalg.eigvalsh(moments))
    return float(axes[0] / axes[-1])


def _described(grid: Grid, core: Mask3D, solid: Mask3D, lungs: Lungs, roundness: float) -> Nodule:
    side = "left" if (lungs.left & core).sum() * 2 >= core.sum() else "right"
    lung = lungs.left if side == "left" else lungs.right
    _, y, z = np.argwhere(core).mean(axis=0)
    window = grid.window(lung, 0.0)
    if window is None:
        window = (slice(0, 1), slice(0, lung.shape[1]), slice(0, lung.shape[2]))
    rows, levels = window[1], window[2]
    return Nodule(
        voxels=np.nonzero(core & solid),
        side=side,
        height=float((z - levels.start) / max(1, levels.stop - levels.start - 1)),
        depth=float((y - rows.start) / max(1, rows.stop - rows.start - 1)),
        score=roundness,
    )
