"""One radiograph with its lung fields found and the atlas registered to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.engines.detection.atlas.build import Atlas
from tasks.engines.detection.atlas.heart import cardiothoracic_ratio, heart_borders
from tasks.engines.detection.atlas.lung_fields import find_lung_fields
from tasks.engines.detection.atlas.measure import BoxXYXY, medial_border
from tasks.engines.detection.atlas.nodules import Spot, find_spots
from tasks.engines.detection.atlas.outlines import LungFields, Points, Side, frame_of
from tasks.engines.detection.atlas.registration import Registration

KNOB_HEIGHT = (0.08, 0.32)
"""Where the aortic arch meets the left lung, in shares of the field's height."""

LATERAL_REACH, APEX_REACH, RECESS_REACH = 0.1, 0.1, 0.15
"""How far a lung may reach beyond its visible field: its wall is thin at the edges, its recess lies
behind the diaphragm. Shares of the field's width and height."""


@dataclass(frozen=True)
class Scene:
    """What the placement rules look at."""

    pixels: NDArray[np.float32]
    fields: LungFields
    atlas: Atlas

    @classmethod
    def read(cls, pixels: NDArray[np.float32], atlas: Atlas) -> Scene:
        """Find the lung fields.

        Raises:
            tasks.engines.detection.atlas.plausibility.NoLungFieldsError: if there are none.
        """
        return cls(pixels, find_lung_fields(pixels, atlas.shape), atlas)

    @cached_property
    def registration(self) -> Registration:
        """The map from the atlas to this image."""
        return Registration(self.atlas.landmarks, self.fields)

    @cached_property
    def spots(self) -> list[Spot]:
        """Round spots in the lung fields, most salient first."""
        return find_spots(self.pixels, self.fields)

    def structure_box(self, names: tuple[str, ...]) -> BoxXYXY:
        """The box of atlas structures together."""
        points = self._placed(names)
        (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
        return float(x_min), float(y_min), float(x_max), float(y_max)

    def aortic_box(self, names: tuple[str, ...]) -> BoxXYXY:
        """The box of parts of the aorta, moved to the aortic knob's edge in this image."""
        x_min, y_min, x_max, y_max = self.structure_box(names)
        return x_min + self._aortic_shift, y_min, x_max + self._aortic_shift, y_max

    def pleural_box(self, names: tuple[str, ...], side: Side) -> BoxXYXY:
        """The box of a lung or lobe, kept near the walls of the lung field."""
        x_min, y_min, x_max, y_max = self.structure_box(names)
        lateral, medial, top, bottom = frame_of(self.fields[side], side)
        height, reach = bottom - top, LATERAL_REACH * (medial - lateral)
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
        """The heart: its borders with the lungs measured, top and bottom from the atlas."""
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

    def _placed(self, names: tuple[str, ...]) -> Points:
        points = np.concatenate([self.atlas.structures[name] for name in names])
        return self.registration.to_image(points)

    @cached_property
    def _aortic_shift(self) -> float:
        """From the carried-over arch to the knob in this image, along x.

        The knob's edge with the left lung is the one part of the aorta that a frontal film shows.
        """
        knob = medial_border(self.fields, "left", KNOB_HEIGHT)[:, 0].max()
        return float(knob - self._placed(("aortic_arch",))[:, 0].max())
