"""The HU segmenter against reference masks, beside the thresholds a user would otherwise apply.

    python -m benchmarks.hounsfield

Chest CT: the full-size contrast CT with its TotalSegmentator v2 reference. The naive lungs are the
largest component below -500 HU inside the body, the naive bone is everything above 200 HU; neither
tells sides, airways or kinds of bone apart. The rules of the segmenter were chosen while looking at
this scan. Second chest CT: T12, the one bone with a reference there, and the share of it that the
skeleton and the vertebrae cover. Abdominal CT: the 30-slice crop with its reference.

The nodule has no reference mask. Its box is that of the voxels above -100 HU in the cube of 32 mm
around the published centre that are connected to the centre after an opening by a cross.
"""

from __future__ import annotations

import csv
import platform
import resource
import sys
import time

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from benchmarks.targets import judge, targets_of
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.inputs import input_path
from storage.overlap import box_iou, dice
from storage.records import Site
from tasks.engines.protocols import Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.engine import HounsfieldSegmenter, structures

NODULE_CENTRE_RAS_MM = (-57.0, -86.0, -115.0)
NODULE_CUBE_MM = 32.0
T12 = "totalsegmentator/thorax_vertebrae_T12.nii.gz"
BONES = ("vertebrae_", "rib_", "sternum", "clavicula_", "scapula_", "humerus_", "hip_", "sacrum")

TARGETS = targets_of("hounsfield")

Segmentation = NDArray[np.bool_]


def main() -> int:
    """Print the tables; 1 if a target is missed."""
    print(f"HU segmenter, {platform.processor() or platform.machine()}, one process")
    volume = load_volume(input_path("chest_ct/cxr.nii.gz"))
    _time_all_targets(volume)
    figures = _chest(volume) | _nodule(volume)
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
    chest, reference = Chest(volume), Reference("chest_ct/mask.nii.gz")
    lungs, bone = _naive_lungs(chest), volume.hu > 200
    print(f"\n{'structure':<28}{'Dice':>8}{'naive':>8}")
    rows = (
        ("left lung", chest.left_lung(), reference.named("lung_", "_left"), None),
        ("right lung", chest.right_lung(), reference.named("lung_", "_right"), None),
        ("both lungs", chest.lungs(), reference.named("lung_"), lungs),
        ("trachea and main bronchi", chest.trachea(), reference.named("trachea"), None),
        ("skeleton", chest.skeleton(), reference.named(*BONES, any_of=True), bone),
        ("vertebrae", chest.vertebrae(), reference.named("vertebrae_"), None),
        ("left ribs", chest.left_ribs(), reference.named("rib_left"), None),
        ("right ribs", chest.right_ribs(), reference.named("rib_right"), None),
    )
    return {f"{name}, Dice": _dice_row(name, *masks) for name, *masks in rows}


def _dice_row(
    name: str, found: Segmentation, truth: Segmentation, naive: Segmentation | None
) -> float:
    """Print the row of a structure; its Dice."""
    ours = dice(found, truth)
    beside = "–" if naive is None else f"{dice(naive, truth):.3f}"
    print(f"{name:<28}{ours:>8.3f}{beside:>8}")
    return ours


def _nodule(volume: Volume) -> dict[str, float]:
    chest = Chest(volume)
    truth = _nodule_box(volume)
    overlaps = [box_iou(_box(chest.draw_nodules([nodule])), truth) for nodule in chest.nodules]
    best = max(overlaps, default=0.0)
    false = sum(overlap < 0.5 for overlap in overlaps)
    print(f"\nnodule: best IoU of the 3D box {best:.2f}, false nodules {false}")
    return {"nodule, IoU of its box": best, "false nodules": false}


def _second_chest() -> None:
    chest = Chest(load_volume(input_path("totalsegmentator/thorax_ct.nii.gz")))
    part = nib.as_closest_canonical(nib.load(input_path(T12)))
    whole = nib.load(input_path("totalsegmentator/thorax_ct.nii.gz"))
    offset = np.linalg.inv(nib.as_closest_canonical(whole).affine) @ part.affine[:, 3]
    x, y, z = np.round(offset[:3]).astype(int)
    truth = np.asanyarray(part.dataobj) > 0
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
    labels = _labels("totalsegmentator/abdomen_crop_seg.nii.gz")
    rows = (
        ("both lungs", chest.lungs(), (10, 14), _naive_lungs(chest)),
        ("vertebrae", chest.vertebrae(), (26, 50), None),
        ("ribs", chest.ribs(), (92, 115), None),
    )
    print(f"\n{'abdominal crop':<28}{'Dice':>8}{'naive':>8}")
    for name, found, (first, last), naive in rows:
        truth = (labels >= first) & (labels <= last)
        _dice_row(name, found, truth, naive)


class Reference:
    """The reference mask of the chest CT, by the names of its structures."""

    def __init__(self, name: str) -> None:
        self._labels = _labels(name)
        with input_path("chest_ct/structures.csv").open(newline="") as stream:
            self._ids = {row["structure"]: int(row["id"]) for row in csv.DictReader(stream)}

    def named(self, *parts: str, any_of: bool = False) -> Segmentation:
        """The union of the structures whose name holds all of the parts, or any of them."""
        holds = any if any_of else all
        ids = [i for name, i in self._ids.items() if holds(part in name for part in parts)]
        return np.isin(self._labels, ids)


def _labels(name: str) -> NDArray[np.uint8]:
    image = nib.as_closest_canonical(nib.load(input_path(name)))
    return np.asanyarray(image.dataobj).astype(np.uint8)


def _naive_lungs(chest: Chest) -> Segmentation:
    labels, _ = ndi.label(chest.body() & (chest.grid.scan_hu < -500))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def _nodule_box(volume: Volume) -> NDArray[np.int64]:
    to_voxel = np.linalg.inv(volume.affine)
    centre = (to_voxel @ (*NODULE_CENTRE_RAS_MM, 1.0))[:3]
    half = NODULE_CUBE_MM / 2 / np.asarray(volume.spacing_xyz_mm)
    low = np.round(centre - half).astype(int)
    high = np.round(centre + half).astype(int) + 1
    cube = volume.hu[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    labels, _ = ndi.label(ndi.binary_opening(cube > -100))
    middle = labels[tuple(np.round(centre).astype(int) - low)]
    return _box(labels == middle) + low


def _box(mask: Segmentation) -> NDArray[np.int64]:
    places = np.argwhere(mask)
    return np.stack([places.min(axis=0), places.max(axis=0) + 1])


if __name__ == "__main__":
    sys.exit(main())
