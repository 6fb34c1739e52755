"""The family `nnunet`: raw data sets of nnU-Net v1 and v2, and of the Medical Decathlon (MSD).

Format: documentation/dataset_format.md of MIC-DKFZ/nnUNet. `dataset.json` names channels and
labels: v2 as name to value, or to several values (regions); v1 and MSD as value to name. An MSD
file of several channels has a fourth axis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from storage.datasets.case_masks import MaskFile
from storage.datasets.cases import Case, CasesReader, ImageFile
from storage.datasets.declaration import Declaration, checked
from storage.datasets.path_patterns import find
from storage.datasets.reader import DatasetError
from storage.images.volume_files import with_channel
from storage.paths import OutsideError, path_below

DATASET = "dataset.json"
BACKGROUND = "background"
IGNORE = "ignore"
"""The label of voxels that nobody labelled; stored as it is, without a target."""

_LARGEST = 64 << 20  # bytes of dataset.json; with a path for each of 100,000 cases it has 20 MB


class Layout(BaseModel):
    """What `dataset.json` does not say.

    folder: that holds it, where it is not the data set's folder itself; `*` as in patterns.
    modalities: DICOM's name of the modality of each channel; all are that of the declaration if
        left out.
    patient: a pattern of `re` whose first group in a case's name is the patient.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = None
    modalities: Mapping[str, str] = {}
    patient: str | None = None


class NnUnetReader(CasesReader):
    """Reads the training cases; test cases have no labels."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        super().__init__(declaration, source)
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        if not self._layout.modalities and len(declaration.modalities) != 1:
            raise DatasetError(
                f"{declaration.file}: modalities: name the one modality of all channels, or give "
                "that of each in layout.modalities"
            )

    def labels(self) -> frozenset[str]:
        """Those of dataset.json, without the background and the voxels to ignore."""
        return frozenset(self._values) - {IGNORE}

    def tables(self) -> tuple[Path, ...]:
        """dataset.json."""
        return (self._folder / DATASET,)

    def cases(self) -> Iterator[Case]:
        """By name: those that dataset.json lists and those whose files are there."""
        for key, (label, images) in sorted(self._listed().items()):
            yield self._case(key, label, images)

    def _case(self, key: str, label: str, images: list[str]) -> Case:
        split = self.declaration.splits[0]
        try:
            mask = path_below(self._folder, label)
            paths = [path_below(self._folder, image) for image in images]
        except OutsideError as error:
            return Case(key, split, problem=("path_outside_source", str(error)))
        channels = list(self._channels.items())
        if len(paths) == 1 < len(channels):
            paths = [with_channel(paths[0], at) for at in range(len(channels))]
            there = paths[0].with_name(paths[0].name.rpartition("#")[0]).exists()
        else:
            there = len(paths) == len(channels) and all(path.exists() for path in paths)
        several = len(channels) > 1
        files = tuple(
            ImageFile(f"{key}_{name}" if several else key, path, modality)
            for (name, modality), path in zip(channels, paths, strict=False)
        )
        problem = None
        if not there:
            names = ", ".join(path.name for path in paths)
            detail = f"{key} has not the {len(channels)} channels of {DATASET}: looked for {names}"
            problem = ("image_not_found", detail)
        elif not mask.exists():
            problem = ("mask_not_found", f"{key} has no label file {label}")
        patient = re.match(self._layout.patient, key) if self._layout.patient else None
        masks = (MaskFile(mask, self._values),)
        return Case(key, split, files, masks, patient[1] if patient else None, problem)

    def _listed(self) -> dict[str, tuple[str, list[str]]]:
        """The path of the label and those of the channels by case, below the folder."""
        try:
            return self._listed_or_found()
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{self._folder / DATASET}: dataset or training: a case without image or label "
                f"({error})"
            ) from error

    def _listed_or_found(self) -> dict[str, tuple[str, list[str]]]:
        if isinstance(given := self._json.get("dataset"), dict):
            return {
                str(key): (str(entry["label"]), [str(image) for image in entry["images"]])
                for key, entry in given.items()
            }
        ending = str(self._json.get("file_ending", ".nii.gz"))
        keys = {known["case"] for _, known in find(self._folder, f"labelsTr/{{case}}{ending}")}
        for _, known in find(self._folder, f"imagesTr/{{file}}{ending}"):
            keys.add(self._key(known["file"]))
        for entry in self._json.get("training") or ():
            keys.add(str(entry["label"]).rpartition("/")[2].removesuffix(ending))
        return {key: (f"labelsTr/{key}{ending}", self._images(key, ending)) for key in keys}

    def _key(self, file: str) -> str:
        """The case of an image's file: MSD's has no channel in its name."""
        case, underscore, channel = file.rpartition("_")
        is_channel = underscore and re.fullmatch(r"\d{4}", channel)
        with_it = is_channel and int(channel) < len(self._channels) and not self._is_msd
        return case if with_it else file

    def _images(self, key: str, ending: str) -> list[str]:
        if self._is_msd:
            return [f"imagesTr/{key}{ending}"]
        return [f"imagesTr/{key}_{at:04}{ending}" for at in range(len(self._channels))]

    @cached_property
    def _is_msd(self) -> bool:
        """Whether images are named as their labels are: dataset.json of nnU-Net v1 says so too."""
        ending = str(self._json.get("file_ending", ".nii.gz"))
        labels = (known["case"] for _, known in find(self._folder, f"labelsTr/{{case}}{ending}"))
        images = {known["case"] for _, known in find(self._folder, f"imagesTr/{{case}}{ending}")}
        return "channel_names" not in self._json and any(label in images for label in labels)

    @cached_property
    def _channels(self) -> dict[str, str]:
        """The modality of each channel by name, in their order."""
        named = self._json.get("channel_names") or self._json.get("modality")
        if not isinstance(named, dict) or not named:
            raise DatasetError(f"{self._folder / DATASET} has no channel_names and no modality")
        names = [str(named[at]) for at in sorted(named, key=int)]
        known = self._layout.modalities or dict.fromkeys(names, self.declaration.modalities[0])
        if unknown := sorted(set(names) - known.keys()):
            raise DatasetError(
                f"{self.declaration.file}: layout.modalities: {', '.join(unknown)} of "
                f"{DATASET} is missing: give DICOM's name of its modality"
            )
        twice = len(set(names)) < len(names)
        return {f"{at}_{n}" if twice else n: known[n] for at, n in enumerate(names)}

    @cached_property
    def _values(self) -> dict[str, tuple[int, ...]]:
        """The values of each label but the background."""
        named = self._json.get("labels")
        if not isinstance(named, dict) or not named:
            raise DatasetError(f"{self._folder / DATASET} has no labels")
        try:
            if all(str(key).isdigit() for key in named):
                named = {str(name): int(value) for value, name in named.items()}
            found = {str(name): _numbers(value) for name, value in named.items()}
        except (TypeError, ValueError) as error:
            raise DatasetError(f"{self._folder / DATASET}: labels: {error}") from error
        return {name: values for name, values in found.items() if values != (0,)}

    @cached_property
    def _json(self) -> Mapping[str, Any]:
        path = self._folder / DATASET
        try:
            if path.stat().st_size > _LARGEST:
                raise DatasetError(f"{path} has more than {_LARGEST:,} bytes")
            said = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        if not isinstance(said, dict):
            raise DatasetError(f"{path} holds no JSON object")
        return said

    @cached_property
    def _folder(self) -> Path:
        if (self.source / DATASET).is_file():
            return self.source
        folders = [path for path, _ in find(self.source, self._layout.folder or "*")]
        holding = [folder for folder in folders if (folder / DATASET).is_file()]
        if len(holding) != 1:
            expected = f"{self._layout.folder}/{DATASET}" if self._layout.folder else DATASET
            there = f"{len(holding)} folders with one" if holding else "no such file"
            raise DatasetError(f"{self.source}: expected {expected}, and found {there}")
        return holding[0]


def _numbers(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(int(number) for number in values)
