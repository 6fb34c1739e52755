"""Whether the values of a volume can be Hounsfield units.

A file may hold stored values without their rescale, a window scaled to 0…255, a normalized
network input or a label map; nothing in its header says so. The distribution does. Air is -1000
and water 0 by definition, and every CT of a body shows fat (-100), muscle and blood (30 to 60,
with contrast to 300) in a share that no crop, kernel, dose, contrast or implant takes away.

What is outside the field of view (-1024, -2048, -3024, …) is one value repeated; it says nothing.

Tried and not kept: that air is present (crops of the heart and of the abdomen have next to none),
the position of the lowest peak (padding, or clipping at -1000 or -1024, makes it), the median
(air, padding and body share a volume in any proportion), and the integer type (CTs come as
int16, uint16, int32 and float).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.images.types import ImageError

_LOWEST, _HIGHEST = -32768, 32767
_SLAB = 16  # planes counted at a time: counting takes 8 bytes a voxel

_FEWEST_VOXELS = 10_000  # below, shares of a percent mean nothing; no examination is so small

_BELOW_AIR = -1500
"""HU. Noise of sharp kernels at low dose takes air to -1300; padding begins at -2000 (GE)."""

_PADDING = 0.01
"""Share of all voxels that makes one value below air a padding; a file may have two of them."""

_MOST_BELOW_AIR = 0.05
"""Share of all voxels below air that are no padding: resampling blurs the edge of padding."""

_SOFT = (-200, 300)
"""HU of fat, water, muscle, organs and blood, the last with contrast."""

_LEAST_SOFT = 0.03
"""Share of the scanned voxels: an emphysematous chest in a wide field of view still has 10 %."""

_AIR = -1000
_FAT_OR_LESS = -60
_LEAST_FAT_OR_LESS = 0.01
"""Share of fat, lung and air, less their most frequent value, which may be padding: stored values
beside a padding of -1024 have it in common with a CT. Only -1000 itself is taken for air."""

_DENSE = 600
_MOST_DENSE = 0.3
"""Share of cortical bone, metal and very dense contrast among what is denser than lung."""

_LEAST_SPAN = 700
"""HU between the 0.1th and the 99.9th percentile: any CT has air or lung, or bone; what is cut to
a window of soft tissue (-200…300) has neither."""

_OFFSETS = (-1024, -1000)
"""The usual RescaleIntercepts, tried on values that are refused."""


def check_hounsfield(path: Path, hu: NDArray[np.int16]) -> None:
    """Check the distribution of a volume's values.

    Raises:
        ImageError: `not_hounsfield`, with what is wrong and, where an offset of 1,000 or 1,024
            would mend it, with that hint.
    """
    if hu.size < _FEWEST_VOXELS:
        return
    counts = _histogram(hu)
    wrong = _objection(counts)
    if wrong is None:
        return
    hint = next(
        (
            f"; {offset} added, they would be: a RescaleIntercept of {offset} was not applied"
            for offset in _OFFSETS
            if _objection(np.roll(counts, offset)) is None
        ),
        "",
    )
    raise ImageError(
        "not_hounsfield",
        f"{path} has values that cannot be Hounsfield units ({wrong}{hint})",
    )


def may_be_hounsfield(values: NDArray[np.number]) -> bool:
    """Whether nothing in the distribution of some values speaks against Hounsfield units.

    Takes 16 bytes a value for a while: give it some planes of a volume.
    """
    hu = np.clip(np.rint(values), _LOWEST, _HIGHEST).astype(np.int16)
    return _objection(_histogram(hu.reshape(1, -1))) is None


def _histogram(hu: NDArray[np.int16]) -> NDArray[np.int64]:
    """Voxels of each value from -32768 on."""
    counts = np.zeros(_HIGHEST - _LOWEST + 1, np.int64)
    for start in range(0, len(hu), _SLAB):
        slab = hu[start : start + _SLAB].astype(np.int64).ravel()
        counts += np.bincount(slab - _LOWEST, minlength=len(counts))
    return counts


def _objection(counts: NDArray[np.int64]) -> str | None:
    """What speaks against Hounsfield units; None if nothing does."""
    below_air = counts[: _BELOW_AIR - _LOWEST]
    scanned = counts.copy()
    scanned[: _BELOW_AIR - _LOWEST] = 0
    voxels, total = int(counts.sum()), int(scanned.sum())
    if total < _PADDING * voxels:
        return "nearly all are below air, which is -1000"
    if below_air[below_air < _PADDING * voxels].sum() > _MOST_BELOW_AIR * voxels:
        return f"many different ones lie below {_BELOW_AIR}, though air is -1000"
    low, high = (
        int(np.searchsorted(scanned.cumsum(), share * total)) + _LOWEST for share in (0.001, 0.999)
    )
    said = f"they run from {low} to {high}"
    if high - low < _LEAST_SPAN:
        return f"{said}, too narrow a span for any CT"
    if _between(scanned, *_SOFT) < _LEAST_SOFT * total:
        return f"{said}, with next to none near 0, where soft tissue lies"
    lighter = scanned[: _FAT_OR_LESS - _LOWEST]
    padding = 0 if lighter.argmax() == _AIR - _LOWEST else lighter.max()
    if lighter.sum() - padding < _LEAST_FAT_OR_LESS * total:
        return f"{said}, with next to none where fat, lung and air lie"
    dense = _between(scanned, _DENSE, _HIGHEST)
    if dense > _MOST_DENSE * _between(scanned, _SOFT[0], _HIGHEST):
        return f"{said}, and too many are as dense as cortical bone"
    return None


def _between(counts: NDArray[np.int64], low: int, high: int) -> int:
    return int(counts[low - _LOWEST : high - _LOWEST + 1].sum())
