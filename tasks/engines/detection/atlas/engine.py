"""The atlas as a detector: `tasks.engines.protocols.Detector` for frontal radiographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

from storage.images.types import Radiograph
from storage.images.vocabulary import projection
from storage.records import Box, Site
from tasks.engines.detection.atlas.errors import CannotPlaceError, NoLungFieldsError
from tasks.engines.detection.atlas.lung_fields.search import find_lung_fields
from tasks.engines.detection.atlas.placement.rules import RULES, PlacedBox, PlacementRequest
from tasks.engines.detection.atlas.placement.table import TABLE, load_placement
from tasks.engines.detection.atlas.radiograph import RegisteredRadiograph
from tasks.engines.detection.atlas.reference.build import Atlas, digest, load_atlas
from tasks.engines.protocols import Fingerprint, Ungrounded
from taxonomy.zones import zones_digest

VERSION = "1"
"""Raised with every change of the boxes that is not a change of the atlas or the table."""

LEAST_IN_VIEW = 0.5
"""Share of a box that must lie inside the image; of less, too little is visible."""

LEAST_SIDE_PX = 1
"""Least width and height of a box inside the image."""

SCORE_DECIMALS = 4


class AtlasDetector:
    """Places anatomy by a registered atlas, findings by the report's words and by measurement.

    An embedded baseline. A score is the certainty of what the box rests on (`certainty` in
    `placement.yaml`) times the quality of the lung fields' fit; it is not calibrated per target.
    Sides are the patient's. A mirrored film is rejected where the heart's position shows it; one
    with a slender, central heart is not recognized.
    """

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and digests of the atlas, the placement table and the zones."""
        return {
            "name": "atlas",
            "version": VERSION,
            "atlas": digest(),
            "placement": hashlib.sha256(TABLE.read_bytes()).hexdigest()[:16],
            "zones": zones_digest("film", "side", "hilum")[:16],
        }

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[list[Box] | Ungrounded]:
        """Boxes per site in pixels of the image, or why there are none.

        Raises:
            storage.inputs.InputError: if the atlas's CT was never fetched.
        """
        # A header often lacks the view; the lung fields then tell what is no frontal radiograph.
        if image.view is not None and projection(image.view) != "frontal":
            reason = f"the view is {image.view}; the atlas knows frontal radiographs (PA, AP)"
            return [Ungrounded("view_not_supported", reason) for _ in sites]
        try:
            fields = find_lung_fields(image.pixels, self._atlas.shape)
        except NoLungFieldsError as error:
            return [Ungrounded(error.reason, error.detail) for _ in sites]
        registered = RegisteredRadiograph(image.pixels, fields, self._atlas)
        return [self.boxes_at(registered, site) for site in sites]

    def boxes_at(self, image: RegisteredRadiograph, site: Site) -> list[Box] | Ungrounded:
        """The boxes of one site on a registered radiograph, or why there are none."""
        table = load_placement()
        rule = table.rules.get(site.target)
        if rule is None:
            return Ungrounded(
                "target_not_supported",
                f"the atlas cannot place {site.target} on a frontal radiograph",
            )
        try:
            placed = RULES[rule.rule](PlacementRequest(image, rule, site.modifiers, table))
        except CannotPlaceError as error:
            return Ungrounded(error.reason, error.detail)
        boxes = [box for each in placed if (box := _clipped(image, each))]
        if not boxes:
            return Ungrounded("outside_field_of_view", f"{site.target} lies outside of this image")
        return boxes

    @cached_property
    def _atlas(self) -> Atlas:
        return load_atlas()


def _clipped(image: RegisteredRadiograph, placed: PlacedBox) -> Box | None:
    """The box clipped to the image; None where too little of it lies inside."""
    rows, columns = image.pixels.shape
    x_min, y_min, x_max, y_max = (float(edge) for edge in placed.box)
    left, right = max(0.0, x_min), min(float(columns), x_max)
    top, bottom = max(0.0, y_min), min(float(rows), y_max)
    # Of the whole box: a box that mostly lies outside would mark its margin alone.
    area = (x_max - x_min) * (y_max - y_min)
    if right - left < LEAST_SIDE_PX or bottom - top < LEAST_SIDE_PX:
        return None
    if (right - left) * (bottom - top) < LEAST_IN_VIEW * area:
        return None
    score = load_placement().certainty[placed.evidence] * image.fields.quality * placed.weight
    return Box(left, top, right, bottom, round(score, SCORE_DECIMALS))
