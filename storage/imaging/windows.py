"""CT display windows: the range of Hounsfield units that is shown from black to white."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

_DEFAULT = "soft tissue"


@dataclass(frozen=True, slots=True)
class Window:
    """A CT display window.

    level_hu, width_hu: the middle of the range and its extent, in Hounsfield units.
    groups: the taxonomy's groups of targets that are read in it.
    """

    name: str
    level_hu: float
    width_hu: float
    groups: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """Width and level as a radiologist writes them, with spaces that do not break."""
        width = f"W\N{NO-BREAK SPACE}{self.width_hu:.0f}"
        level = f"L\N{NO-BREAK SPACE}{self.level_hu:.0f}"
        return f"{width}, {level}".replace("-", "\N{MINUS SIGN}")

    def grey(self, hu: NDArray[Any]) -> NDArray[np.float32]:
        """Hounsfield units as 0 (black) to 1 (white), clipped."""
        black_hu = self.level_hu - self.width_hu / 2
        grey: NDArray[np.float32] = (hu.astype(np.float32) - black_hu) / self.width_hu
        return np.clip(grey, 0, 1)


@cache
def windows() -> Mapping[str, Window]:
    """The windows of `windows.yaml` by name."""
    declared: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_name("windows.yaml").read_text("utf-8")
    )
    return {
        name: Window(name, window["level"], window["width"], tuple(window.get("groups", ())))
        for name, window in declared.items()
    }


def window_of(group: str | None) -> Window:
    """The window that the targets of a group of the taxonomy are read in.

    Args:
        group: None for a target that the taxonomy does not know.
    """
    listed = (window for window in windows().values() if group in window.groups)
    return next(listed, windows()[_DEFAULT])
