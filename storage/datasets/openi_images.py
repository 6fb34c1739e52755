"""The images of OpenI in the forms that they are given out in, and how they were taken.

`NLMCXR_png.tgz` and `NLMCXR_dcm.tgz`, unpacked, and the re-release on Kaggle, whose table
`indiana_projections.csv` says of each image whether it is frontal or lateral. The metadata table
that torchxrayvision ships gives view positions; a third of it is empty, and its authors call it
noisy: where both tables speak of an image, the one of projections, which was made by hand, counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from storage.datasets.reader import DatasetError
from storage.datasets.rows import read_rows
from storage.images.vocabulary import projection, view_position
from storage.paths import is_there, listing_digest, path_below

PNG = "NLMCXR_png"
METADATA = "nlmcxr_dicom_metadata.csv.gz"
METADATA_COLUMNS = ("imageid", "Modality", "View Position")
PROJECTIONS = "indiana_projections.csv"

_DICOM = "NLMCXR_dcm"
_KAGGLE = ("images/images_normalized", "images_normalized")
_KAGGLE_SUFFIX = ".dcm.png"

Taken = tuple[str, str | None]
"""Modality and view position of an image."""


class OpenIImages:
    """The images below a folder, by the ids that the reports have for them."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def path(self, image_id: str) -> Path:
        """The file of an image; if there is none, where its PNG would be.

        Raises:
            OutsideError: if the id leads out of the folder.
        """
        file = short_id(image_id).removeprefix("CXR")
        png = path_below(self._source / PNG, f"{image_id}.png")
        others = [
            path_below(self._source / _DICOM, f"{file.partition('_')[0]}/{file}.dcm"),
            *(path_below(self._source / kaggle, f"{file}{_KAGGLE_SUFFIX}") for kaggle in _KAGGLE),
        ]
        return next((path for path in (png, *others) if is_there(path)), png)

    def taken(self, image_id: str) -> Taken:
        """Modality and view of an image."""
        modality, view = self._metadata.get(short_id(image_id), ("CR", None))
        seen = self._projections.get(short_id(image_id))
        return modality, view if seen is None or projection(view) == projection(seen) else seen

    def of_report(self, uid: str) -> list[str]:
        """Ids of the images that the table of projections has of a report."""
        return self._by_report.get(uid, [])

    def digest(self) -> bytes:
        """Changes with the tables, and with the names, sizes and times of the images."""
        digest = hashlib.sha256()
        for table in (METADATA, PROJECTIONS):
            if (self._source / table).exists():
                digest.update((self._source / table).read_bytes())
        folders = [self._source / folder for folder in (PNG, *_KAGGLE)]
        paths = [path for folder in folders for path in sorted(folder.glob("*"))]
        paths += sorted((self._source / _DICOM).glob("*/*"))
        digest.update(listing_digest(paths).encode())
        return digest.digest()

    def check_tables(self) -> None:
        """Read both tables.

        Raises:
            DatasetError: if one is damaged.
        """
        _ = self._metadata, self._projections

    @cached_property
    def _metadata(self) -> dict[str, Taken]:
        table = self._source / METADATA
        if not table.exists():
            return {}
        rows = _cells(table, METADATA_COLUMNS)
        return {image: (modality or "CR", view or None) for image, modality, view in rows}

    @cached_property
    def _by_report(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for image in self._projections:
            found.setdefault(image.partition("_")[0].removeprefix("CXR"), []).append(image)
        return found

    @cached_property
    def _projections(self) -> dict[str, str | None]:
        table = self._source / PROJECTIONS
        if not table.exists():
            return {}
        rows = _cells(table, ("filename", "projection"))
        return {f"CXR{name.removesuffix(_KAGGLE_SUFFIX)}": view_position(v) for name, v in rows}


def short_id(image_id: str) -> str:
    """The id as tables and DICOM files have it, without the second number of `CXR1_1_IM-…`."""
    return re.sub(r"^(CXR\d+)_\d+_", r"\1_", image_id)


def _cells(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """These cells of every row.

    Raises:
        DatasetError: if the table cannot be read, lacks a column or holds no rows.
    """
    nothing = True
    try:
        for row in read_rows(table):
            nothing = False
            if row.fault:
                raise DatasetError(f"{table}, row {row.number}: {row.fault}")
            try:
                yield tuple(row.cells[name] for name in columns)
            except KeyError as error:
                raise DatasetError(f"{table} has no column {error}") from error
        if nothing:
            raise DatasetError(f"{table} holds no rows")
    except DatasetError as error:
        raise DatasetError(f"{error}: delete the file and fetch it again") from error
