"""ROCOv2 (Rückert et al., Scientific Data 2024): figures of articles with their captions.

79,789 images of all modalities, from articles in PubMed Central. A caption is a report without an
impression. Neither modality nor view of a figure is known, so nothing is localized in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from storage.datasets.declaration import Declaration
from storage.datasets.downloads import files_in, folders_below
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.images.loading import describe_image
from storage.images.types import ImageError
from storage.paths import OutsideError, is_there, listing_digest, path_below
from storage.rejects import Reject

_SPLITS = {"train": "train", "valid": "validate", "test": "test"}
"""What file names call a split, and what it is called here."""

_FIGURE = "FIGURE"
"""In place of a view position (`storage/images/vocabulary.yaml`)."""


class Rocov2Reader:
    """Reads the captions of every split that is there; images may be unpacked at any depth."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """Every caption, in the order of the tables; a row without an id by its number."""
        for split, captions in self._captions.items():
            for key in captions.keys():  # noqa: SIM118 it is no mapping
                yield SourceRecord(_SPLITS[split], f"{split}/{key}")

    def fingerprint(self) -> str:
        """SHA-256 of the tables, and of the folders of images: their times change with them."""
        digest = hashlib.sha256()
        for path in self._tables.values():
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        digest.update(listing_digest(f for of in self._folders.values() for f in of).encode())
        return digest.hexdigest()

    def found(self) -> list[str]:
        """Which tables were found, and where the first image of each is."""
        said = []
        for split, captions in self._captions.items():
            image = self._path(split, next(captions.keys()))
            place = f"images in {image.parent}" if image.exists() else "no images found"
            said.append(f"captions from {captions.table}, {place}")
        return said

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The figure and caption of each record."""
        for record in records:
            split, _, key = record.key.partition("/")
            captions = self._captions[split]
            rows = captions.rows(key)
            where = f"{captions.table.name} row {', '.join(str(row.number) for row in rows)}"
            said = {row.cells.get("Caption", "") for row in rows}
            fault = next((row.fault for row in rows if row.fault), None)
            if fault or not rows[0].cells.get("ID"):
                detail = f"{where}: {fault or 'ID is empty'}"
                reason = "row_malformed" if fault else "study_id_missing"
                yield Reject(key, where, reason, detail)
            elif len(said) > 1:
                detail = f"{where}: rows of one figure give different captions"
                yield Reject(key, where, "rows_disagree", detail)
            else:
                yield self._study(split, key, said.pop())

    def _study(self, split: str, key: str, caption: str) -> Study:
        images: tuple[StudyImage, ...] = ()
        left_out: tuple[Reject, ...] = ()
        try:
            images = (_described(key, self._path(split, key)),)
        except OutsideError as error:
            left_out = (Reject(key, f"image {key[:200]}", "path_outside_source", str(error)),)
        return Study(
            study_id=key,
            findings=" ".join(caption.split()) or None,
            impression=None,
            source=self._declaration.source,
            images=images,
            left_out=left_out,
        )

    def _path(self, split: str, key: str) -> Path:
        """Where the image of a figure is, or would be."""
        paths = [path_below(folder, f"{key}.jpg") for folder in self._folders[split]]
        return next((path for path in paths if is_there(path)), paths[0])

    @cached_property
    def _all_folders(self) -> list[Path]:
        return list(folders_below(self._source))

    @cached_property
    def _folders(self) -> dict[str, list[Path]]:
        """Folders that may hold a split's images: its own, deepest first, then all the others."""
        found = {}
        for split in _SPLITS:
            own = [folder for folder in self._all_folders if folder.name.startswith(split)]
            others = [folder for folder in self._all_folders if folder.name == "images"]
            found[split] = [*reversed(own), *others, self._source]
        return found

    @cached_property
    def _tables(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in files_in(self._all_folders, "*_captions.csv", "*_captions.csv.gz"):
            split = next((name for name in _SPLITS if path.name.startswith(name)), None)
            if split:
                found.setdefault(split, path)
        return {split: found[split] for split in _SPLITS if split in found}

    @cached_property
    def _captions(self) -> dict[str, RowIndex]:
        if not self._tables:
            raise DatasetError(
                f"{self._source} holds no captions of ROCOv2: expected train_captions.csv, "
                "valid_captions.csv or test_captions.csv in it or in a folder below"
            )
        return {
            split: RowIndex(path, _key, ("ID", "Caption")) for split, path in self._tables.items()
        }


def _key(row: Row) -> str:
    """The id of a figure, without a suffix; for a row that has none, its number."""
    figure = row.cells.get("ID", "").removesuffix(".jpg")
    return figure if figure and not row.fault else f"row {row.number}"


def _described(key: str, path: Path) -> StudyImage:
    try:
        shape = describe_image(path).shape
    except ImageError:
        shape = None  # it is not there, or in colors
    return StudyImage(key, str(path), None, _FIGURE, shape)
