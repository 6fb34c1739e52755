"""Everything that a data set holds to score our labels against, scored.

Shipped labels, gold phrases, gold boxes and gold masks, each if the data set has it. The MeSH
coding of OpenI is an audit of its own (`mesh.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.audit.gold_phrases import PhraseAudit, audit_phrases
from tasks.audit.grounding import GroundingAudit, audit_boxes, audit_masks
from tasks.audit.mesh import found_targets
from tasks.audit.shipped_labels import LabelAudit, audit_labels
from taxonomy.targets import Taxonomy

_KEY = ("study_id",)
_PLACE = (*_KEY, "image_id", "target")
_CORNERS = ("x_min", "y_min", "x_max", "y_max", "z_min", "z_max")
_VOXELS = ("shape", "affine", "mask")

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "studies": (*_KEY, "labels"),
    "clean_reports": (*_KEY, "findings"),
    "positives": (*_KEY, "section", "start", "end", "target"),
    "boxes": (*_PLACE, *_CORNERS),
    "masks": (*_PLACE, *_VOXELS),
    "gold_phrases": (*_KEY, "phrase", "label", "target", "assertion"),
    "gold_boxes": (*_PLACE, *_CORNERS, "annotator"),
    "gold_masks": (*_PLACE, *_VOXELS, "annotator"),
}
"""What is read of each table."""


@dataclass(frozen=True)
class ReferenceAudit:
    """The scores against each reference that there is; labels by their prefix."""

    labels: Mapping[str, LabelAudit]
    phrases: PhraseAudit | None
    boxes: GroundingAudit | None
    masks: GroundingAudit | None

    @property
    def is_empty(self) -> bool:
        """Whether the data set has nothing to score against."""
        return not self.labels and not (self.phrases or self.boxes or self.masks)

    def as_json(self) -> dict[str, Any]:
        """An object for each reference that there is."""
        found: dict[str, Any] = {}
        if self.labels:
            found["labels"] = {name: audit.as_json() for name, audit in self.labels.items()}
        for name in ("phrases", "boxes", "masks"):
            if (audit := getattr(self, name)) is not None:
                found[name] = audit.as_json()
        return found


def audit_references(tables: Mapping[str, pa.Table], taxonomy: Taxonomy) -> ReferenceAudit:
    """Score what we made of a data set; `tables` holds those of `COLUMNS`."""
    covered = set(tables["clean_reports"]["study_id"].to_pylist())
    found = found_targets(tables["positives"])
    return ReferenceAudit(
        audit_labels(tables["studies"], covered, found, taxonomy),
        audit_phrases(
            tables["gold_phrases"], tables["clean_reports"], tables["positives"], taxonomy
        ),
        audit_boxes(tables["gold_boxes"], tables["boxes"], taxonomy),
        audit_masks(tables["gold_masks"], tables["masks"], taxonomy),
    )
