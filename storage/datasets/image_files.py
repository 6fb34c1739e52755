"""Where the images of a data set are, found by name below its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

_NAME = "{image}"


class ImageFiles:
    """Images by name; folders are listed once, and no file is opened."""

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        """Where to look.

        Args:
            folder: of the data set.
            patterns: paths below it, the likeliest first: `{image}` stands for the image's name,
                `*` for any folder.
        """
        self._folder = folder
        self._plain = [pattern for pattern in patterns if "*" not in pattern]
        self._wild = [pattern for pattern in patterns if "*" in pattern]

    def find(self, name: str) -> Path:
        """The path of an image; where there is none, the path that it would likeliest have."""
        for pattern in self._plain:
            path = self._folder / pattern.replace(_NAME, name)
            if path.exists():
                return path
        for pattern in self._wild:
            file = pattern.rpartition("/")[2].replace(_NAME, name)
            if file in self._folders:
                return Path(self._folders[file]) / file
        likeliest = (self._plain or self._wild)[0].replace("*/", "")
        return self._folder / likeliest.replace(_NAME, name)

    @cached_property
    def _folders(self) -> dict[str, str]:
        """The folder of each file; some 200 bytes each, as files of one folder share its name."""
        found: dict[str, str] = {}
        for pattern in self._wild:
            for path in self._folder.glob(pattern.replace(_NAME, "*")):
                if not path.name.startswith("."):
                    found.setdefault(path.name, sys.intern(str(path.parent)))
        return found
