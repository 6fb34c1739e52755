"""The marks of the four readers of LIDC-IDRI, from the XML file of a scan.

Format: the LIDC XML documentation of The Cancer Imaging Archive. A nodule of 3 mm or more is drawn
as outlines, one or more a slice; the outline is the first pixel outside of it. A smaller nodule is
a single point, which has no outline.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.datasets.reader import DatasetError

ROOT = "LidcReadMessage"
"""Of a CT's file; those of radiographs are IdriReadMessage."""

_LARGEST = 64 << 20  # bytes; the largest of the collection has some 2 million
_START = 4096  # bytes that hold the header with the series
_SERIES = re.compile(r"<SeriesInstanceU(?:ID|id)>\s*([0-9.]+)\s*<", re.I)


@dataclass(frozen=True)
class Outline:
    """One closed line in a slice.

    z_mm: the slice's position, as in its DICOM header.
    inclusion: False where it surrounds a hole.
    columns, rows: of its pixels, in order, from 0.
    """

    z_mm: float
    inclusion: bool
    columns: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Mark:
    """A nodule as one reader drew it; without outlines if it is smaller than 3 mm."""

    reader: int
    outlines: tuple[Outline, ...]


def series_of(path: Path) -> str | None:
    """The SeriesInstanceUID of a CT that a file is about; None of any other file."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_START).decode("utf-8", "replace")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    found = _SERIES.search(start)
    return found[1] if found and ROOT in start else None


def marks(path: Path) -> list[Mark]:
    """The nodules that each reader marked.

    Raises:
        ValueError: if the file is damaged.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} has more than {_LARGEST:,} bytes")
    try:
        root = ET.parse(path).getroot()  # noqa: S314 expat refuses entity bombs, fetches nothing
    except ET.ParseError as error:
        raise ValueError(f"{path} is not XML that can be read: {error}") from error
    found = []
    for reader, session in enumerate(_all(root, "readingSession")):
        for nodule in _all(session, "unblindedReadNodule"):
            drawn = (_outline(roi) for roi in _all(nodule, "roi"))
            outlines = tuple(outline for outline in drawn if len(outline.columns) > 1)
            found.append(Mark(reader, outlines))
    return found


def _outline(roi: ET.Element) -> Outline:
    points = list(_all(roi, "edgeMap"))
    return Outline(
        z_mm=float(_text(roi, "imageZposition")),
        inclusion=_text(roi, "inclusion").upper() == "TRUE",
        columns=tuple(int(_text(point, "xCoord")) for point in points),
        rows=tuple(int(_text(point, "yCoord")) for point in points),
    )


def _all(node: ET.Element, name: str) -> Iterator[ET.Element]:
    """The children of a name, whatever namespace the file declares."""
    return (child for child in node if child.tag.rpartition("}")[2] == name)


def _text(node: ET.Element, name: str) -> str:
    child = next(_all(node, name), None)
    if child is None or not child.text:
        raise ValueError(f"a mark has no {name}")
    return child.text.strip()
