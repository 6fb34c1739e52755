"""Solid nodules in the lungs: compact components thicker than the vessels around them.

An opening removes vessels and leaves nodules (after Kostis et al., IEEE TMI 22(10), 2003).
Elongated components are vessels, and so are those that enhance like blood, and those that go on
beyond their ends: on thick slices a vessel that crosses a slice is as compact as a nodule.

Nodules on the pleura lie outside the lungs that the air shows: the lungs' surface is closed by a
rolling ball, and what fills its dents at the chest wall is looked at too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D, Window, components
from tasks.engines.segmentation.hounsfield.lungs import Lungs
from taxonomy.zones import VolumeRegion, Zone, load_zones

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
NEAR_MM, FAR_MM = 3.0, 9.0
"""Distances from a core between which its continuation is measured; the first spares the nodule's
own border."""
MOST_CONTINUED = 1.0
"""Connected solid tissue there, in volumes of the core. The tumor of the thick-slice scan has 0.03,
nine vessels of its hila have 1.5 to 4.9."""
ROLLING_BALL_MM = 25.0
"""Radius of the ball that closes the lungs' surface: it sinks 2 mm into a dent of 20 mm. One of 12
mm sank 5 mm, which left less than the opening keeps."""
PLEURAL_CONTACT, PLEURAL_RADIUS = 0.25, 0.85
"""Least contact with lung of a nodule in a dent (half of a ball on the chest wall has 0.5), and its
least distance from the hilum: mediastinum and diaphragm make dents too."""
PLEURAL_ELONGATED = 2.5
"""The same ratio as `MOST_ELONGATED` for what lies in a dent: half of a ball has 1.83,
and more where the rolling ball sinks into the dent."""
PLEURAL_HEIGHT = 0.05
"""Least height in its lung of a nodule in a dent: the recess's thin edge is full of dents."""
LEAST_SLICES = 2
"""Slices of the working grid that a nodule in a dent fills: the curved wall makes shorter dents."""


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
    width: 0 at its lateral wall, 1 at its medial edge.
    radius: distance from the middle of the medial edge, in the axial slice; 1 at the chest wall.
    score: the smallest over the largest half-axis; 1 for a ball.
    """

    voxels: tuple[NDArray[np.intp], ...]
    side: str
    height: float
    depth: float
    width: float
    radius: float
    score: float

    def in_lower_lobe(self) -> bool:
        """Whether it lies behind and below a plane that approximates the oblique fissure.

        On the chest CT of the benchmark the plane separates 98 % (left) and 95 % (right) of the
        voxels of the lower lobes from the others.
        """
        return self.height < FISSURE_HEIGHT - FISSURE_SLOPE * self.depth


def find_nodules(grid: Grid, lungs: Lungs, body: Mask3D) -> list[Nodule]:
    """Find solid nodules of at least 6 mm, the largest first.

    Args:
        grid: the scan.
        lungs: its lungs.
        body: the patient, within which the dents of the lungs' surface are looked at.
    """
    inside = lungs.both & ~lungs.air & (grid.hu > SOLID_HU)
    dents = _closed(grid, lungs) & ~lungs.air & body & (grid.hu > SOLID_HU)
    cores = grid.opening(inside, CORE_MM)
    ceiling_hu = NODULE_HU if _is_enhanced(grid, cores) else np.inf
    found = _nodules_among(grid, lungs, cores, inside, ceiling_hu)
    # Components that the lungs hold already are left out: a dent is one that they do not.
    at_wall = _without(grid.opening(dents, CORE_MM), lungs.both)
    found += [
        nodule
        for nodule in _nodules_among(
            grid, lungs, at_wall, dents, ceiling_hu, PLEURAL_CONTACT, PLEURAL_ELONGATED
        )
        if nodule.radius >= PLEURAL_RADIUS
        and nodule.height >= PLEURAL_HEIGHT
        and np.ptp(nodule.voxels[2]) >= LEAST_SLICES - 1
    ]
    return sorted(found, key=lambda nodule: -nodule.voxels[0].size)


def _nodules_among(
    grid: Grid,
    lungs: Lungs,
    cores: Mask3D,
    solid: Mask3D,
    ceiling_hu: float,
    least_contact: float = LEAST_CONTACT,
    most_elongated: float = MOST_ELONGATED,
) -> list[Nodule]:
    """Those components of the cores that have a nodule's size, density, contact and shape."""
    labels, sizes = components(cores)
    found = []
    for label, extent in enumerate(ndi.find_objects(labels), start=1):
        if sizes[label] * grid.voxel_ml < LEAST_ML:
            continue
        core = np.zeros_like(solid)
        core[extent] = labels[extent] == label
        if grid.hu[core].mean() >= ceiling_hu or _contact(grid, core, lungs) <= least_contact:
            continue
        roundness = _roundness(grid, core)
        if roundness > 1 / most_elongated and _continuation(grid, core, solid) < MOST_CONTINUED:
            found.append(_described(grid, core, solid, lungs, roundness))
    return found


def _closed(grid: Grid, lungs: Lungs) -> Mask3D:
    """The lungs with the dents of their surface filled, each lung by itself."""
    closed = np.zeros_like(lungs.air)
    pad = [int(np.ceil(ROLLING_BALL_MM / mm)) for mm in grid.spacing_mm]
    inner = tuple(slice(width, -width) for width in pad)
    for lung in (lungs.left, lungs.right):
        if (window := grid.window(lung, 0.0)) is not None:
            # Padded: an erosion does not start at the border of an array.
            padded = np.pad(lung[window], [(width, width) for width in pad])
            closed[window] |= grid.closing(padded, ROLLING_BALL_MM)[inner]
    return closed


def _without(cores: Mask3D, known: Mask3D) -> Mask3D:
    """The components of the cores of which less than half is known."""
    labels, sizes = components(cores)
    shared = np.bincount(labels[known], minlength=len(sizes))
    kept: Mask3D = (shared * 2 < sizes)[labels]
    return kept


def _continuation(grid: Grid, core: Mask3D, solid: Mask3D) -> float:
    """Solid tissue that leads away from a core, in volumes of the core."""
    window = grid.window(core, FAR_MM)
    if window is None:
        return 0.0
    core, solid = core[window], solid[window]
    distance_mm = ndi.distance_transform_edt(~core, sampling=grid.spacing_mm)
    labels, _ = ndi.label(solid & (distance_mm <= FAR_MM))
    connected = np.isin(labels, np.unique(labels[core & solid])) & (labels > 0)
    return float((connected & (distance_mm > NEAR_MM)).sum() / core.sum())


def at_site(nodule: Nodule, laterality: str | None, zones: tuple[str, ...]) -> bool:
    """Whether a nodule is where a report says.

    Zones of one axis are alternatives, those of several axes hold together (`taxonomy/zones.yaml`).

    Raises:
        KeyError: for a zone that is not one of the taxonomy's.
    """
    if laterality in ("left", "right") and nodule.side != laterality:
        return False
    by_axis: dict[str, list[Zone]] = {}
    for name in zones:
        zone = load_zones()[name]
        by_axis.setdefault(zone.axis, []).append(zone)
    return all(any(_is_in(nodule, zone) for zone in of_axis) for of_axis in by_axis.values())


def _is_in(nodule: Nodule, zone: Zone) -> bool:
    if zone.side not in (None, nodule.side):
        return False
    return any(_is_in_region(nodule, region) for region in zone.volume)


def _is_in_region(nodule: Nodule, region: VolumeRegion) -> bool:
    shares = {
        "height": 1 - nodule.height,  # a zone's height counts from the apex
        "width": nodule.width,
        "depth": nodule.depth,
        "radius": nodule.radius,
    }
    for name, value in shares.items():
        within = getattr(region, name)
        if within is not None and not within[0] <= value <= within[1]:
            return False
    side_of_fissure = "behind" if nodule.in_lower_lobe() else "before"
    return region.fissure in (None, side_of_fissure)


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
    # A nodule in a dent lies beside its lung, not in it.
    near = grid.dilate(core, RING_VOXELS[1] * max(grid.spacing_mm))
    side = "left" if (lungs.left & near).sum() >= (lungs.right & near).sum() else "right"
    lung = lungs.left if side == "left" else lungs.right
    x, y, z = np.argwhere(core).mean(axis=0)
    columns, rows, levels = _window(grid, lung)
    width = _share(x, columns)
    return Nodule(
        voxels=np.nonzero(core & solid),
        side=side,
        height=_share(z, levels),
        depth=_share(y, rows),
        width=width if side == "left" else 1 - width,
        radius=_radius(grid, lung, (x, y, z), side),
        score=roundness,
    )


def _radius(grid: Grid, lung: Mask3D, centre: tuple[float, float, float], side: str) -> float:
    """How far out a point lies in its axial slice of the lung, taken as half an ellipse.

    0 is the middle of the medial edge, where the hilum is; 1 is the arc, the chest wall.
    """
    x, y, z = centre
    level = round(z)
    slab = np.zeros_like(lung)
    slab[:, :, level : level + 1] = lung[:, :, level : level + 1]
    columns, rows, _ = _window(grid, slab if slab.any() else lung)
    medial = _share(x, columns)
    lateral = 1 - medial if side == "left" else medial
    return min(1.0, float(np.hypot(lateral, 2 * _share(y, rows) - 1)))


def _window(grid: Grid, mask: Mask3D) -> Window:
    """The box of a mask along x, y, z; the whole grid's for an empty one."""
    x, y, z = mask.shape
    return grid.window(mask, 0.0) or (slice(0, x), slice(0, y), slice(0, z))


def _share(at: float, extent: slice) -> float:
    """Where an index lies in an extent: 0 at its start, 1 at its last."""
    return float((at - extent.start) / max(1, extent.stop - extent.start - 1))
