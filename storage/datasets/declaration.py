"""A data set is one declaration: a YAML file that says what it is and who reads it.

The file's name is the data set's name. `docs/extending.md` explains the keys with an example.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from storage.datasets.reader import DatasetError, DatasetReader
from storage.datasets.selection import RequiredSections, Rule, Selection, Source
from storage.inputs import artefacts, home

FAMILIES = {
    "boxes": ".boxes:BoxesReader",
    "masks": ".masks:MasksReader",
    "nnunet": ".nnunet:NnUnetReader",
    "table": ".table:TableReader",
    "vqa": ".vqa:VqaReader",
}
"""Readers that serve many data sets, by the name that a declaration calls them by."""

SUFFIXES = (".yaml", ".yml")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NAME_RULE = (
    "a name has letters, digits, `-`, `_` and `.` only, and begins with one of the first two"
)

_MESSAGES = {
    "extra_forbidden": "there is no such key",
    "missing": "is missing",
    "string_type": "must be text; put it in quotation marks",
}

Text = Annotated[str, Field(min_length=1)]
M = TypeVar("M", bound=BaseModel)


class ExpectedFile(BaseModel):
    """A file or folder of a download.

    path: below the data set's folder; `*` stands for any name, `**/` for any folder below, but for
        those of single patients.
    what: what is read from it, in a few words.
    optional: whether studies can be read without it; `what` then says what is lost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Text
    what: Text
    optional: bool = False


class PaperFigures(BaseModel):
    """What the paper kept of the data set, by split.

    unit: what it counts: studies, or pairs of an image and the report of its study.
    note: how its selection differs from the one declared here, or what is not known of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Literal["studies", "pairs"]
    kept: Mapping[str, Annotated[int, Field(ge=1, strict=True)]]
    note: str | None = None


class Declaration(BaseModel):
    """What a data set is, where its files are, and who reads them.

    name: the file's name without its suffix; part of every path in the store.
    file: where the declaration stands.
    splits: the splits that it defines; a reader gives no others.
    inputs: artefacts of `storage/inputs.yaml` that it is made of; empty when the user has to
        bring the files.
    folder: where its files are when the user names no folder: relative to the cache of the inputs
        if there are any, else to the declaration.
    images_apart: folders inside that one for images that are a download of their own, in the one
        form or the other; a user who has none of them is told so before a run.
    shard_size: reports per shard. One for volumes, so that a shard is some seconds of work.
    prompts: whose prompts a language model gets (`tasks/engines/llm/prompts`); by default those
        of the data set's own name, and the common ones where there are none.
    reader: a family, or `module:Class` of a class that takes this declaration and the folder.
    layout: what the reader must know of the files; its own model checks it.
    notes: what to know before it is used: doubts of its labels, and what of it is not read.
    homepage: where to get the data set and read its conditions.
    modalities: of its images, as DICOM names them: CR, DX, CT, MR, US.
    reports: whether its studies have reports to annotate; without them they are only ingested.
    targets: what the data set calls a thing, to the target of the taxonomy; null where the
        taxonomy has none. A name that is not listed is an error of the reader.
    files: what a download holds.
    counts: what the whole data set holds, as its owners say: `studies`, `studies.test`,
        `patients`, and what else its reader counts.
    sections: the sections that a report must have to be annotated, where the user does not say.
    selection: the rules that choose the studies, in their order.
    paper: what the paper kept of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    file: Path
    title: Text
    licence: Text
    access: Text
    citation: Text
    source: Text
    splits: Annotated[tuple[Text, ...], Field(min_length=1)]
    inputs: tuple[str, ...] = ()
    folder: str | None = None
    images_apart: tuple[str, ...] = ()
    shard_size: Annotated[int, Field(ge=1, strict=True)] = 1000
    prompts: str | None = None
    reader: Text
    layout: Mapping[str, Any] = {}
    notes: str | None = None
    homepage: str | None = None
    modalities: tuple[Text, ...] = ()
    reports: bool = True
    targets: Mapping[str, str | None] = {}
    files: tuple[ExpectedFile, ...] = ()
    counts: Mapping[str, Annotated[int, Field(ge=0, strict=True)]] = {}
    sections: RequiredSections = "both"
    selection: tuple[Rule, ...] = ()
    paper: PaperFigures | None = None

    @field_validator("name")
    @classmethod
    def _usable_in_paths(cls, value: str) -> str:
        if not is_usable_in_paths(value):
            raise ValueError(f"{NAME_RULE}: rename the file")
        return value

    @field_validator("splits")
    @classmethod
    def _splits_usable_in_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not is_usable_in_paths(name):
                raise ValueError(f"{name!r}: {NAME_RULE}; `layout.splits` can rename splits")
        return value

    @field_validator("images_apart", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("inputs")
    @classmethod
    def _declared_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = artefacts()
        for name in value:
            if name not in known:
                raise ValueError(f"there is no input {name}: choose from {', '.join(known)}")
        return value

    def open(self, folder: Path | None = None) -> DatasetReader:
        """The reader of the data set's files, from the user's folder or from its own.

        Raises:
            DatasetError: if there is no folder to read, or the layout is not what the reader takes.
        """
        return self._reader_class()(self, folder or self.own_folder())

    def select(self, folder: Path | None, require: RequiredSections | None) -> Selection:
        """The declared rules on the files of a folder; `require` is what the user asks for.

        Raises:
            DatasetError: if there is no folder to read.
        """
        return Selection(self.selection, Source(folder or self.own_folder(), require))

    def missing_images(self, folder: Path | None = None) -> Path | None:
        """The folder that images would have to be put into, if they are not there; else None."""
        if not self.images_apart:
            return None
        above = folder or self.own_folder()
        there = any((above / name).is_dir() for name in self.images_apart)
        return None if there else above / self.images_apart[0]

    def own_folder(self) -> Path:
        """Where the files are when the user names no folder.

        Raises:
            DatasetError: if the user has to name one, or the one declared is not there.
        """
        if self.inputs:
            return home() / "inputs" / (self.folder or "")
        if self.folder is None:
            raise DatasetError(
                f"{self.name} cannot be fetched ({self.access}): name the folder that holds your "
                "copy with --source"
            )
        folder = self.file.parent / Path(self.folder).expanduser()
        if not folder.is_dir():
            raise DatasetError(f"{self.file}: folder: there is no folder {folder}")
        return folder

    def _reader_class(self) -> Callable[[Declaration, Path], DatasetReader]:
        module, colon, name = FAMILIES.get(self.reader, self.reader).partition(":")
        where = f"{self.file}: reader = {self.reader!r}"
        if not (module and colon):
            raise DatasetError(f"{where}: give {', '.join(FAMILIES)} or `module:Class`")
        try:
            found = getattr(importlib.import_module(module, __package__), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise DatasetError(f"{where}: {error}") from error
        if not isinstance(found, type) or not issubclass(found, DatasetReader):
            raise DatasetError(
                f"{where}: it is no class with the methods records, fingerprint and read"
            )
        return found


def is_usable_in_paths(name: str) -> bool:
    """Whether a data set or a split can have this name, which is part of paths in the store."""
    return _NAME.fullmatch(name) is not None


def read_declaration(file: Path) -> Declaration:
    """The declaration in a file.

    Raises:
        DatasetError: one sentence per fault, with the key that it is about.
    """
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else str(error)
        raise DatasetError(f"{file} is not YAML ({where})") from error
    if not isinstance(raw, dict):
        raise DatasetError(f"{file} must hold keys with values, such as `title: My archive`")
    own = {"name": file.stem, "file": file.absolute()}
    if given := sorted(own.keys() & raw.keys()):
        raise DatasetError(f"{file}: {given[0]}: leave it out, the data set is named by its file")
    return checked(Declaration, raw | own, file)


def checked(model: type[M], values: Any, file: Path, *above: str) -> M:
    """Values of a declaration as a model; `above` are the keys that they stand below.

    Raises:
        DatasetError: one sentence per fault, with the key that it is about.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise DatasetError("; ".join(_sentences(error, model, file, above))) from error


def _sentences(
    error: ValidationError, model: type[BaseModel], file: Path, above: tuple[str, ...]
) -> Iterator[str]:
    for fault in error.errors():
        key = ".".join(str(step) for step in (*above, *fault["loc"]))
        said = _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
        message = said[0].lower() + said[1:]
        if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            near = get_close_matches(str(fault["loc"][0]), model.model_fields, 1)
            message += "".join(f", perhaps `{name}` was meant" for name in near)
        yield f"{file}: {key}: {message}" if key else f"{file}: {message}"
