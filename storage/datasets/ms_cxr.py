"""MS-CXR (Boecking et al., ECCV 2022): phrases of MIMIC-CXR reports, boxed by radiologists.

Release 1.1.0 is read from its CSV file, 0.1 from its COCO JSON file; both have a row a box, in
pixels of the original image. The phrases of a study are its findings section, so that the text
steps annotate them. Images are those of MIMIC-CXR-JPG, which is a download of its own.

A study is in the split that MIMIC-CXR gives it where `mimic-cxr-2.0.0-split.csv.gz` is there; the
split of the release itself does not follow it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from storage.datasets.declaration import Declaration
from storage.datasets.json_files import read_json
from storage.datasets.marks import (
    MarkError,
    box_on_image,
    described,
    number,
    report_of,
    target_of,
)
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import read_rows
from storage.gold import Gold, GoldBox, GoldPhrase
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject

ALIGNMENT = "MS_CXR_Local_Alignment_v*"
SPLITS = "mimic-cxr-2.0.0-split.csv*"
SPLIT_NAMES = {"val": "validate"}
"""What the release calls a split, to MIMIC-CXR's name."""

COLUMNS = ("dicom_id", "category_name", "label_text", "path", "x", "y", "w", "h")
_SIZE = ("image_width", "image_height")
_STUDY = re.compile(r"(?:^|/)p(\d+)/s(\d+)/")


class _Row(NamedTuple):
    """A row of the release: where it stands, and its cells."""

    where: str
    cells: Mapping[str, str]

    @property
    def image(self) -> str:
        return self.cells["dicom_id"]

    @property
    def ids(self) -> tuple[str, str | None]:
        """Study and patient, as MIMIC-CXR has them."""
        found = _STUDY.search(self.cells["path"])
        return (found[2], found[1]) if found else (self.image or self.where, None)


class MsCxrReader:
    """Reads the release whole: it has some 1,400 rows."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """A record a study of MIMIC-CXR."""
        for key, rows in self._studies.items():
            yield SourceRecord(self._split(rows[0]), key, rows[0].ids[1])

    def fingerprint(self) -> str:
        """SHA-256 of the declaration, the release and MIMIC's splits; and the images' state."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for file in (self._release, self._split_table):
            if file is not None:
                digest.update(file.read_bytes())
        rows = (row for of_study in self._studies.values() for row in of_study)
        paths = (self._path(row) for row in rows)
        digest.update(listing_digest(path for path in paths if path is not None).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many images, phrases (pairs of image and sentence) and boxes there are."""
        rows = [row for of_study in self._studies.values() for row in of_study]
        phrases = {(r.image, r.cells["category_name"], r.cells["label_text"]) for r in rows}
        return {
            "images": len({row.image for row in rows}),
            "phrases": len(phrases),
            "boxes": len(rows),
        }

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The phrases and boxes of each study; a box that cannot be used is left out."""
        for record in records:
            rows = self._studies[record.key]
            if not rows[0].image:
                detail = f"{rows[0].where} names no image"
                yield Reject(record.key, rows[0].where, "row_malformed", detail)
                continue
            yield self._study(record, rows)

    def _study(self, record: SourceRecord, rows: list[_Row]) -> Study:
        images: dict[str, StudyImage] = {}
        phrases: dict[tuple[str, str, str], GoldPhrase] = {}
        boxes: list[GoldBox] = []
        left_out: list[Reject] = []
        for row in rows:
            label, words = row.cells["category_name"], row.cells["label_text"]
            try:
                target = target_of(self._declaration.targets, label)
                image = images.setdefault(row.image, self._image(row))
                key = (row.image, label, words)
                phrase = GoldPhrase(
                    str(len(phrases)), words, label, target, image_id=image.image_id
                )
                phrase = phrases.setdefault(key, phrase)
                box, cut = _box(row, phrase, image, boxes)
                boxes.append(box)
                if cut is not None:
                    left_out.append(cut.reject(record.key, row.where, row.image))
            except (MarkError, OutsideError) as error:
                reason = error.reason if isinstance(error, MarkError) else "path_outside_source"
                left_out.append(
                    Reject(record.key, row.where, reason, f"{row.where}: {error}", row.image)
                )
        return Study(
            record.key,
            report_of(phrase.phrase for phrase in phrases.values()) or None,
            None,
            self._declaration.source,
            record.patient_id,
            tuple(images.values()),
            gold=Gold(tuple(phrases.values()), tuple(boxes)),
            left_out=tuple(left_out),
        )

    def _image(self, row: _Row) -> StudyImage:
        path = self._path(row)
        if path is None:
            raise OutsideError(row.cells["path"])
        file = described(path)
        stated = tuple(row.cells.get(name, "") for name in reversed(_SIZE))
        shape = tuple(map(int, stated)) if all(cell.isdigit() for cell in stated) else None
        # A phrase is boxed in a frontal film; the release leaves out which of PA and AP it is.
        return StudyImage(row.image, str(path), "DX", "FRONTAL", file.shape if file else shape)

    def _path(self, row: _Row) -> Path | None:
        """The image below the folder, whose last part may be `files` itself."""
        named = row.cells["path"]
        try:
            path = path_below(self._source, named)
            inside = path_below(self._source, named.removeprefix("files/"))
        except OutsideError:
            return None
        return inside if inside.exists() and not path.exists() else path

    def _split(self, row: _Row) -> str:
        if self._mimic_splits is not None:
            found = self._mimic_splits.rows(row.image)
            said = found[0].cells["split"] if found else ""
        else:
            said = row.cells.get("split", "")
        said = SPLIT_NAMES.get(said, said)
        return said if said in self._declaration.splits else self._declaration.splits[-1]

    @cached_property
    def _studies(self) -> dict[str, list[_Row]]:
        file = self._release
        if file is None:
            raise DatasetError(
                f"{self._source} has no {ALIGNMENT}.csv or .json: give the folder of the release"
            )
        found: dict[str, list[_Row]] = {}
        for row in _of_json(file) if file.suffix == ".json" else _of_csv(file):
            found.setdefault(row.ids[0], []).append(row)
        if not found:
            raise DatasetError(f"{file} holds no rows")
        return found

    @cached_property
    def _release(self) -> Path | None:
        """The newest release; of one release, the CSV file."""
        return self._newest(f"{ALIGNMENT}.csv") or self._newest(f"{ALIGNMENT}.json")

    @cached_property
    def _split_table(self) -> Path | None:
        return self._newest(SPLITS)

    @cached_property
    def _mimic_splits(self) -> RowIndex | None:
        table = self._split_table
        return None if table is None else RowIndex(table, "dicom_id", ["dicom_id", "split"])

    def _newest(self, name: str) -> Path | None:
        found = [*self._source.glob(name), *self._source.glob(f"*/{name}")]
        return max(found, key=lambda path: path.name, default=None)


def _box(
    row: _Row, phrase: GoldPhrase, image: StudyImage, before: Iterable[GoldBox]
) -> tuple[GoldBox, MarkError | None]:
    x, y, width, height = (number(row.cells[name]) for name in "xywh")
    box, cut = box_on_image((x, y, x + width, y + height), image.shape)
    label = row.cells["category_name"]
    same = [b for b in before if (b.image_id, b.label) == (image.image_id, label)]
    gold = GoldBox(
        image.image_id, box, label, phrase.target, phrase_id=phrase.phrase_id, instance=len(same)
    )
    return gold, cut


def _of_csv(file: Path) -> Iterator[_Row]:
    for row in read_rows(file):
        where = f"{file.name} row {row.number}"
        if row.fault:
            yield _Row(where, dict.fromkeys(COLUMNS, ""))
            continue
        lacking = [name for name in COLUMNS if name not in row.cells]
        if lacking:
            raise DatasetError(f"{file} has no column {lacking[0]}")
        yield _Row(where, row.cells)


def _of_json(file: Path) -> Iterator[_Row]:
    """The annotations of a COCO file; an image may have several entries."""
    content = read_json(file, dict)
    try:
        images = {str(image["id"]): image for image in content["images"]}
        names = {str(kind["id"]): str(kind["name"]) for kind in content["categories"]}
        annotations = content["annotations"]
        for position, annotation in enumerate(annotations, start=1):
            image = images.get(str(annotation.get("image_id")), {})
            path = str(image.get("path") or image.get("file_name") or "")
            corners = [str(value) for value in annotation.get("bbox") or ()]
            cells = dict(zip("xywh", [*corners, "", "", "", ""], strict=False))
            label = names.get(str(annotation.get("category_id")), "")
            yield _Row(
                f"{file.name} annotation {position}",
                cells
                | {
                    "path": path,
                    "dicom_id": str(image.get("dicom_id") or Path(path).stem),
                    "category_name": label,
                    "label_text": " ".join(str(annotation.get("label_text") or "").split()),
                    "image_width": str(image.get("width", "")),
                    "image_height": str(image.get("height", "")),
                },
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file} is no COCO file of boxes: {error!r}") from error
