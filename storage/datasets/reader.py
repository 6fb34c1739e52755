"""What a dataset reader is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # pyarrow, which naming a data set does not need
    from storage.gold import Gold
    from storage.rejects import Reject


LARGEST_REPORT = 1_000_000
"""Bytes of a report's file and characters of a section or a table's cell that are read. Chest CT
reports have up to 10,000; the largest file of OpenI has 8,967 bytes."""


class DatasetError(Exception):
    """A dataset that cannot be read at all; the message says what to do."""


class SourceRecord(NamedTuple):
    """One study of the source: its split and the key that the reader finds it by.

    patient_id: None where the source does not say whose study it is before it is read.
    split_of_patient: the split of the patient's first study, where that is another one; readers
        leave it out. Such a record is rejected: no patient may be in two splits.
    """

    split: str
    key: str
    patient_id: str | None = None
    split_of_patient: str | None = None


@dataclass(frozen=True)
class StudyImage:
    """An image of a study; shape and spacing are None when the file is not there to be read."""

    image_id: str
    uri: str
    modality: str | None = None
    view: str | None = None
    shape: tuple[int, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Study:
    """A report and its images, as a row of the `studies` table holds them.

    gold: what people marked in it.
    left_out: images and marks that the source names and that cannot be used, and objects beside
        the slices of a series; the study is read without them.
    """

    study_id: str
    findings: str | None
    impression: str | None
    source: str
    patient_id: str | None = None
    images: tuple[StudyImage, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    gold: Gold | None = None
    left_out: tuple[Reject, ...] = ()

    def row(self, dataset: str, split: str) -> dict[str, Any]:
        """The row of the `studies` table."""
        return {
            "dataset": dataset,
            "split": split,
            "study_id": self.study_id,
            "patient_id": self.patient_id,
            "images": [vars(image) for image in self.images],
            "findings": self.findings,
            "impression": self.impression,
            "labels": [{"name": name, "value": value} for name, value in self.labels.items()],
            "source": self.source,
        }


@runtime_checkable
class DatasetReader(Protocol):
    """Reads one dataset from its own files."""

    def records(self) -> Iterator[SourceRecord]:
        """Every record of the source, in a fixed order, one at a time; no image is opened.

        Raises:
            DatasetError: if the source is missing, damaged or not this dataset: no work is done.
        """
        ...

    def fingerprint(self) -> str:
        """Changes when the source's content does; cheap enough for every run."""
        ...

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each record, or why it cannot be used, in order."""
        ...


@runtime_checkable
class FindsFiles(Protocol):
    """A reader of downloads that may lie in several places, or come in several releases."""

    def found(self) -> Sequence[str]:
        """What is read from where, and which release it is taken for: a few words each.

        Raises:
            DatasetError: as `records`.
        """
        ...


@runtime_checkable
class CountsFiles(Protocol):
    """A reader that knows more of its files than how many studies and patients there are."""

    def census(self) -> Mapping[str, int]:
        """Counts by the names that `counts` of a declaration has; no image is opened.

        Raises:
            DatasetError: as `records`.
        """
        ...


@runtime_checkable
class NamesImages(Protocol):
    """A reader that knows where each image is, or would be, before it reads a study."""

    def image_paths(self) -> Iterator[Path]:
        """The path of each image that the source names, one at a time; none is opened.

        Raises:
            DatasetError: as `records`.
        """
        ...
