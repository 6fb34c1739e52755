"""Whether the atlas fits a scan, and each structure in it.

The whole: a scan of another part of the body, or one that is turned or mirrored, correlates less
with the atlas than any chest or upper abdomen does. One that is mirrored correlates nearly as well
as one that is not, so the scan is also compared with itself turned round.

Each structure: coarse and fine levels of the registration must agree on its place. A structure that
the fine levels still move has no clear counterpart in the scan.
"""

from __future__ import annotations

import numpy as np

from storage.overlap import dice
from tasks.engines.segmentation.hounsfield.grid import Mask3D
from tasks.engines.segmentation.registration.alignment import Alignment, Start, find_start
from tasks.engines.segmentation.registration.errors import CannotRegisterError
from tasks.engines.segmentation.registration.matching import MatchingImage

SAME_PATIENT = 0.95
"""Correlation after the affine step above which the scan is the atlas's own: other patients have
0.41 to 0.75."""

LEAST_CORRELATION = 0.72
"""Correlation after all steps below which the atlas does not fit. Chest 0.97, abdomen 0.78 to 0.80;
a pelvis has 0.68."""

LEAST_LEAD = 0.03
"""By how much the correlation at the start must exceed that of the scan turned round: 0.06 or more
on chests and abdomens as they should be."""

AXES = ("from left to right", "from front to back", "upside down")
"""What turning a volume round along x, y, z does."""

LEAST_CONFIDENCE = 0.70
"""Agreement from which a structure is given out. Structures that were wrong in the trials and are
offered (the abdominal aorta, Dice 0.52) have less."""


def require_orientation(scan: MatchingImage, atlas: MatchingImage, start: Start) -> None:
    """Check that the scan fits better as it is than turned round along an axis.

    Raises:
        CannotRegisterError: if it does not.
    """
    turned = [
        find_start(scan.flipped(axis), atlas, (start.size,)).correlation
        for axis in range(len(AXES))
    ]
    best = int(np.argmax(turned))
    if turned[best] > start.correlation - LEAST_LEAD:
        raise CannotRegisterError(
            "registration_failed",
            f"the scan fits the atlas as well when it is turned {AXES[best]}: it may be mirrored "
            "or turned, or show another part of the body",
        )


def require_fit(alignment: Alignment) -> None:
    """Check that the atlas fits, and that the scan is not the atlas's own.

    Raises:
        CannotRegisterError: if it does not, or is.
    """
    if alignment.affine_correlation > SAME_PATIENT:
        raise CannotRegisterError(
            "scan_of_the_atlas", "the scan is, or nearly is, the CT that the atlas was made from"
        )
    if not alignment.correlation >= LEAST_CORRELATION:  # also for a blank scan, which has nan
        raise CannotRegisterError(
            "registration_failed",
            f"the atlas of the chest does not fit this scan: correlation "
            f"{alignment.correlation:.2f}, at least {LEAST_CORRELATION:.2f} is asked for",
        )


def agreement(coarse: Mask3D, final: Mask3D) -> float:
    """Dice of a structure after the coarse and after all levels; 0 if it is empty."""
    return float(np.nan_to_num(dice(coarse, final))) if final.any() else 0.0
