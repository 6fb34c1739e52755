"""Cases of a segmentation data set: images, and the files of masks that people drew on them.

The readers of the families say which files belong to a case; all else is the same for them. Sets of
masks have some thousand cases, whose names and paths are in memory at once.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from storage.datasets.case_masks import Canvas, MaskFile, MasksError, gold_masks
from storage.datasets.declaration import Declaration
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.gold import Gold
from storage.images.loading import describe_image
from storage.images.types import ImageDescription, ImageError
from storage.images.volume_files import split_channel
from storage.paths import listing_digest
from storage.rejects import Reject


class ImageFile(NamedTuple):
    """An image of a case, as `load_volume` or `load_radiograph` takes its path.

    modality: as DICOM names it.
    view: of a radiograph.
    own_grid: whether it need not be on the grid of the case's masks, as a series that is not
        registered to it.
    """

    image_id: str
    path: Path
    modality: str
    view: str | None = None
    own_grid: bool = False


@dataclass(frozen=True)
class Case:
    """The files of one case.

    images: the first is the one that the masks lie on; the others share its grid, unless they have
        one of their own.
    masks: of any number of labels each.
    problem: why the case is no study: a reason code and a sentence.
    """

    key: str
    split: str
    images: tuple[ImageFile, ...] = ()
    masks: tuple[MaskFile, ...] = ()
    patient_id: str | None = None
    problem: tuple[str, str] | None = None

    def paths(self) -> Iterator[Path]:
        """Of all files."""
        yield from (image.path for image in self.images)
        yield from (mask.path for mask in self.masks)


class CasesReader(ABC):
    """A reader of a segmentation data set; a family says how its cases are found."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self.declaration = declaration
        self.source = source

    @abstractmethod
    def cases(self) -> Iterator[Case]:
        """The cases in a fixed order; only names of files are looked at.

        Raises:
            DatasetError: if the data set cannot be read at all.
        """

    @abstractmethod
    def labels(self) -> frozenset[str]:
        """What masks may be called, so that each has its line in `targets` of the declaration."""

    def tables(self) -> tuple[Path, ...]:
        """Files beside images and masks that the reader reads."""
        return ()

    def records(self) -> Iterator[SourceRecord]:
        """A record per case."""
        for case in self._cases.values():
            yield SourceRecord(case.split, case.key, case.patient_id)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and tables, and of the paths, sizes and times of all files."""
        digest = hashlib.sha256(self.declaration.file.read_bytes())
        for table in self.tables():
            with table.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        cases = self._cases.values()
        paths = (path for case in cases for path in case.paths())
        digest.update(listing_digest(paths).encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The study of each record; a case without image or masks that can be used is rejected."""
        for record in records:
            case = self._cases[record.key]
            if case.problem is not None:
                yield Reject(case.key, case.key, *case.problem)
                continue
            try:
                yield self._study(case)
            except ImageError as error:
                yield Reject(case.key, case.key, error.reason, error.detail)
            except MasksError as error:
                yield Reject(case.key, case.key, error.reason, str(error))

    def census(self) -> Mapping[str, int]:
        """How many images and files of masks there are; a class that is not there has none."""
        cases = self._cases.values()
        return {
            "images": sum(len(case.images) for case in cases),
            "mask files": sum(mask.path.exists() for case in cases for mask in case.masks),
        }

    def image_paths(self) -> Iterator[Path]:
        """The images' files and folders."""
        for case in self._cases.values():
            for image in case.images:
                yield split_channel(image.path)[0]

    @cached_property
    def _cases(self) -> dict[str, Case]:
        found: dict[str, Case] = {}
        for case in self.cases():
            if (other := found.get(case.key)) is not None:
                detail = f"{_place(other)} and {_place(case)} are both called {case.key}"
                case = Case(case.key, other.split, problem=("case_ambiguous", detail))  # noqa: PLW2901
            found[case.key] = case
        if not found:
            raise DatasetError(
                f"{self.source} holds no cases of {self.declaration.name}: expected "
                + (
                    ", ".join(file.path for file in self.declaration.files)
                    or "its images and masks"
                )
                + f"; `vividmed doctor {self.declaration.name} FOLDER` looks for them"
            )
        if unknown := sorted(self.labels() - self.declaration.targets.keys()):
            raise DatasetError(
                f"{self.declaration.file}: targets: {', '.join(unknown)} "
                f"{'is' if len(unknown) == 1 else 'are'} missing: give each label a target of the "
                "taxonomy, or null"
            )
        return found

    def _study(self, case: Case) -> Study:
        first = case.images[0]
        described = describe_image(first.path, first.modality)
        canvas = Canvas(first.image_id, first.path, described)
        masks, left_out = gold_masks(case.masks, canvas, self.declaration.targets)
        images, apart = _usable_images(case, canvas)
        return Study(
            study_id=case.key,
            findings=None,
            impression=None,
            source=self.declaration.source,
            patient_id=case.patient_id,
            images=images,
            gold=Gold(masks=tuple(masks)),
            left_out=(
                *apart,
                *(Reject(case.key, what, reason, said) for what, reason, said in left_out),
            ),
        )


def _usable_images(case: Case, canvas: Canvas) -> tuple[tuple[StudyImage, ...], list[Reject]]:
    """The image that the masks lie on, and the others; one that cannot be used is left out."""
    images = [_image(case.images[0], canvas.described)]
    apart: list[Reject] = []
    for file in case.images[1:]:
        try:
            said = describe_image(file.path, file.modality)
        except ImageError as error:
            apart.append(Reject(case.key, file.image_id, error.reason, error.detail, file.image_id))
            continue
        differs = None if file.own_grid else canvas.differs(said.shape, said.affine)
        if differs:
            detail = f"{file.path.name} is not on the grid of {canvas.path.name}: {differs}"
            apart.append(Reject(case.key, file.image_id, "grids_differ", detail, file.image_id))
        else:
            images.append(_image(file, said))
    return tuple(images), apart


def _image(file: ImageFile, said: ImageDescription) -> StudyImage:
    view = file.view or said.view
    return StudyImage(
        file.image_id, str(file.path), file.modality, view, said.shape, said.spacing_mm
    )


def _place(case: Case) -> str:
    return str(next(case.paths(), "another case"))
