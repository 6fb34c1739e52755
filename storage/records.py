"""The records that every part of VividMed speaks: boxes, masks, phrases, tags, grounded reports.

Steps, engines, the model, the dashboard, exporters and metrics pass these values to each other;
the store holds them as rows of the tables in `storage.schemas`. `to_row` and `from_row` are the
only conversions between the two. All records are immutable.

Text offsets are code points, half-open: `text[start:end]`. Boxes are half-open too: pixel or
voxel i covers [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.masks import decode_mask, encode_part

Row = Mapping[str, Any]
"""A row of a table, or a struct cell of one, as Arrow's `to_pylist` gives it."""

Laterality = Literal["left", "right", "bilateral"]
Category = Literal["anatomy", "abnormality"]
Assertion = Literal["present", "probable", "possible", "absent"]
"""What a report states of a phrase's target. Hedges have two grades: `probable` (likely, may
represent, suggests) and `possible` (cannot be excluded, versus, rule out)."""

Match = Literal["exact", "normalized", "fuzzy"]
"""How a phrase was found in the text: word for word; but for case and white space; or by
similarity, when a language model misspelled it."""

GroundingKind = Literal["box", "mask", "none"]

PREDICTION = "prediction"
"""`Provenance.source` of a report that a model predicted from the image."""

NOTICE = "research use, not for clinical decisions"


@dataclass(frozen=True, slots=True)
class Modifiers:
    """What the words around a target state of its side, zones and number.

    `count` is the least number of instances stated ("two nodules", "several nodules": 2).
    """

    laterality: Laterality | None = None
    zones: tuple[str, ...] = ()
    count: int | None = None

    def to_row(self) -> dict[str, Any]:
        """The `modifiers` cell of a phrase."""
        return {"laterality": self.laterality, "zones": list(self.zones), "count": self.count}

    @classmethod
    def from_row(cls, row: Row) -> Modifiers:
        """The modifiers of a `modifiers` cell."""
        return cls(row["laterality"], tuple(row["zones"] or ()), row["count"])


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a report section that name a target, `text[start:end]`.

    by_rules: the rules found it in place of a language model that failed at its sentence.
    """

    start: int
    end: int
    target: str
    modifiers: Modifiers = Modifiers()
    match: Match = "exact"
    by_rules: bool = False

    def to_row(self) -> dict[str, Any]:
        """The columns of `phrases` that the phrase itself decides."""
        return {
            "start": self.start,
            "end": self.end,
            "target": self.target,
            "modifiers": self.modifiers.to_row(),
            "match": self.match,
            "by_rules": self.by_rules,
        }

    @classmethod
    def from_row(cls, row: Row) -> Phrase:
        """The phrase of a row of `phrases` or `positives`."""
        return cls(
            row["start"],
            row["end"],
            row["target"],
            Modifiers.from_row(row["modifiers"]),
            row["match"] or "exact",
            bool(row.get("by_rules")),  # older stores have no such column
        )


class SiteKey(NamedTuple):
    """What identifies a site: two phrases with the same key ask for the same boxes or mask."""

    target: str | None
    laterality: Laterality | None = None
    zones: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Row) -> SiteKey:
        """The site of a row of `boxes`, `masks` or `rejects`, or of a tag."""
        return cls(row["target"], row.get("laterality"), tuple(row.get("zones") or ()))

    def to_row(self) -> dict[str, Any]:
        """The columns that hold the key."""
        return {"target": self.target, "laterality": self.laterality, "zones": list(self.zones)}


@dataclass(frozen=True, slots=True)
class Site:
    """A target to localize, and where the report says it is."""

    target: str
    modifiers: Modifiers = Modifiers()

    @property
    def key(self) -> SiteKey:
        """Target, side and zones; the count is no part of it."""
        return SiteKey(self.target, self.modifiers.laterality, self.modifiers.zones)


@dataclass(frozen=True, slots=True)
class Box:
    """A box on a radiograph: pixels of the stored image, half-open, origin at the top left.

    score: 0 to 1.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    score: float

    def to_row(self) -> dict[str, Any]:
        """The columns of the box; a radiograph has no z."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def corners(self) -> NDArray[np.float64]:
        """(2, 3): lowest and highest corner in a file of one slice, (slice, row, column)."""
        return np.array([(0, self.y_min, self.x_min), (1, self.y_max, self.x_max)], np.float64)

    @classmethod
    def from_corners(cls, corners: NDArray[np.float64], score: float) -> Box:
        """The box between two corners (2, 3), (slice, row, column), lowest first."""
        (_, y_min, x_min), (_, y_max, x_max) = np.asarray(corners, np.float64).tolist()
        return cls(x_min, y_min, x_max, y_max, score)


@dataclass(frozen=True, slots=True)
class VolumeBox:
    """A box in a volume: voxels, half-open, along the axes of the grid it is given on.

    In the store that grid is always the volume's RAS+ grid (see `storage.images.types.Volume`).
    score: 0 to 1.
    """

    x_min: float
    y_min: float
    z_min: float
    x_max: float
    y_max: float
    z_max: float
    score: float

    def to_row(self) -> dict[str, Any]:
        """The columns of the box."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def corners(self) -> NDArray[np.float64]:
        """(2, 3): lowest and highest corner."""
        low, high = (self.x_min, self.y_min, self.z_min), (self.x_max, self.y_max, self.z_max)
        return np.array([low, high], np.float64)

    @classmethod
    def from_corners(cls, corners: NDArray[np.float64], score: float) -> VolumeBox:
        """The box between two corners (2, 3), lowest first."""
        (x_min, y_min, z_min), (x_max, y_max, z_max) = np.asarray(corners, np.float64).tolist()
        return cls(x_min, y_min, z_min, x_max, y_max, z_max, score)


AnyBox = Box | VolumeBox


def box_from_row(row: Row) -> AnyBox:
    """The box of a row of `boxes` or of a tag; one with z columns set is a box in a volume."""
    kind = Box if row.get("z_min") is None else VolumeBox  # older stores have no z columns
    return kind(**{name: row[name] for name in kind.__slots__})


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask on the grid of an image, encoded, so that many of them fit in memory.

    encoded: see `storage.masks`; `voxels` decodes it.
    shape: of the grid it lies on. In the store: rows, columns of a radiograph, or x, y, z of a
        volume on its RAS+ grid. A prediction's mask lies on the grid of the image's file, where a
        radiograph is one slice.
    affine: (4, 4) row by row, voxel index to RAS mm; None for a radiograph.
    voxel_count: voxels, or pixels, that are set; 0 for an empty mask.
    volume_mm3: None for a radiograph.
    score: 0 to 1; None if the engine gives none.
    """

    encoded: bytes
    shape: tuple[int, ...]
    affine: tuple[float, ...] | None
    voxel_count: int
    volume_mm3: float | None
    score: float | None = None

    @classmethod
    def of(
        cls,
        voxels: NDArray[np.bool_],
        affine: NDArray[np.float64] | None,
        score: float | None = None,
    ) -> Mask:
        """Encode a boolean array; `affine` is (4, 4), or None for a radiograph."""
        return cls.of_part(voxels, (0,) * voxels.ndim, voxels.shape, affine, score)

    @classmethod
    def of_part(
        cls,
        part: NDArray[np.bool_],
        start: tuple[int, ...],
        shape: tuple[int, ...],
        affine: NDArray[np.float64] | None,
        score: float | None = None,
    ) -> Mask:
        """Encode a mask of `shape` whose set voxels all lie in a part of it, which is given.

        start: the part's first voxel. affine: of the whole, as in `of`.
        """
        count = int(part.sum())
        volume = None if affine is None else count * abs(float(np.linalg.det(affine[:3, :3])))
        flat = None if affine is None else tuple(affine.ravel().tolist())
        return cls(encode_part(part, start, shape), tuple(shape), flat, count, volume, score)

    @property
    def voxels(self) -> NDArray[np.bool_]:
        """The mask as an array of `shape`, decoded anew at each call."""
        return decode_mask(self.encoded)

    def to_row(self) -> dict[str, Any]:
        """The columns of `masks` that the mask itself decides."""
        return {
            "shape": list(self.shape),
            "affine": None if self.affine is None else list(self.affine),
            "mask": self.encoded,
            "voxel_count": self.voxel_count,
            "volume_mm3": self.volume_mm3,
            "score": self.score,
        }

    @classmethod
    def from_row(cls, row: Row) -> Mask:
        """The mask of a row of `masks`."""
        affine = None if row["affine"] is None else tuple(row["affine"])
        return cls(
            row["mask"],
            tuple(row["shape"]),
            affine,
            row["voxel_count"],
            row["volume_mm3"],
            row["score"],
        )


class MaskKey(NamedTuple):
    """What identifies a mask among those of one study and image.

    instance: 0, or 1, 2, … for further masks of one site, which only predictions have.
    """

    site: SiteKey
    instance: int = 0

    @classmethod
    def from_row(cls, row: Row) -> MaskKey:
        """The key of a row of `masks`, or of a tag's reference to one."""
        return cls(SiteKey.from_row(row), row.get("instance") or 0)

    def to_row(self) -> dict[str, Any]:
        """The columns that hold the key."""
        return self.site.to_row() | {"instance": self.instance}


@dataclass(frozen=True, slots=True)
class Grounding:
    """What a phrase points at in the image, or why it points at nothing.

    boxes: None if none were asked for.
    mask: None if there is none or none was asked for; it may be empty.
    reason: a code of `storage/reasons.yaml` if neither grounds the phrase.
    """

    boxes: tuple[AnyBox, ...] | None = None
    mask: Mask | None = None
    reason: str | None = None

    @property
    def kind(self) -> GroundingKind:
        """Boxes come first where there are both."""
        if self.boxes:
            return "box"
        return "mask" if self.mask and self.mask.voxel_count else "none"


@dataclass(frozen=True, slots=True)
class Tag:
    """A phrase of a report and its grounding in one image.

    start, end: `text[start:end] == phrase`, in the text of the whole report.
    target, category: None if the taxonomy does not know the phrase, as may be in a prediction.
    laterality, zones: the site that was asked for, together with the target.
    instance: tells apart the masks of one site, see `MaskKey`.
    """

    start: int
    end: int
    phrase: str
    target: str | None
    category: Category | None
    grounding: Grounding
    laterality: Laterality | None = None
    zones: tuple[str, ...] = ()
    instance: int = 0

    @property
    def site(self) -> SiteKey:
        """Target, side and zones."""
        return SiteKey(self.target, self.laterality, self.zones)

    @property
    def mask_key(self) -> MaskKey:
        """The key of this tag's row in `masks`, if it has one."""
        return MaskKey(self.site, self.instance)

    def to_row(self) -> dict[str, Any]:
        """The tag as a struct cell; its mask is referred to by key, as it has a row of its own."""
        boxes, mask = self.grounding.boxes, self.grounding.mask
        reference = mask and self.mask_key.to_row() | {"voxel_count": mask.voxel_count}
        return {
            "start": self.start,
            "end": self.end,
            "phrase": self.phrase,
            "category": self.category,
            "grounding": self.grounding.kind,
            "reason": self.grounding.reason,
            "boxes": None if boxes is None else [box.to_row() for box in boxes],
            "mask": reference,
        } | self.site.to_row()

    @classmethod
    def from_row(cls, row: Row, masks: Mapping[MaskKey, Mask]) -> Tag:
        """The tag of a struct cell.

        Raises:
            KeyError: if it refers to a mask that is not among `masks`.
        """
        boxes = None if row["boxes"] is None else tuple(map(box_from_row, row["boxes"]))
        key = MaskKey.from_row(row["mask"]) if row["mask"] else None
        site = SiteKey.from_row(row)
        return cls(
            row["start"],
            row["end"],
            row["phrase"],
            row["target"],
            row["category"],
            Grounding(boxes, None if key is None else masks[key], row["reason"]),
            site.laterality,
            site.zones,
            0 if key is None else key.instance,
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a report comes from and which engines made its tags.

    source: the dataset's name for the report's origin; `prediction` if a model wrote it.
    model, query: what predicted the report and what it was asked; None if it was not predicted.
    by_rules: the rules made some of the text or the tags, in place of a language model that failed.
    """

    source: str
    cleaner: str | None = None
    extractor: str | None = None
    filter: str | None = None
    localizer: str | None = None
    taxonomy: str | None = None
    notice: str = NOTICE
    model: str | None = None
    query: str | None = None
    by_rules: bool = False

    @property
    def is_prediction(self) -> bool:
        """Whether a model wrote the report."""
        return self.source == PREDICTION

    def to_row(self) -> dict[str, Any]:
        """The `provenance` cell."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Row) -> Provenance:
        """The provenance of a `provenance` cell."""
        return cls(**{name: row[name] for name in cls.__slots__ if name in row})


@dataclass(frozen=True, slots=True)
class GroundedReport:
    """A report with its tags, grounded in one image.

    image_id: None if the study has no image to ground in.
    tags: in order of start; two of them share all their words (the members of a range) or none.
    """

    dataset: str
    split: str
    study_id: str
    image_id: str | None
    text: str
    tags: tuple[Tag, ...]
    provenance: Provenance

    def to_row(self) -> dict[str, Any]:
        """The row of `grounded_reports`."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "study_id": self.study_id,
            "image_id": self.image_id,
            "text": self.text,
            "tags": [tag.to_row() for tag in self.tags],
            "provenance": self.provenance.to_row(),
        }

    @classmethod
    def from_row(cls, row: Row, masks: Mapping[MaskKey, Mask]) -> GroundedReport:
        """The report of a row of `grounded_reports`.

        Args:
            row: the row.
            masks: those of its study and image, see `masks_by_key`.

        Raises:
            KeyError: if a tag refers to a mask that is not among them.
        """
        return cls(
            row["dataset"],
            row["split"],
            row["study_id"],
            row["image_id"],
            row["text"],
            tuple(Tag.from_row(tag, masks) for tag in row["tags"]),
            Provenance.from_row(row["provenance"]),
        )


def masks_by_key(rows: Iterable[Row]) -> dict[MaskKey, Mask]:
    """The masks of rows of `masks` that belong to one study and image."""
    return {MaskKey.from_row(row): Mask.from_row(row) for row in rows}
