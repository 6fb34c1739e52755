"""The transform from the atlas to a radiograph that maps lung fields onto lung fields."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator

from tasks.engines.detection.atlas.lung_fields.outlines import MEDIAL, SIDES, LungFields, Points

SMOOTHING, MEDIAL_SMOOTHING = 1.0, 10.0
"""Weights of the spline's smoothing against the misfit at the landmarks, in the unit frame. Borders
are found to within some pixels; the medial ones (heart, hila) vary most between patients."""


class Registration:
    """A smoothing thin-plate spline through the 192 landmarks of both outlines (Bookstein 1989).

    It is affine far from the lungs, so that neck, shoulders and abdomen are mapped without folds.
    """

    def __init__(self, atlas: LungFields, image: LungFields) -> None:
        source = np.concatenate([atlas[side] for side in SIDES])
        target = np.concatenate([image[side] for side in SIDES])
        # Unit frame: the weight of the smoothing then does not depend on the image's resolution.
        self._origin, self._scale = source.mean(axis=0), source.std(axis=0)
        # Each side has its own unit frame: radiographs differ in magnification and aspect.
        self._target_origin, self._target_scale = target.mean(axis=0), target.std(axis=0)
        smoothing = np.full(len(atlas.right), SMOOTHING)
        smoothing[MEDIAL] = MEDIAL_SMOOTHING
        self._spline = RBFInterpolator(
            (source - self._origin) / self._scale,
            (target - self._target_origin) / self._target_scale,
            kernel="thin_plate_spline",
            smoothing=np.tile(smoothing, len(SIDES)),
        )

    def to_image(self, points: Points) -> Points:
        """Atlas points (n, 2) in pixels of the image."""
        unit = self._spline((points - self._origin) / self._scale)
        placed: Points = unit * self._target_scale + self._target_origin
        return placed
