"""The showcase: six real images with short reports written for this project.

Images and their licences: `storage/inputs.yaml`. Reports: the layout of `showcase.yaml`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from storage.datasets.declaration import Declaration, checked
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from storage.imaging.projection import project, write_radiograph_dicom
from storage.inputs import InputError, artefacts, home, input_path
from storage.rejects import Reject

PROJECTION = "projection of "


class Entry(BaseModel):
    """One study of the showcase.

    image: a member of the cached inputs, or `projection of` one, a CT.
    note: for people who read the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study_id: str
    image: str
    findings: str
    impression: str
    note: str | None = None


class Layout(BaseModel):
    """The studies, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    studies: tuple[Entry, ...]

    @field_validator("studies")
    @classmethod
    def _one_id_each(cls, value: tuple[Entry, ...]) -> tuple[Entry, ...]:
        for study_id, times in Counter(entry.study_id for entry in value).items():
            if times > 1:
                raise ValueError(f"two studies have the id {study_id}")
        return value


class ShowcaseReader:
    """Reads the studies of the declaration and the images that they name."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        if source != home() / "inputs":
            raise DatasetError(f"{declaration.name} is read from the fetched inputs: no --source")
        self._declaration = declaration

    def records(self) -> Iterator[SourceRecord]:
        """Every study, in the order of the file."""
        split = self._declaration.splits[0]
        return (SourceRecord(split, study_id) for study_id in self._studies)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and of the artefacts that the images come from."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for name, artefact in sorted(artefacts().items()):
            digest.update(f"{name} {artefact.sha256}\n".encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The studies; one whose image cannot be read at all is rejected."""
        for record in records:
            entry = self._studies[record.key]
            try:
                path = _image_file(entry.image)
                description = describe_image(path)
            except (ImageError, InputError) as error:
                reason = error.reason if isinstance(error, ImageError) else "input_missing"
                yield Reject(record.key, entry.image, reason, str(error))
                continue
            yield Study(
                study_id=record.key,
                findings=entry.findings,
                impression=entry.impression,
                source=self._declaration.source,
                images=(
                    StudyImage(
                        image_id=record.key,
                        uri=str(path),
                        modality=description.modality,
                        view=description.view,
                        shape=description.shape,
                        spacing_mm=description.spacing_mm,
                    ),
                ),
            )

    @cached_property
    def _studies(self) -> dict[str, Entry]:
        declared = self._declaration
        layout = checked(Layout, declared.layout, declared.file, "layout")
        return {entry.study_id: entry for entry in layout.studies}


def _image_file(image: str) -> Path:
    """The cached file, or the radiograph projected from a cached CT, made on first use."""
    if not image.startswith(PROJECTION):
        return input_path(image)
    source = image.removeprefix(PROJECTION)
    target = home() / "derived" / "showcase" / source.replace("/", "-").replace(".nii.gz", ".dcm")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        radiograph = project(load_volume(input_path(source)))
        write_radiograph_dicom(radiograph, target, f"projected from {source}")
    return target
