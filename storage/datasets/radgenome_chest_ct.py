"""RadGenome-Chest CT (Zhang et al., 2024): sentences of CT-RATE reports and masks, by region.

`<split>_region_report.csv` has a row a sentence with the anatomical region that it is about, or
none; the sentences of a volume are its findings section. Masks of regions lie beside the
preprocessed volumes, on their grid; they were made by a segmenter, not by people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from storage.datasets.declaration import Declaration
from storage.datasets.marks import MarkError, described, report_of, target_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.gold import Gold, GoldMask, GoldPhrase
from storage.images.types import ImageError
from storage.images.volume_files import read_label_ids
from storage.paths import listing_digest
from storage.records import Mask
from storage.rejects import Reject

VOLUME, REGION, SENTENCE = "Volumename", "Anatomy", "Sentence"
REPORTS = {"train": "train_region_report.csv", "validate": "validation_region_report.csv"}
SEGMENTER = "SAT"
SUFFIX = ".nii.gz"


class RadGenomeReader:
    """Reads the tables of sentences once, as streams."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        # everything is below `dataset`, which may be the folder that is read
        self._folder = source / "dataset" if (source / "dataset").is_dir() else source

    def records(self) -> Iterator[SourceRecord]:
        """A record a volume; the patient is the number in its name."""
        for split, index in self._reports.items():
            for key in index.keys():  # noqa: SIM118 it is no mapping
                yield SourceRecord(split, key, "_".join(key.split("_")[:2]))

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and tables, and of the volumes' and masks' state."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for index in self._reports.values():
            with index.table.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
            for key in index.keys():  # noqa: SIM118 it is no mapping
                paths = [self._volume(key), *self._masks(key).values()]
                digest.update(listing_digest(paths).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many sentences there are."""
        return {"phrases": sum(len(index) for index in self._reports.values())}

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The sentences and region masks of each volume."""
        for record in records:
            rows = self._reports[record.split].rows(record.key)
            if fault := next((row.fault for row in rows if row.fault), None):
                yield Reject(record.key, record.key, "row_malformed", f"{record.key}: {fault}")
                continue
            yield self._study(record, rows)

    def _study(self, record: SourceRecord, rows: list[Row]) -> Study:
        key, left_out = record.key, list[Reject]()
        path = self._volume(key)
        file = described(path)
        image = StudyImage(
            key,
            str(path),
            "CT",
            None,
            file.shape if file else None,
            file.spacing_mm if file else None,
        )
        stated = [row for row in rows if row.cells.get(SENTENCE)]
        phrases = tuple(
            GoldPhrase(
                str(number),
                row.cells[SENTENCE],
                row.cells.get(REGION) or None,
                self._target(key, row.cells.get(REGION, ""), left_out),
                image_id=key,
            )
            for number, row in enumerate(stated)
        )
        masks = []
        for region, mask_path in self._masks(key).items():
            try:
                mask = self._mask(region, mask_path, image, left_out)
                masks += [mask] if mask else []
            except ImageError as error:
                left_out.append(Reject(key, mask_path.name, error.reason, str(error), key))
        return Study(
            key,
            report_of(phrase.phrase for phrase in phrases) or None,
            None,
            self._declaration.source,
            record.patient_id,
            (image,),
            gold=Gold(phrases, masks=tuple(masks)),
            left_out=tuple(left_out),
        )

    def _mask(
        self, region: str, path: Path, image: StudyImage, left_out: list[Reject]
    ) -> GoldMask | None:
        """The mask of a region; None where the volume does not show it, and its file is empty."""
        ids, affine = read_label_ids(path)
        if image.shape is not None and ids.shape != image.shape:
            said = f"{path} has the shape {ids.shape}, its volume {image.shape}"
            raise ImageError("mask_wrong_shape", said)
        voxels = ids > 0
        if not np.any(voxels):
            return None
        target = self._target(image.image_id, region, left_out)
        mask = Mask.of(voxels, affine)
        return GoldMask(image.image_id, mask, region, target, annotator=SEGMENTER)

    def _target(self, key: str, region: str, left_out: list[Reject]) -> str | None:
        if not region:
            return None
        try:
            return target_of(self._declaration.targets, region.lower())
        except MarkError as error:
            left_out.append(error.reject(key, f"region {region}", key))
            return None

    def _volume(self, key: str) -> Path:
        """`train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz` of `train_1_a_1`."""
        prefix, number, letters = ([*key.split("_"), "", "", ""])[:3]
        patient = f"{prefix}_{number}"
        scan = f"{patient}{letters}"
        return self._folder / f"{prefix}_preprocessed" / patient / scan / f"{key}{SUFFIX}"

    def _masks(self, key: str) -> dict[str, Path]:
        """The files of regions that there are, by region."""
        folder = self._folder / f"{key.partition('_')[0]}_region_mask" / f"seg_{key}"
        found = sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))
        return {path.name.removesuffix(SUFFIX): path for path in found}

    @cached_property
    def _reports(self) -> dict[str, RowIndex]:
        found = {}
        for split, name in REPORTS.items():
            table = self._folder / "radgenome_files" / name
            if table.is_file():
                found[split] = RowIndex(table, _volume_name, [VOLUME, REGION, SENTENCE])
        if not found:
            names = " or ".join(REPORTS.values())
            raise DatasetError(f"{self._folder} has no radgenome_files with {names}")
        return found


def _volume_name(row: Row) -> str:
    name = row.cells.get(VOLUME, "").removesuffix(SUFFIX)
    return name if name and "/" not in name and not row.fault else f"row {row.number}"
