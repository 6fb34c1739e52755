"""The atlas as a detector: `tasks.engines.protocols.Detector` for frontal radiographs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from storage.images.types import Radiograph
from storage.records import Box, Site
from tasks.engines.detection.atlas.build import Atlas, digest, load_atlas
from tasks.engines.detection.atlas.placement import Placement, load_placement
from tasks.engines.detection.atlas.plausibility import NoLungFieldsError
from tasks.engines.detection.atlas.rules import CannotPlaceError, Placed, place
from tasks.engines.detection.atlas.scene import Scene
from tasks.engines.protocols import Fingerprint, Ungrounded

VERSION = "1"
"""Raised with every change of the boxes that is not a change of the atlas or the table."""

FRONTAL_VIEWS = frozenset({"PA", "AP"})

LEAST_IN_VIEW = 0.5
"""A box of which less than this share lies inside the image is not given."""


class AtlasDetector:
    """Places anatomy by a registered atlas, findings by the report's words and by measurement.

    An embedded baseline. Scores are confidences of how a box was placed (`certainty` in
    `placement.yaml`) times the quality of the lung fields' fit: the same for all targets.
    Sides are the patient's; a film mirrored against the convention is recognised only when the
    heart tells, and a mirrored film with a slender heart is not.
    """

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and digests of the atlas and the placement table."""
        table = Path(__file__).with_name("placement.yaml").read_bytes()
        return {
            "name": "atlas",
            "version": VERSION,
            "atlas": digest(),
            "placement": hashlib.sha256(table).hexdigest()[:16],
        }

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[list[Box] | Ungrounded]:
        """Boxes per site in pixels of the image, or why there are none.

        Raises:
            storage.inputs.InputError: if the atlas's CT was never fetched.
        """
        if image.view is not None and image.view not in FRONTAL_VIEWS:
            reason = f"the view is {image.view}; the atlas knows frontal radiographs (PA, AP)"
            return [Ungrounded("view_not_supported", reason) for _ in sites]
        try:
            scene = Scene.read(image.pixels, self._atlas)
        except NoLungFieldsError as error:
            return [Ungrounded("registration_failed", str(error)) for _ in sites]
        return [self.answer(scene, site) for site in sites]

    def answer(self, scene: Scene, site: Site) -> list[Box] | Ungrounded:
        """The boxes of one site on a radiograph that was read already, or why there are none."""
        try:
            placed = place(scene, site, self._table)
        except CannotPlaceError as error:
            return Ungrounded(error.reason, error.detail)
        boxes = [box for each in placed if (box := self._box(scene, each))]
        if not boxes:
            return Ungrounded("outside_field_of_view", f"{site.target} lies outside of this image")
        return boxes

    @cached_property
    def _atlas(self) -> Atlas:
        return load_atlas()

    @cached_property
    def _table(self) -> Placement:
        return load_placement()

    def _box(self, scene: Scene, placed: Placed) -> Box | None:
        """The box clipped to the image; None when too little of it is in view."""
        rows, columns = scene.pixels.shape
        x_min, y_min, x_max, y_max = (float(edge) for edge in placed.box)
        left, right = max(0.0, x_min), min(float(columns), x_max)
        top, bottom = max(0.0, y_min), min(float(rows), y_max)
        area = (x_max - x_min) * (y_max - y_min)
        if right - left < 1 or bottom - top < 1:
            return None
        if (right - left) * (bottom - top) < LEAST_IN_VIEW * area:
            return None
        score = self._table.certainty[placed.kind] * scene.fields.quality * placed.weight
        return Box(left, top, right, bottom, round(score, 4))
