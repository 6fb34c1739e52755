"""The family `masks`: images with files of masks, in whatever folders the data set keeps them.

`layout` has one entry in `parts` for each arrangement of files, such as the CT and the MR of one
data set. Patterns of paths are those of `storage.datasets.path_patterns`; `{case}` names the case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from storage.datasets.case_masks import MaskFile
from storage.datasets.cases import Case, CasesReader, ImageFile
from storage.datasets.declaration import Declaration, checked
from storage.datasets.path_patterns import Captured, check_pattern, find, names_in
from storage.datasets.reader import DatasetError
from storage.datasets.rows import TextForm, read_rows
from storage.records import Laterality


def _numbers(said: object) -> object:
    if isinstance(said, int):
        return (said,)
    if isinstance(said, str) and (ends := re.fullmatch(r"(\d+)-(\d+)", said)):
        return tuple(range(int(ends[1]), int(ends[2]) + 1))
    return said


Pattern = Annotated[str, AfterValidator(check_pattern)]
Values = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
"""One value, several, or a range such as "1-10", both ends included."""

CLASS = "class"
"""The name in a pattern that stands for a label: one file each."""


class _Layout(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Layout):
    """An image of a case.

    path: its pattern.
    modality: as DICOM names it.
    name: tells the images of a case apart; left out if there is one.
    view: of a radiograph.
    own_grid: whether it has a grid of its own, on which there are no masks.
    """

    path: Pattern
    modality: str
    name: str | None = None
    view: str | None = None
    own_grid: bool = False


class Masks(_Layout):
    """Files of masks: what their values mean is one of `values`, `rest`, or `{class}` in the path.

    values: the value, or values, of each label.
    rest: the label of all other values above 0; of the only one, a binary mask.
    instances: whether each value of `rest` is an instance.
    packed: whether bit i of a value, not the value i, is a label: masks overlap.
    optional: whether cases without the file are studies.
    misplaced: cases (a pattern of `re`) whose mask has a wrong geometry in its header.
    part: whether a mask may lie on a part of the image's grid.
    stack: the path is a folder with one picture a slice of the DICOM series, of these names.
    classes: of `{class}`; all labels of the data set if left out.
    """

    path: Pattern
    values: Mapping[str, Values] = {}
    rest: str | None = None
    instances: bool = False
    packed: bool = False
    optional: bool = False
    misplaced: str | None = None
    part: bool = False
    stack: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def by_class(self) -> bool:
        """Whether each label has a file of its own."""
        return CLASS in names_in(self.path)

    @property
    def folder(self) -> str:
        """The pattern of what a case has of it: a file, or the folder of one file a class."""
        pieces = takewhile(lambda piece: CLASS not in names_in(piece), self.path.split("/"))
        return "/".join(pieces) if self.by_class else self.path

    @model_validator(mode="after")
    def _says_what_values_mean(self) -> Self:
        if self.by_class == bool(self.values or self.rest):
            raise ValueError("say what its values mean by `values` or `rest`, or have `{class}`")
        return self

    def files(self, path: Path, key: str, sides: Mapping[str, Laterality]) -> MaskFile:
        """The file of a case that is not of one class."""
        return self._file(path, key, sides, self.values, self.rest, self.optional)

    def of_class(
        self, path: Path, key: str, sides: Mapping[str, Laterality], label: str
    ) -> MaskFile:
        """The file of a class."""
        return self._file(path, key, sides, {}, label, optional=True)

    def _file(
        self,
        path: Path,
        key: str,
        sides: Mapping[str, Laterality],
        values: Mapping[str, tuple[int, ...]],
        rest: str | None,
        optional: bool,
    ) -> MaskFile:
        return MaskFile(
            path,
            values,
            rest,
            self.instances,
            self.packed,
            misplaced=self.misplaced is not None and bool(re.fullmatch(self.misplaced, key)),
            part=self.part,
            stacked=self.stack,
            sides=sides,
            optional=optional,
        )


class Part(_Layout):
    """One arrangement of files.

    split: of all its cases, unless the path or a table says it.
    images: the first is the one that the masks lie on.
    download: what else has to be downloaded for its images, if they are not its own.
    key: how the case's study is called, made of the names in the patterns.
    patient: how its patient is called, likewise; `{patient}` of the path if left out.
    exclude: cases (a pattern of `re`) that the owners have withdrawn.
    """

    images: tuple[Image, ...] = Field(min_length=1)
    masks: tuple[Masks, ...] = Field(min_length=1)
    split: str | None = None
    download: str | None = None
    key: str = "{case}"
    patient: str | None = None
    exclude: str | None = None


class SplitTable(_Layout):
    """A table that says the split of cases.

    key: the column with the case's name, or with text in which `form`, a pattern of `re`, finds
        it as its first group.
    split: the split of all its cases, or None: what stands in `column`.
    separator: of a CSV.
    """

    table: str
    key: str
    form: str | None = None
    split: str | None = None
    column: str | None = None
    separator: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.split is None) == (self.column is None):
            raise ValueError("give `split`, or the `column` that holds it")
        return self


class Layout(_Layout):
    """Where the files are.

    splits: what the data set calls a split, to one of `splits`.
    split_tables: see there.
    sides: the side that a label names where its target does not.
    """

    parts: tuple[Part, ...] = Field(min_length=1)
    splits: Mapping[str, str] = {}
    split_tables: tuple[SplitTable, ...] = ()
    sides: Mapping[str, Laterality] = {}


class MasksReader(CasesReader):
    """Finds the cases of the layout's parts by the names of their files."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        super().__init__(declaration, source)
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")

    def labels(self) -> frozenset[str]:
        """Those that the layout names."""
        masks = [mask for part in self._layout.parts for mask in part.masks]
        named = (name for mask in masks for name in (*mask.values, *mask.classes, mask.rest))
        return frozenset(name for name in named if name)

    def tables(self) -> tuple[Path, ...]:
        """The tables of splits."""
        return tuple(self.source / table.table for table in self._layout.split_tables)

    def cases(self) -> Iterator[Case]:
        """The cases of each part: by their images, then those that have masks alone."""
        for part in self._layout.parts:
            excluded = re.compile(part.exclude) if part.exclude else None
            images: dict[str, list[tuple[Path, Captured]]] = {}
            for path, known in find(self.source, part.images[0].path):
                images.setdefault(part.key.format_map(known), []).append((path, known))
            alone = dict(self._with_masks_alone(part, images))
            for key, known in alone.items():
                if not (excluded and excluded.fullmatch(key)):
                    yield self._without_image(part, key, known)
            for key, found in images.items():
                if excluded and excluded.fullmatch(key):
                    continue
                for path, known in found:
                    yield self._case(part, key, path, known)

    def _with_masks_alone(
        self, part: Part, images: Mapping[str, object]
    ) -> Iterator[tuple[str, Captured]]:
        """Cases of which there are masks and no image, with the first file of masks."""
        for masks in part.masks:
            if masks.stack:
                continue  # none of its files belongs to a case alone
            for path, known in find(self.source, masks.folder):
                if known.keys() >= set(names_in(part.key)):
                    key = part.key.format_map(known)
                    if key not in images:
                        yield key, {**known, "": str(path)}

    def _without_image(self, part: Part, key: str, known: Captured) -> Case:
        of = f": its image is part of {part.download}" if part.download else ""
        detail = f"{known['']} has no image {part.images[0].path}{of}"
        split = self._split(part, key, known)
        known_split = split if split in self.declaration.splits else self.declaration.splits[0]
        return Case(key, known_split, problem=("image_not_found", detail))

    def _case(self, part: Part, key: str, path: Path, known: Captured) -> Case:
        split = self._split(part, key, known)
        if split not in self.declaration.splits:
            detail = f"{path.name} is not in a split of {', '.join(self.declaration.splits)}: " + (
                f"the data set's files say {split!r}" if split else "no file says which"
            )
            return Case(key, self.declaration.splits[0], problem=("split_unknown", detail))
        images = [self._image(part.images[0], key, path)]
        for image in part.images[1:]:
            found = next((path for path, _ in find(self.source, image.path, known)), None)
            if found is not None:
                images.append(self._image(image, key, found))
        files = [file for masks in part.masks for file in self._files(masks, key, known)]
        problem = None
        if not any(file.path.exists() for file in files):
            detail = f"{path} has no masks {part.masks[0].path}"
            problem = ("mask_not_found", detail)
        patient = part.patient.format_map(known) if part.patient else known.get("patient")
        return Case(key, split, tuple(images), tuple(files), patient, problem)

    def _image(self, image: Image, key: str, path: Path) -> ImageFile:
        image_id = f"{key}_{image.name}" if image.name else key
        return ImageFile(image_id, path, image.modality, image.view, image.own_grid)

    def _files(self, masks: Masks, key: str, known: Captured) -> Iterator[MaskFile]:
        """The files of a case's masks; one that is not there has the path that it should have."""
        sides = self._layout.sides
        if not masks.by_class:
            found = [path for path, _ in find(self.source, masks.path, known)]
            for path in found or [self.source / _said(masks.path, known)]:
                yield masks.files(path, key, sides)
            return
        classes = masks.classes or tuple(self.declaration.targets)
        paths = {names[CLASS]: path for path, names in find(self.source, masks.path, known)}
        if not paths:
            return
        folder = next(iter(paths.values()))
        for label in classes:
            expected = folder.with_name(_said(Path(masks.path).name, {**known, CLASS: label}))
            yield masks.of_class(paths.pop(label, expected), key, sides, label)
        for path in paths.values():  # of no class that the declaration knows
            yield MaskFile(path, optional=True)

    def _split(self, part: Part, key: str, known: Captured) -> str:
        if self._layout.split_tables:
            said = self._split_of.get(known.get("case", key), "")
        else:
            said = known.get("split") or part.split or self.declaration.splits[0]
        return self._layout.splits.get(said, said)

    @cached_property
    def _split_of(self) -> dict[str, str]:
        """The split of each case that a table names."""
        found: dict[str, str] = {}
        for table in self._layout.split_tables:
            path = self.source / table.table
            for row in read_rows(path, TextForm(separator=table.separator)):
                missing = {table.key, table.column or table.key} - row.cells.keys()
                if missing and not row.fault:
                    raise DatasetError(f"{path} has no column {', '.join(sorted(missing))}")
                if row.fault:
                    continue
                case = row.cells[table.key]
                if table.form and (inside := re.fullmatch(table.form, case)):
                    case = inside[1]
                found[case] = table.split or row.cells[table.column or ""]
        return found


def _said(pattern: str, known: Captured) -> str:
    """A pattern with what is known put into it, for a sentence."""
    return re.sub(r"\{(\w+)(:[^}]*)?\}", lambda name: known.get(name[1], name[0]), pattern)
