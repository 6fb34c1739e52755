"""Which cuts through a volume show best what was found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from dashboard.views import Cut, Window
from taxonomy.targets import load_taxonomy

_MOST_AXIAL_CUTS = 8
_NEARLY_LARGEST = 0.95  # of a mask's largest area: what a reader would call the same cut


@dataclass(frozen=True, slots=True)
class Profile:
    """How a mask lies in its volume.

    number: the finding; axial, coronal: its voxels on each plane along z and along y.
    """

    number: int
    window: Window
    is_abnormality: bool
    axial: NDArray[np.int64]
    coronal: NDArray[np.int64]


def measure(number: int, target: str, category: str, mask: NDArray[np.bool_]) -> Profile:
    """Measure a mask (x, y, z), which must not be empty."""
    return Profile(
        number,
        window_of(target),
        category == "abnormality",
        np.count_nonzero(mask, axis=(0, 1)),
        np.count_nonzero(mask, axis=(0, 2)),
    )


def choose_cuts(profiles: Sequence[Profile], shape: tuple[int, ...]) -> list[Cut]:
    """A few axial cuts from head to feet, then one coronal cut.

    Every mask has an axial cut where it is as large as anywhere, or nearly; one cut serves
    several masks where it can. Abnormalities come first if there are too many.
    """
    ordered = sorted(profiles, key=lambda p: not p.is_abnormality)
    if not ordered:
        soft = window_of(None)
        return [Cut("axial", shape[2] // 2, soft), Cut("coronal", shape[1] // 2, soft)]
    axial = sorted(_axial_cuts(ordered), key=lambda cut: -cut.index)
    wanted = [p for p in ordered if p.is_abnormality] or ordered
    coronal = np.sum([p.coronal / p.coronal.max() for p in wanted], axis=0)
    return [*axial, Cut("coronal", int(coronal.argmax()), ordered[0].window)]


def best_cut(finding: Profile, cuts: Sequence[Cut]) -> int | None:
    """Position of the cut that shows a mask best: its own window first, then its area."""

    def merit(i: int) -> tuple[bool, bool, int]:
        return cuts[i].plane == "axial", cuts[i].window == finding.window, _area(finding, cuts[i])

    seen = [i for i in range(len(cuts)) if _area(finding, cuts[i])]
    return max(seen, key=merit, default=None)


@cache
def windows() -> Mapping[str, Window]:
    """The windows of `windows.yaml` by group of the taxonomy; that of all others under ``""``."""
    declared: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_name("windows.yaml").read_text()
    )
    return {
        group: Window(name, window["level"], window["width"])
        for name, window in declared.items()
        for group in window.get("groups", [""])
    }


def window_of(target: str | None) -> Window:
    """The window that a target is read in."""
    known = load_taxonomy().targets.get(target or "")
    return windows().get(known.group if known else "", windows()[""])


def _axial_cuts(profiles: Sequence[Profile]) -> list[Cut]:
    waiting = list(profiles)
    cuts: list[Cut] = []
    while waiting and len(cuts) < _MOST_AXIAL_CUTS:
        first = waiting[0]
        peers = [p for p in waiting if p.window == first.window]
        near = np.array([p.axial >= _NEARLY_LARGEST * p.axial.max() for p in peers])
        served = near.sum(axis=0) * near[0] + first.axial / (2 * first.axial.max())
        index = int(served.argmax())
        cuts.append(Cut("axial", index, first.window))
        done = {p.number for p, there in zip(peers, near[:, index], strict=True) if there}
        waiting = [p for p in waiting if p.number not in done]
    return cuts


def _area(finding: Profile, cut: Cut) -> int:
    return int((finding.axial if cut.plane == "axial" else finding.coronal)[cut.index])
