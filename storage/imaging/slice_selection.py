"""The few slices of a volume that together show all masks found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.imaging.slices import Slice, middle_slices, slice_areas
from storage.imaging.windows import Window, window_of

MOST_AXIAL_SLICES = 8
"""Axial pictures of one volume: more are not looked at, and a page of many must stay small."""

NEARLY_LARGEST = 0.95
"""Share of a mask's largest area in a slice from which a reader sees no difference."""


@dataclass(frozen=True, slots=True)
class WindowedSlice(Slice):
    """A slice shown in a display window."""

    window: Window


@dataclass(frozen=True, slots=True)
class MaskProfile:
    """How large a mask is on the slices of its volume.

    number: identifies the mask.
    window: the display window that it is read in.
    comes_first: its slices are chosen before those of other masks.
    axial, coronal: its voxels on every slice.
    """

    number: int
    window: Window
    comes_first: bool
    axial: NDArray[np.int64]
    coronal: NDArray[np.int64]

    @classmethod
    def of(
        cls, number: int, mask: NDArray[np.bool_], window: Window, *, comes_first: bool
    ) -> MaskProfile:
        """Measure a mask (x, y, z), which must not be empty."""
        axial, coronal = slice_areas(mask, "axial"), slice_areas(mask, "coronal")
        return cls(number, window, comes_first, axial, coronal)

    def area(self, shown: Slice) -> int:
        """The mask's voxels on a slice."""
        return int((self.axial if shown.plane == "axial" else self.coronal)[shown.index])


def choose_slices(
    profiles: Sequence[MaskProfile], shape_xyz: tuple[int, ...]
) -> list[WindowedSlice]:
    """A few axial slices from superior to inferior, then one coronal slice.

    Every mask has an axial slice on which it is nearly as large as on any; masks that share a
    window share slices where they can. If there are too many, masks that come first are served
    first. The middle slices are chosen if there are no masks.
    """
    ordered = sorted(profiles, key=lambda profile: not profile.comes_first)
    if not ordered:
        return [WindowedSlice(s.plane, s.index, window_of(None)) for s in middle_slices(shape_xyz)]
    axial = sorted(_axial_slices(ordered), key=lambda shown: -shown.index)
    wanted = [profile for profile in ordered if profile.comes_first] or ordered
    coronal = np.sum([profile.coronal / profile.coronal.max() for profile in wanted], axis=0)
    return [*axial, WindowedSlice("coronal", int(coronal.argmax()), ordered[0].window)]


def best_slice(profile: MaskProfile, slices: Sequence[WindowedSlice]) -> int | None:
    """Position of the slice that shows a mask best; None if none of them meets it.

    Axial slices are preferred, then those in the mask's own window, then the largest area.
    """

    def merit(position: int) -> tuple[bool, bool, int]:
        shown = slices[position]
        return shown.plane == "axial", shown.window == profile.window, profile.area(shown)

    meeting = [i for i, shown in enumerate(slices) if profile.area(shown)]
    return max(meeting, key=merit, default=None)


def _axial_slices(profiles: Sequence[MaskProfile]) -> list[WindowedSlice]:
    """Greedy: the slice that serves the first mask left and most others of its window."""
    left = list(profiles)
    slices: list[WindowedSlice] = []
    while left and len(slices) < MOST_AXIAL_SLICES:
        first = left[0]
        peers = [profile for profile in left if profile.window == first.window]
        near = np.array([p.axial >= NEARLY_LARGEST * p.axial.max() for p in peers])
        # The first mask must be served; its own area, less than one mask, decides between equals.
        merit = near.sum(axis=0) * near[0] + first.axial / (2 * first.axial.max())
        index = int(merit.argmax())
        slices.append(WindowedSlice("axial", index, first.window))
        served = {p.number for p, is_near in zip(peers, near[:, index], strict=True) if is_near}
        left = [profile for profile in left if profile.number not in served]
    return slices
