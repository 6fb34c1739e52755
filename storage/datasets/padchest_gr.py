"""PadChest-GR (de Castro et al., NEJM AI 2025): report sentences, boxed by two readers.

`grounded_reports_*.json` has the sentences of each study, in English and Spanish, with boxes as
shares of the image's width and height: `boxes` of the first reader, `extra_boxes` of the second.
Splits and patients are in `master_table.csv` alone. The sentences of a study are its findings
section. Images are 16-bit PNG files; they come as one archive cut into parts, and are read
unpacked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.datasets.declaration import Declaration
from storage.datasets.image_files import ImageFiles
from storage.datasets.json_files import by_name, read_json
from storage.datasets.marks import MarkError, box_on_image, described, report_of, target_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.gold import Gold, GoldBox, GoldPhrase
from storage.paths import listing_digest
from storage.rejects import Reject

REPORTS = "grounded_reports_*.json"
TABLE = "master_table.csv"
IMAGES = ("PadChest_GR/{image}", "Padchest_GR_files/PadChest_GR/{image}", "*/{image}")
PARTS = "**/PadChest_GR.zip.001"
SPLIT_NAMES = {"validation": "validate"}
READERS = {"boxes": "reader 1", "extra_boxes": "reader 2"}


class PadChestGrReader:
    """Reads the reports whole: 4,555 studies, some 10 MB."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._images = ImageFiles(source, IMAGES)

    def records(self) -> Iterator[SourceRecord]:
        """A record a study; one that the table puts in no split is counted in the last one."""
        for key in self._studies:
            row = next(iter(self._table.rows(key)), None)
            patient = row.cells.get("PatientID") if row else None
            yield SourceRecord(
                self._split(key) or self._declaration.splits[-1], key, patient or None
            )

    def _split(self, key: str) -> str | None:
        row = next(iter(self._table.rows(key)), None)
        said = row.cells.get("split", "") if row else ""
        split = SPLIT_NAMES.get(said, said)
        return split if split in self._declaration.splits else None

    def fingerprint(self) -> str:
        """SHA-256 of the declaration, reports and table, and of the images' state."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for file in (self._reports, self._source / TABLE):
            digest.update(file.read_bytes())
        images = (str(study.get("ImageID") or "") for study in self._studies.values())
        digest.update(listing_digest(map(self._images.find, filter(None, images))).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many sentences state an abnormality, how many none, and the boxes of both readers."""
        sentences = [s for study in self._studies.values() for s in _sentences(study)]
        abnormal = sum(bool(s.get("abnormal")) for s in sentences)
        boxes = sum(len(s.get(name) or ()) for s in sentences for name in READERS)
        return {
            "phrases": abnormal,
            "phrases.normal": len(sentences) - abnormal,
            "boxes": boxes,
        }

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The sentences and boxes of each study."""
        for record in records:
            study = self._studies[record.key]
            if not study:
                detail = f"{record.key} has no StudyID, or that of an entry before it"
                yield Reject(record.key, record.key, "row_malformed", detail)
                continue
            if self._split(record.key) is None:
                detail = f"{TABLE} puts study {record.key} in no split"
                yield Reject(record.key, record.key, "split_unknown", detail)
                continue
            image = str(study.get("ImageID") or "")
            if not image or "/" in image:
                detail = f"study {record.key} names the image {image[:200]!r}"
                yield Reject(record.key, record.key, "row_malformed", detail)
                continue
            yield self._study(record, image, _sentences(study))

    def _study(self, record: SourceRecord, name: str, sentences: Sequence[dict[str, Any]]) -> Study:
        path = self._images.find(name)
        file = described(path)
        image = StudyImage(
            Path(name).stem, str(path), "DX", "FRONTAL", file.shape if file else None
        )
        marked = _Marked(self._declaration.targets, record.key, image)
        for number, sentence in enumerate(sentences):
            marked.add(number, sentence)
        return Study(
            record.key,
            report_of(str(s.get("sentence_en") or "") for s in sentences) or None,
            None,
            self._declaration.source,
            record.patient_id,
            (image,),
            gold=Gold(tuple(marked.phrases), tuple(marked.boxes)),
            left_out=tuple(marked.left_out),
        )

    @cached_property
    def _studies(self) -> dict[str, Mapping[str, Any]]:
        if (parts := next(self._source.glob(PARTS), None)) and not any(
            self._source.glob("**/PadChest_GR/*.png")
        ):
            raise DatasetError(
                f"{parts.parent} holds the images as parts of one archive: join them with "
                f"`cat PadChest_GR.zip.* > PadChest_GR.zip` and unpack it there with `unzip`"
            )
        found = by_name(read_json(self._reports, list), "StudyID")
        if not found:
            raise DatasetError(f"{self._reports} holds no studies")
        return found

    @cached_property
    def _reports(self) -> Path:
        found = sorted(self._source.glob(REPORTS))
        if not found:
            raise DatasetError(f"{self._source} has no {REPORTS}: give the folder of the download")
        return found[-1]

    @cached_property
    def _table(self) -> RowIndex:
        return RowIndex(self._source / TABLE, "StudyID", ["StudyID", "split"], ["PatientID"])


class _Marked:
    """The phrases and boxes of one study as they are added."""

    def __init__(self, targets: Mapping[str, str | None], study_id: str, image: StudyImage) -> None:
        self._targets = targets
        self._study_id = study_id
        self._image = image
        self.phrases: list[GoldPhrase] = []
        self.boxes: list[GoldBox] = []
        self.left_out: list[Reject] = []

    def add(self, number: int, sentence: Mapping[str, Any]) -> None:
        """A phrase for each label of the sentence, each with the sentence's boxes."""
        words = str(sentence.get("sentence_en") or "").strip()
        if not words:
            self._leave_out(MarkError("mark_unreadable", "it has no words"), f"sentence {number}")
            return
        abnormal = bool(sentence.get("abnormal"))
        labels = [str(label) for label in sentence.get("labels") or ()]
        for position, label in enumerate(labels or (None,)):
            key = f"{number}.{position}"
            phrase = GoldPhrase(
                key,
                words,
                label,
                self._target(label, key),
                "present" if abnormal else "absent",
                self._image.image_id,
            )
            self.phrases.append(phrase)
            for field, reader in READERS.items():
                for corners in sentence.get(field) or ():
                    self._add_box(phrase, corners, reader)

    def _target(self, label: str | None, key: str) -> str | None:
        if label is None:
            return None
        try:
            return target_of(self._targets, label)
        except MarkError as error:
            self._leave_out(error, f"label of sentence {key}")
            return None

    def _add_box(self, phrase: GoldPhrase, shares: Any, reader: str) -> None:
        record = f"box of sentence {phrase.phrase_id} by {reader}"
        try:
            box, cut = box_on_image(self._pixels(shares), self._image.shape)
        except MarkError as error:
            self._leave_out(error, record)
            return
        if cut is not None:
            self._leave_out(cut, record)
        label = phrase.label or "abnormality"
        same = sum(held.label == label for held in self.boxes)
        self.boxes.append(
            GoldBox(
                self._image.image_id,
                box,
                label,
                phrase.target,
                phrase_id=phrase.phrase_id,
                instance=same,
                annotator=reader,
            )
        )

    def _pixels(self, shares: Any) -> list[float]:
        if self._image.shape is None:
            raise MarkError("image_not_found", "the image is not there, so its size is not known")
        rows, columns = self._image.shape
        try:
            x_min, y_min, x_max, y_max = map(float, shares)
        except (TypeError, ValueError):
            raise MarkError("mark_unreadable", f"{shares!r} are no four numbers") from None
        return [x_min * columns, y_min * rows, x_max * columns, y_max * rows]

    def _leave_out(self, error: MarkError, record: str) -> None:
        self.left_out.append(error.reject(self._study_id, record, self._image.image_id))


def _sentences(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [finding for finding in study.get("findings") or () if isinstance(finding, dict)]
