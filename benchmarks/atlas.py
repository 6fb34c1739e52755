"""The atlas detector on a chest CT that the atlas was not made from.

    python -m benchmarks.atlas

Anatomy: the second chest CT (TotalSegmentator project) is projected to a radiograph, and so are its
reference masks: the aorta and T12 of that project; the lungs as the air inside the body (below
-500 HU, not connected to the outside), split by the two largest components after an erosion of two
voxels. The score is the IoU of boxes in the image, both clipped to it. The naive result beside it
is the box of the atlas patient at the same fractions of the image, without registration.

Nodules: one ball of 35 HU at a time is inserted into a lung of that CT before the projection. A
nodule is found if a box has IoU >= 0.3 with the box of the ball; boxes that do not touch the ball
are false. The same CT without a ball, and a real radiograph, follow.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.targets import judge, targets_of
from storage.datasets import chest_ct
from storage.images.loading import load_radiograph, load_volume
from storage.images.types import Radiograph, Volume
from storage.images.volume_files import read_label_ids
from storage.imaging.projection import (
    FrontalGrid,
    outline_box_xyxy_px,
    project,
    project_mask,
    water_path_mm,
)
from storage.inputs import input_path
from storage.overlap import box_iou
from storage.records import Box, Site
from tasks.engines.detection.atlas.engine import AtlasDetector
from tasks.engines.detection.atlas.reference.build import load_atlas
from tasks.engines.protocols import Ungrounded

BoxXYXY = tuple[float, float, float, float]

REFERENCES = {
    "right lung": ("lung_right", "air in the body"),
    "left lung": ("lung_left", "air in the body"),
    "aorta": ("aorta", "thorax_aorta.nii.gz"),
    "T12 vertebra": ("vertebrae_T12", "thorax_vertebrae_T12.nii.gz"),
}
RADII_MM = (6.0, 8.0, 11.0)
"""Radii of the synthetic nodules."""

BALLS_PER_RADIUS = 8
BALL_HU = 35
"""Density of a solid nodule, that of soft tissue."""

FOUND_IOU = 0.3
"""IoU from which a box counts as a found nodule; nodules are small, so that 0.5 is too strict."""

LUNG_BELOW_HU = -500
"""Threshold of the reference lungs, between air-filled lung and soft tissue."""

EROSION_VOXELS = 2
"""Separates the two lungs where they touch."""

CORE_DISTANCE_VOXELS = 4
"""Air this close to a lung's core belongs to that lung."""

CLEAR_RAYS_PERCENT = 60
"""Balls are placed in this share of the rays through the lungs, those with the least tissue."""


def corners(box: Box) -> BoxXYXY:
    """The corners of a box without its score."""
    return box.x_min, box.y_min, box.x_max, box.y_max


def lungs(volume: Volume) -> dict[str, NDArray[np.bool_]]:
    """Reference masks of both lungs by threshold."""
    # Air that touches the edge of the image is outside the body.
    parts, _ = ndimage.label(volume.hu < LUNG_BELOW_HU)
    walls = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
    outside = np.unique(np.concatenate([wall.ravel() for wall in walls]))
    air = (parts > 0) & ~np.isin(parts, outside)
    cores, _ = ndimage.label(ndimage.binary_erosion(air, iterations=EROSION_VOXELS))
    sizes = np.bincount(cores.ravel())
    first, second = (np.argsort(sizes[1:]) + 1)[-2:]
    distance, nearest = ndimage.distance_transform_edt(
        ~np.isin(cores, (first, second)), return_indices=True
    )
    owner = np.where(air & (distance <= CORE_DISTANCE_VOXELS), cores[tuple(nearest)], 0)
    middle = {core: ndimage.center_of_mass(cores == core)[0] for core in (first, second)}
    # On the RAS+ grid x increases towards the patient's right.
    right, left = max(middle, key=middle.__getitem__), min(middle, key=middle.__getitem__)
    return {"right lung": owner == right, "left lung": owner == left}


def reference_boxes(volume: Volume) -> dict[str, BoxXYXY]:
    """Boxes of the projected reference masks."""
    grid = FrontalGrid.of(volume)
    outlines = {name: project_mask(m, volume.affine, grid) for name, m in lungs(volume).items()}
    for name, (_, source) in REFERENCES.items():
        if source.endswith(".nii.gz"):
            ids, affine = read_label_ids(input_path(f"totalsegmentator/{source}"))
            outlines[name] = project_mask(ids, affine, grid)
    found = {name: outline_box_xyxy_px(outline) for name, outline in outlines.items()}
    return {name: box for name, box in found.items() if box is not None}


def naive_box(structure: str, shape: tuple[int, int], atlas_shape: tuple[int, int]) -> BoxXYXY:
    """The box of the atlas patient, scaled to the size of the image."""
    points = load_atlas().structures[structure] * [
        shape[1] / atlas_shape[1],
        shape[0] / atlas_shape[0],
    ]
    (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
    return max(0.0, x_min), max(0.0, y_min), min(shape[1], x_max), min(shape[0], y_max)


def print_anatomy(detector: AtlasDetector, volume: Volume) -> dict[str, float]:
    """Print the IoU of each structure, naive and registered; return the figures with a target."""
    radiograph = project(volume)
    rows, columns = radiograph.pixels.shape
    grid = FrontalGrid.of(chest_ct.load_ct())
    references = reference_boxes(volume)
    answers = detector.detect(radiograph, [Site(name) for name in REFERENCES])
    figures: dict[str, float] = {}
    print(f"{'structure':<16}{'naive IoU':>10}{'atlas IoU':>10}{'score':>8}  reference")
    for (name, (structure, source)), answer in zip(REFERENCES.items(), answers, strict=True):
        box = naive_box(structure, (rows, columns), (grid.rows, grid.columns))
        naive = float(box_iou(box, references[name]))
        if isinstance(answer, Ungrounded):
            ours, beside = 0.0, f"  {answer.reason}"
        else:
            ours = float(box_iou(corners(answer[0]), references[name]))
            beside = f"{answer[0].score:>8.2f}  {source}"
        print(f"{name:<16}{naive:>10.2f}{ours:>10.2f}{beside}")
        figures[f"{name}, IoU"] = ours
        figures[f"{name}, IoU gained on fixed fractions of the image"] = ours - naive
    return {t.figure: figures[t.figure] for t in targets_of("atlas")}


class Ball(NamedTuple):
    """A ball in the lung: the CT with it, and its box in the projection."""

    volume: Volume
    box: BoxXYXY


def balls(volume: Volume, radius_mm: float) -> Iterator[Ball]:
    """The CT with one ball, at reproducible positions at least a radius inside the lung.

    Positions behind heart and diaphragm, where a radiograph hides nodules, are excluded: only the
    60 % of the rays through the lungs that pass through the least tissue are used.
    """
    rng = np.random.default_rng(round(radius_mm * 10))  # a different seed for each radius
    spacing = np.array(volume.spacing_xyz_mm)
    inside = np.logical_or(*lungs(volume).values())
    depth_mm = ndimage.distance_transform_edt(inside, sampling=spacing)
    tissue_mm = water_path_mm(volume)
    clear = tissue_mm < np.percentile(tissue_mm[inside.any(axis=1)], CLEAR_RAYS_PERCENT)
    positions = np.argwhere((depth_mm > radius_mm) & clear[:, None, :])
    grid = FrontalGrid.of(volume)
    axes = [np.arange(size) for size in volume.hu.shape]
    for center in positions[rng.choice(len(positions), BALLS_PER_RADIUS, replace=False)]:
        x, y, z = ((axis - at) * mm for axis, at, mm in zip(axes, center, spacing, strict=True))
        ball = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= radius_mm**2
        hu = np.where(ball, np.int16(BALL_HU), volume.hu)
        box = outline_box_xyxy_px(project_mask(ball, volume.affine, grid))
        if box is not None:
            yield Ball(Volume(hu, volume.affine), box)


def print_nodules(detector: AtlasDetector, volume: Volume) -> None:
    """Print the balls found, the false boxes, and the size of boxes relative to balls."""
    print(f"\n{'nodule':<16}{'found':>10}{'false/image':>12}{'size ratio':>12}")
    for radius_mm in RADII_MM:
        found, false, ratios = 0, 0, []
        for ball in balls(volume, radius_mm):
            answer = detector.detect(project(ball.volume), [Site("lung nodule")])[0]
            boxes = [] if isinstance(answer, Ungrounded) else [corners(box) for box in answer]
            overlaps = [float(box_iou(box, ball.box)) for box in boxes]
            found += max(overlaps, default=0.0) >= FOUND_IOU
            false += sum(overlap == 0 for overlap in overlaps)
            ratios += [
                (box[2] - box[0]) / (ball.box[2] - ball.box[0])
                for box, overlap in zip(boxes, overlaps, strict=True)
                if overlap > 0
            ]
        ratio = f"{np.median(ratios):.2f}" if ratios else "-"
        print(
            f"ball {2 * radius_mm:.0f} mm{'':<6}{found:>6}/{BALLS_PER_RADIUS}"
            f"{false / BALLS_PER_RADIUS:>12.2f}{ratio:>12}"
        )


def print_count(detector: AtlasDetector, name: str, radiograph: Radiograph) -> None:
    """Print the number of nodules in an image, and the seconds for three targets."""
    start = time.perf_counter()
    answer = detector.detect(radiograph, [Site("lung nodule"), Site("heart"), Site("lung")])[0]
    seconds = time.perf_counter() - start
    count = 0 if isinstance(answer, Ungrounded) else len(answer)
    print(f"{name:<28} nodules boxed: {count}   {seconds:.1f} s")


def main() -> int:
    """Print all tables; 1 if a target is missed."""
    print(f"atlas detector, Python {platform.python_version()}, one core\n")
    detector = AtlasDetector()
    volume = load_volume(input_path("totalsegmentator/thorax_ct.nii.gz"))
    figures = print_anatomy(detector, volume)
    print_nodules(detector, volume)
    print()
    print_count(detector, "that CT without a ball", project(volume))
    film = load_radiograph(input_path("radiograph/RG1_UNCR.dcm"))
    print_count(detector, "real film with large nodules", film)
    return judge("atlas", figures)


if __name__ == "__main__":
    sys.exit(main())
