"""The audit of boxes and masks against those that people drew in the same images.

Only images that have gold are looked at. Each gold box is held against the box of ours that
overlaps it most, among all that we have of its target in that image; without any, its IoU is 0.
Masks of one target in one image are joined on both sides first, as segmenters mask a target and not
its instances. On both sides a mark of a narrower target is one of each broader target that the gold
names. A gold mark whose label names no target is counted, and not scored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.masks import decode_mask
from storage.overlap import box_iou, dice, mask_iou
from storage.records import Row
from tasks.audit.scores import closed
from taxonomy.targets import Taxonomy

HIT_IOU = 0.5
"""From this IoU on, an instance counts as found."""

_AFFINE_MM = 1e-2
"""Two grids whose affines differ by less are one; that of the paper's own code."""

_Key = tuple[str, str]
"""Image and target."""


@dataclass
class GroundingScore:
    """Agreement of our boxes or masks of one target with the gold.

    instances: gold boxes, or images with gold masks. images: those with any of them.
    unanswered: instances in images where we have nothing of the target.
    predicted, matched: our boxes or masks in images with gold, and those with a gold instance of
        their target at `HIT_IOU` or more.
    """

    instances: int = 0
    images: int = 0
    unanswered: int = 0
    predicted: int = 0
    matched: int = 0
    hits: int = 0
    center_hits: int = 0
    iou_sum: float = 0.0
    dice_sum: float = 0.0

    def rates(self) -> dict[str, float]:
        """Mean IoU and Dice of an instance, shares of hits, and precision; 0 without any."""
        n = max(self.instances, 1)
        precision = self.matched / max(self.predicted, 1)
        recall = self.hits / n
        both = precision + recall
        return {
            "iou": self.iou_sum / n,
            "dice": self.dice_sum / n,
            "hit_rate": recall,
            "center_hit_rate": self.center_hits / n,
            "precision": precision,
            "f1": 2 * precision * recall / both if both else 0.0,
        }

    def as_json(self) -> dict[str, float]:
        """Counts and rates, as JSON values."""
        counts = ("instances", "images", "unanswered", "predicted", "matched")
        return {name: getattr(self, name) for name in counts} | self.rates()


@dataclass
class GroundingAudit:
    """Scores by target.

    unmapped: gold marks whose label names no target.
    incomparable: gold of images where our mask lies on another grid.
    """

    targets: dict[str, GroundingScore] = field(default_factory=dict)
    unmapped: int = 0
    incomparable: int = 0

    @property
    def overall(self) -> GroundingScore:
        """All instances together; an image counts once for each of its targets."""
        total = GroundingScore()
        for score in self.targets.values():
            for name in vars(total):
                setattr(total, name, getattr(total, name) + getattr(score, name))
        return total

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "targets": {name: score.as_json() for name, score in sorted(self.targets.items())},
            "overall": self.overall.as_json(),
            "unmapped": self.unmapped,
            "incomparable": self.incomparable,
        }


def audit_boxes(gold: pa.Table, boxes: pa.Table, taxonomy: Taxonomy) -> GroundingAudit | None:
    """Score our boxes (`storage.schemas.BOXES`) against `GOLD_BOXES`; None where there are none."""
    if not len(gold):
        return None
    marks, audit = _gold_marks(gold.to_pylist(), taxonomy)
    ours = _by_image(boxes.to_pylist(), audit.targets, taxonomy)
    images = {image for image, _ in marks}
    for (image, target), of_target in marks.items():
        _score_boxes(audit.targets[target], of_target, ours.get((image, target), []))
    for (image, target), predicted in ours.items():
        if image in images and (image, target) not in marks:
            audit.targets[target].predicted += len(predicted)
    return audit


def _score_boxes(score: GroundingScore, gold: Sequence[Row], ours: Sequence[Row]) -> None:
    theirs = np.array([_corners(row) for row in gold])
    score.images += 1
    score.instances += len(gold)
    score.predicted += len(ours)
    if not ours:
        score.unanswered += len(gold)
        return
    boxes = np.array([_corners(row) for row in ours])
    iou = box_iou(theirs[:, None], boxes)
    best = iou.argmax(axis=1)
    each = iou[np.arange(len(gold)), best]
    score.matched += int((iou.max(axis=0) >= HIT_IOU).sum())
    score.hits += int((each >= HIT_IOU).sum())
    score.iou_sum += float(each.sum())
    score.dice_sum += float((2 * each / (1 + each)).sum())
    axes = theirs.shape[1] // 2
    centers = (boxes[best, :axes] + boxes[best, axes:]) / 2
    inside = (theirs[:, :axes] <= centers) & (centers < theirs[:, axes:])
    score.center_hits += int((inside.all(axis=1) & (each > 0)).sum())


def _corners(row: Row) -> list[float]:
    axes = "xy" if row["z_min"] is None else "xyz"
    return [row[f"{axis}_{end}"] for end in ("min", "max") for axis in axes]


def audit_masks(gold: pa.Table, masks: pa.Table, taxonomy: Taxonomy) -> GroundingAudit | None:
    """Score our masks (`storage.schemas.MASKS`) against `GOLD_MASKS`; None where there are none."""
    if not len(gold):
        return None
    marks, audit = _gold_marks(gold.to_pylist(), taxonomy)
    ours = _by_image(masks.to_pylist(), audit.targets, taxonomy)
    images = {image for image, _ in marks}
    for (image, target), of_target in marks.items():
        predicted = ours.get((image, target), [])
        if any(not _same_grid(of_target[0], row) for row in (*of_target, *predicted)):
            audit.incomparable += 1
            continue
        _score_mask(audit.targets[target], of_target, predicted)
    for image, target in ours:
        if image in images and (image, target) not in marks:
            audit.targets[target].predicted += 1
    return audit


def _score_mask(score: GroundingScore, gold: Sequence[Row], ours: Sequence[Row]) -> None:
    score.images += 1
    score.instances += 1
    if not ours:
        score.unanswered += 1
        return
    score.predicted += 1
    theirs, mask = _joined(gold), _joined(ours)
    iou = mask_iou(theirs, mask)
    score.iou_sum += iou
    score.dice_sum += dice(theirs, mask)
    score.hits += iou >= HIT_IOU
    score.matched += iou >= HIT_IOU
    if mask.any():
        center = tuple(np.rint([axis.mean() for axis in np.nonzero(mask)]).astype(int))
        score.center_hits += bool(theirs[center])


def _joined(rows: Iterable[Row]) -> NDArray[np.bool_]:
    joined: NDArray[np.bool_] | None = None
    for row in rows:
        voxels = decode_mask(row["mask"])
        joined = voxels if joined is None else joined | voxels
    assert joined is not None  # noqa: S101 there is a row
    return joined


def _same_grid(first: Row, second: Row) -> bool:
    if list(first["shape"]) != list(second["shape"]):
        return False
    if first["affine"] is None or second["affine"] is None:
        return first["affine"] is second["affine"]
    return np.allclose(first["affine"], second["affine"], atol=_AFFINE_MM)


def _gold_marks(
    rows: Sequence[Row], taxonomy: Taxonomy
) -> tuple[dict[_Key, list[Row]], GroundingAudit]:
    """The gold marks by image and target, and an audit that counts those without a target."""
    known = [row for row in rows if row["target"] in taxonomy]
    named = {row["target"] for row in known}
    audit = GroundingAudit({target: GroundingScore() for target in sorted(named)})
    audit.unmapped = len(rows) - len(known)
    return _by_image(known, named, taxonomy), audit


def _by_image(
    rows: Iterable[Row], named: Container[str], taxonomy: Taxonomy
) -> dict[_Key, list[Row]]:
    """Marks by image and target, of the targets that the gold names."""
    found: dict[_Key, list[Row]] = {}
    seen: set[tuple[str, str, object]] = set()
    for row in rows:
        if row["target"] not in taxonomy:
            continue
        place = (tuple(_corners(row)) if "x_min" in row else row["mask"], row.get("annotator"))
        for target in closed([row["target"]], taxonomy):
            # two sites or labels of one target may have the same box, which is then one
            if target in named and (_image(row), target, place) not in seen:
                seen.add((_image(row), target, place))
                found.setdefault((_image(row), target), []).append(row)
    return found


def _image(row: Row) -> str:
    """Study and image: the same picture may be in two studies."""
    return f"{row['study_id']}\n{row['image_id']}"
