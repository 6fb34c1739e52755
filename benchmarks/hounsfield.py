"""The HU segmenter compared with reference masks, beside simple thresholds.

    python -m benchmarks.hounsfield

Chest CT: the full-size contrast CT with its TotalSegmentator v2 reference. The naive lungs are the
largest component below -500 HU inside the body, the naive bone is everything above 200 HU; neither
separates sides, airways or bones. The rules of the segmenter were developed on this scan. Second
chest CT: the share of T12, the only bone with a reference there, that the skeleton and the
vertebrae cover. Abdominal CT: the 30-slice crop with its reference. Thick slices: a chest CT on
slices of 5 mm with an expert's mask of one tumor; every other nodule counts as false.

The nodule has no label. Its box is that of the mask in `benchmarks.overfit.reference`.
"""

from __future__ import annotations

import platform
import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from benchmarks.overfit.reference import nodule
from benchmarks.targets import judge, targets_of
from storage.datasets import chest_ct
from storage.images.label_map import LabelMap
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.images.volume_files import read_label_ids
from storage.inputs import input_path
from storage.overlap import box_iou, dice
from storage.records import Site
from tasks.engines.protocols import Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter, structures

T12 = "totalsegmentator/thorax_vertebrae_T12.nii.gz"
BONES = ("vertebrae_", "rib_", "sternum", "clavicula_", "scapula_", "humerus_", "hip_", "sacrum")

NAIVE_LUNG_BELOW_HU = -500
NAIVE_BONE_ABOVE_HU = 200
FALSE_BELOW_IOU = 0.5
"""A detected nodule with a lower IoU of its box counts as false."""

TARGETS = targets_of("hounsfield")

Voxels = NDArray[np.bool_]


def main() -> int:
    """Print the tables; 1 if a target is missed."""
    print(f"HU segmenter, {platform.processor() or platform.machine()}, one process")
    volume = chest_ct.load_ct()
    _time_all_targets(volume)
    figures = _chest(volume) | _nodule(volume) | _thick_slices()
    _second_chest()
    _abdomen()
    return judge("hounsfield", {target.figure: figures[target.figure] for target in TARGETS})


def _time_all_targets(volume: Volume) -> None:
    start = time.perf_counter()
    answers = HounsfieldSegmenter().segment(volume, [Site(target) for target in structures()])
    seconds = time.perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    masks = sum(not isinstance(answer, Ungrounded) for answer in answers)
    print(
        f"chest CT {'×'.join(map(str, volume.hu.shape))}: {masks} of {len(answers)} targets "
        f"in {seconds:.1f} s, peak {peak_mb:.0f} MB with the scan loaded"
    )


def _chest(volume: Volume) -> dict[str, float]:
    chest, labels = Chest(volume), chest_ct.load_labels()
    lungs, bone = _naive_lungs(chest), volume.hu > NAIVE_BONE_ABOVE_HU
    print(f"\n{'structure':<28}{'Dice':>8}{'naive':>8}")
    rows = (
        ("left lung", chest.left_lung(), _union(labels, "lung_", "_left"), None),
        ("right lung", chest.right_lung(), _union(labels, "lung_", "_right"), None),
        ("both lungs", chest.lungs(), _union(labels, "lung_"), lungs),
        ("trachea and main bronchi", chest.trachea(), _union(labels, "trachea"), None),
        ("skeleton", chest.skeleton(), _union(labels, *BONES, any_of=True), bone),
        ("vertebrae", chest.vertebrae(), _union(labels, "vertebrae_"), None),
        ("left ribs", chest.left_ribs(), _union(labels, "rib_left"), None),
        ("right ribs", chest.right_ribs(), _union(labels, "rib_right"), None),
    )
    return {f"{name}, Dice": _dice_row(name, *masks) for name, *masks in rows}


def _dice_row(name: str, found: Voxels, truth: Voxels, naive: Voxels | None) -> float:
    """Print the row of a structure and return its Dice."""
    ours = dice(found, truth)
    beside = "–" if naive is None else f"{dice(naive, truth):.3f}"
    print(f"{name:<28}{ours:>8.3f}{beside:>8}")
    return ours


def _nodule(volume: Volume) -> dict[str, float]:
    chest = Chest(volume)
    truth = _box(nodule(volume))
    boxes = [_box(chest.draw_nodules([found])) for found in chest.nodules]
    overlaps = [float(box_iou(box, truth)) for box in boxes]
    best = max(overlaps, default=0.0)
    false = sum(overlap < FALSE_BELOW_IOU for overlap in overlaps)
    print(f"\nnodule: best IoU of the 3D box {best:.2f}, false nodules {false}")
    return {"nodule, IoU of its box": best, "false nodules": false}


def _thick_slices() -> dict[str, float]:
    volume = load_volume(input_path("thick_slice_ct/lung1_image.nrrd"))
    ids, _ = read_label_ids(input_path("thick_slice_ct/lung1_label.nrrd"))
    chest = Chest(volume)
    overlaps = [dice(chest.draw_nodules([found]), ids > 0) for found in chest.nodules]
    best, false = max(overlaps, default=0.0), sum(overlap == 0 for overlap in overlaps)
    print(f"\nslices of 5 mm: Dice of the tumor {best:.2f}, false nodules {false}")
    return {"tumor on slices of 5 mm, Dice": best, "false nodules on slices of 5 mm": false}


def _second_chest() -> None:
    volume = load_volume(input_path("totalsegmentator/thorax_ct.nii.gz"))
    chest = Chest(volume)
    ids, affine = read_label_ids(input_path(T12))
    offset = np.linalg.inv(volume.affine) @ affine[:, 3]
    x, y, z = np.round(offset[:3]).astype(int)
    truth = ids > 0
    nx, ny, nz = truth.shape
    crop = (slice(x, x + nx), slice(y, y + ny), slice(z, z + nz))
    for name, mask in (("skeleton", chest.skeleton()), ("vertebrae", chest.vertebrae())):
        print(
            f"second chest CT: {(mask[crop] & truth).sum() / truth.sum():.3f} of T12 is in {name}"
        )


def _abdomen() -> None:
    volume = load_volume(input_path("totalsegmentator/abdomen_crop_ct.nii.gz"))
    chest = Chest(volume)
    # The class numbers of TotalSegmentator v2's "total" task, as its documentation lists them.
    labels, _ = read_label_ids(input_path("totalsegmentator/abdomen_crop_seg.nii.gz"))
    rows = (
        ("both lungs", chest.lungs(), (10, 14), _naive_lungs(chest)),
        ("vertebrae", chest.vertebrae(), (26, 50), None),
        ("ribs", chest.ribs(), (92, 115), None),
    )
    print(f"\n{'abdominal crop':<28}{'Dice':>8}{'naive':>8}")
    for name, found, (first, last), naive in rows:
        truth = (labels >= first) & (labels <= last)
        _dice_row(name, found, truth, naive)


def _union(labels: LabelMap, *parts: str, any_of: bool = False) -> Voxels:
    """The structures whose name holds all of the parts, or any of them."""
    holds = any if any_of else all
    return labels.mask(*(name for name in labels.names if holds(part in name for part in parts)))


def _naive_lungs(chest: Chest) -> Voxels:
    labels, _ = ndi.label(chest.body() & (chest.grid.scan_hu < NAIVE_LUNG_BELOW_HU))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: Voxels = labels == sizes.argmax()
    return largest


def _box(mask: Voxels) -> NDArray[np.int64]:
    """Lowest corner, highest corner; half-open voxels (6,)."""
    voxels = np.argwhere(mask)
    return np.concatenate([voxels.min(axis=0), voxels.max(axis=0) + 1])


if __name__ == "__main__":
    sys.exit(main())
