"""One radiograph with its lung fields, and the reference atlas registered to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.lung_fields.outlines import (
    SIDES,
    BoxXYXY,
    LungFields,
    Share,
    Side,
    frame_of,
    medial_border,
)
from tasks.engines.detection.atlas.measurements.heart import cardiothoracic_ratio, heart_borders
from tasks.engines.detection.atlas.measurements.nodules import Spot, find_spots
from tasks.engines.detection.atlas.reference.build import Atlas
from tasks.engines.detection.atlas.reference.registration import Registration

KNOB_HEIGHT: Share = (0.08, 0.32)
"""Where the aortic knob borders on the left lung, in shares of the field's height."""

LATERAL_REACH, APEX_REACH, RECESS_REACH = 0.1, 0.1, 0.15
"""How far a lung may extend beyond its visible field, in shares of the field's width (lateral) and
height (apex, recess): its margins are too thin to be seen, and the recess lies behind the
diaphragm."""


def side_of(names: tuple[str, ...]) -> Side | None:
    """The side in the names of structures that share a box."""
    return next((side for side in SIDES if side in names[0].split("_")), None)


@dataclass(frozen=True)
class RegisteredRadiograph:
    """What the placement rules measure in and place on; boxes are not clipped to the image.

    pixels: (rows, columns), bright is dense. fields: in its pixels.
    """

    pixels: NDArray[np.float32]
    fields: LungFields
    atlas: Atlas

    @cached_property
    def registration(self) -> Registration:
        """The map from the atlas to this image."""
        return Registration(self.atlas.landmarks, self.fields)

    @cached_property
    def spots(self) -> list[Spot]:
        """Round spots in the lung fields, most salient first."""
        return find_spots(self.pixels, self.fields)

    def structure_box(self, names: tuple[str, ...]) -> BoxXYXY:
        """The box that holds all of these atlas structures."""
        points = np.concatenate([self.atlas.structures[name] for name in names])
        points = self.registration.to_image(points)
        (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
        return float(x_min), float(y_min), float(x_max), float(y_max)

    def aortic_box(self, names: tuple[str, ...]) -> BoxXYXY:
        """The box of parts of the aorta, shifted to the aortic knob of this image."""
        x_min, y_min, x_max, y_max = self.structure_box(names)
        return x_min + self._aortic_shift, y_min, x_max + self._aortic_shift, y_max

    def pleural_box(self, names: tuple[str, ...]) -> BoxXYXY:
        """The box of a lung or lobe, limited to the lung field and its margins."""
        # The reference patient lay supine: the lung reaches less far down than in an upright one.
        x_min, y_min, x_max, y_max = self.structure_box(names)
        side = side_of(names)
        if side is None:
            return x_min, y_min, x_max, y_max
        lateral, medial, top, bottom = frame_of(self.fields[side], side)
        height, reach = bottom - top, LATERAL_REACH * (medial - lateral)
        # The right lung lies on the image's left, so its lateral wall is its smallest x.
        if side == "right":
            x_min = max(x_min, lateral - reach)
        else:
            x_max = min(x_max, lateral - reach)
        return (
            x_min,
            max(y_min, top - APEX_REACH * height),
            x_max,
            min(y_max, bottom + RECESS_REACH * height),
        )

    @property
    def heart_box(self) -> BoxXYXY:
        """The heart: left and right borders are measured, top and bottom registered."""
        # The heart's upper and lower borders have no contrast on a frontal radiograph.
        _, top, _, bottom = self.structure_box(("heart",))
        x_min, x_max = self._heart_borders
        return x_min, top, x_max, bottom

    @property
    def cardiothoracic_ratio(self) -> float:
        """Heart width over thorax width, measured in this image."""
        return cardiothoracic_ratio(self._heart_borders, self.fields)

    @cached_property
    def _heart_borders(self) -> tuple[float, float]:
        return heart_borders(self.pixels, self.fields)

    @cached_property
    def _aortic_shift(self) -> float:
        """Shift along x, in px, from the registered arch to the aortic knob of this image.

        The knob is the one border of the aorta that a frontal radiograph shows reliably.
        """
        knob = medial_border(self.fields, "left", KNOB_HEIGHT)[:, 0].max()
        _, _, registered_knob, _ = self.structure_box(("aortic_arch",))
        return float(knob - registered_knob)
