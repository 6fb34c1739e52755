"""The showcase: six real images with short reports written for this project.

Images and their licences: `storage/inputs.yaml`. Reports: `showcase.yaml`, `source: authored`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from storage.imaging.projection import project, write_radiograph_dicom
from storage.inputs import InputError, artefacts, home, input_path
from storage.rejects import Reject

DECLARATION = Path(__file__).with_suffix(".yaml")
PROJECTION = "projection of "


class ShowcaseReader:
    """Reads `showcase.yaml` and the images that it names."""

    def records(self) -> list[SourceRecord]:
        """Every study, in the order of the file."""
        return [SourceRecord("test", study_id) for study_id in self._studies]

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and of the artefacts that the images come from."""
        digest = hashlib.sha256(DECLARATION.read_bytes())
        for name, artefact in sorted(artefacts().items()):
            digest.update(f"{name} {artefact.sha256}\n".encode())
        return digest.hexdigest()

    def read(self, records: Sequence[SourceRecord]) -> Iterator[Study | Reject]:
        """The studies; one whose image cannot be read at all is rejected."""
        for record in records:
            entry = self._studies[record.key]
            try:
                path = _image_file(entry["image"])
                description = describe_image(path)
            except (ImageError, InputError) as error:
                reason = error.reason if isinstance(error, ImageError) else "input_missing"
                yield Reject(record.key, entry["image"], reason, str(error))
                continue
            yield Study(
                study_id=record.key,
                findings=entry["findings"],
                impression=entry["impression"],
                source="authored",
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
    def _studies(self) -> dict[str, dict[str, Any]]:
        try:
            entries = yaml.safe_load(DECLARATION.read_text())["studies"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise DatasetError(f"{DECLARATION.name} is not a list of studies: {error}") from error
        return {entry["study_id"]: entry for entry in entries}


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
