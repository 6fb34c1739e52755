"""The family `vqa`: questions about images with their answers.

A study is an image with all its questions of a split, in the order of the file: one conversation.
There are no reports. The files are JSON lists or lines of text; the largest has some 14,000
questions and is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.datasets.declaration import Declaration, checked
from storage.datasets.json_files import read_json
from storage.datasets.marks import described
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.gold import Gold, Question
from storage.images.vocabulary import NOT_STATED
from storage.paths import OutsideError, listing_digest, path_below
from storage.rejects import Reject

_STRICT = ConfigDict(extra="forbid", frozen=True)

FIELDS = Literal[
    "image", "question", "answer", "question_type", "answer_type", "split", "modality", "language"
]
_OPTIONAL_PART = re.compile(r"\(([^()]*)\)")


class QuestionFile(BaseModel):
    """A file of questions.

    split: of its questions, unless `split` is among the layout's keys.
    path: its names in different releases.
    fields: of a text file, what stands between the separators, in order.
    images: where they are: `{image}` is the image's name in the file.
    alternatives: what separates answers each of which is right.
    optional_parts: whether parts of an answer in brackets may be left out.
    """

    model_config = _STRICT

    split: str
    path: Annotated[tuple[str, ...], Field(min_length=1)]
    images: str
    fields: tuple[FIELDS, ...] = ()
    alternatives: str | None = None
    optional_parts: bool = False


class Layout(BaseModel):
    """How the files are read.

    files: those of text have `fields`, the others are JSON lists of objects with `keys`.
    separator: of the fields of a line.
    keys: what holds each field of an object.
    splits: the beginning of what `split` holds, to the split; without a match, the file's own.
    languages: those that are read; others are left out, as they are another data set.
    modalities: what the set calls a modality, to DICOM's name.
    shared: whether an image has questions of several splits; the split is then part of study ids.
    """

    model_config = _STRICT

    files: Annotated[tuple[QuestionFile, ...], Field(min_length=1)]
    separator: str = "|"
    keys: Mapping[FIELDS, str] = {}
    splits: Mapping[str, str] = {}
    languages: tuple[str, ...] = ()
    modalities: Mapping[str, str] = {}
    shared: bool = False

    @model_validator(mode="after")
    def _says_what_is_where(self) -> Layout:
        for named in (self.keys, *(file.fields for file in self.files if file.fields)):
            lacks = {"image", "question", "answer"} - set(named)
            if lacks and (named or any(not file.fields for file in self.files)):
                raise ValueError(f"say where to find {', '.join(sorted(lacks))}")
        return self


class _Item(NamedTuple):
    """A question as its file has it: where it stands, its file, and its fields as text."""

    where: str
    file: QuestionFile
    fields: Mapping[str, str]


class VqaReader:
    """Reads the files of questions once; an image is opened by nothing but its header."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._layout = checked(Layout, declaration.layout, declaration.file, "layout")
        self._source = source

    def records(self) -> Iterator[SourceRecord]:
        """A record an image and split, and one a question that does not name its image."""
        return (SourceRecord(split, key) for split, key in self._conversations)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and files, and of the images' paths, sizes and times."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for _, path in self._files:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        paths = (self._path(items[0]) for items in self._conversations.values())
        digest.update(listing_digest(path for path in paths if path is not None).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many images and questions there are."""
        images = {items[0].fields.get("image") for items in self._conversations.values()}
        questions = sum(map(len, self._conversations.values()))
        return {"images": len(images), "questions": questions}

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The conversation about each image; an incomplete question is left out of it."""
        for record in records:
            yield self._study(record, self._conversations[record.split, record.key])

    def _study(self, record: SourceRecord, items: Sequence[_Item]) -> Study | Reject:
        first = items[0]
        if not first.fields.get("image"):
            return Reject(
                record.key, first.where, "question_incomplete", f"{first.where}: no image"
            )
        path = self._path(first)
        if path is None:
            detail = f"{first.where}: {first.fields['image'][:200]!r}"
            return Reject(record.key, first.where, "path_outside_source", detail)
        questions: list[Question] = []
        left_out: list[Reject] = []
        for item in items:
            question = self._question(item, len(questions), record.key)
            if question is not None:
                questions.append(question)
                continue
            detail = f"{item.where}: the question or its answer is missing"
            left_out.append(
                Reject(self._study_id(record), item.where, "question_incomplete", detail)
            )
        file = described(path)
        stated = self._layout.modalities.get(first.fields.get("modality", ""))
        of_file = file.modality if file and file.modality != NOT_STATED else None
        return Study(
            self._study_id(record),
            None,
            None,
            self._declaration.source,
            images=(
                StudyImage(
                    record.key, str(path), stated or of_file, None, file.shape if file else None
                ),
            ),
            gold=Gold(questions=tuple(questions)),
            left_out=tuple(left_out),
        )

    def _study_id(self, record: SourceRecord) -> str:
        return f"{record.key}-{record.split}" if self._layout.shared else record.key

    def _question(self, item: _Item, position: int, image_id: str) -> Question | None:
        fields = item.fields
        answers = tuple(answers_of(fields.get("answer", ""), item.file))
        if not fields.get("question") or not answers:
            return None
        return Question(
            image_id,
            position,
            fields["question"],
            answers,
            fields.get("question_type") or None,
            fields.get("answer_type") or None,
        )

    def _path(self, item: _Item) -> Path | None:
        try:
            name = item.file.images.replace("{image}", item.fields.get("image", ""))
            return path_below(self._source, name)
        except OutsideError:
            return None

    @cached_property
    def _conversations(self) -> dict[tuple[str, str], list[_Item]]:
        """The questions by split and image, each in the order of first mention."""
        found: dict[tuple[str, str], list[_Item]] = {}
        for file, path in self._files:
            items = _lines(file, path, self._layout) if file.fields else self._objects(file, path)
            for item in items:
                split = self._split(item)
                found.setdefault((split, _image_id(item)), []).append(item)
        if not found:
            raise DatasetError(f"{self._source} holds no questions")
        return found

    def _split(self, item: _Item) -> str:
        said = item.fields.get("split", "")
        begins = (split for start, split in self._layout.splits.items() if said.startswith(start))
        return next(begins, item.file.split)

    @cached_property
    def _files(self) -> list[tuple[QuestionFile, Path]]:
        found = []
        for file in self._layout.files:
            paths = [self._source / name for name in file.path]
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                names = " or ".join(file.path)
                raise DatasetError(
                    f"{self._source} has no {names}: give the folder as it was downloaded with "
                    "--source"
                )
            found.append((file, path))
        return found

    def _objects(self, file: QuestionFile, path: Path) -> Iterator[_Item]:
        for number, item in enumerate(read_json(path, list), start=1):
            where = f"{path.name} question {number}"
            if not isinstance(item, dict):
                yield _Item(where, file, {})
                continue
            fields: dict[str, str] = {
                field: _text(item.get(key)) for field, key in self._layout.keys.items()
            }
            if not self._layout.languages or fields.get("language") in self._layout.languages:
                yield _Item(where, file, fields)


def _lines(file: QuestionFile, path: Path, layout: Layout) -> Iterator[_Item]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        cells = [_text(cell) for cell in line.split(layout.separator)]
        complete = len(cells) == len(file.fields)
        cells = cells if complete else cells[:1]  # the image, so that its study tells of it
        yield _Item(where, file, dict(zip(file.fields, cells, strict=False)))


def answers_of(answer: str, file: QuestionFile) -> Iterator[str]:
    """Every form of an answer that counts as right, the fullest first.

    `axial#transverse` are two answers; in `(septic) emboli` the part in brackets may be left out.
    """
    seen: set[str] = set()
    for alternative in answer.split(file.alternatives) if file.alternatives else [answer]:
        forms = [alternative]
        if file.optional_parts:
            forms = [_OPTIONAL_PART.sub(r"\1", alternative), _OPTIONAL_PART.sub("", alternative)]
        for form in map(_text, forms):
            if form and form not in seen:
                seen.add(form)
                yield form


def _text(value: object) -> str:
    """A value as text with single spaces; answers may be numbers, and hold tabs."""
    if value is None:
        return ""
    return " ".join((value if isinstance(value, str) else json.dumps(value)).split())


def _image_id(item: _Item) -> str:
    """The image's name without its suffix; of one in a folder of its own, the folder's."""
    name = item.fields.get("image", "")
    if not name:
        return item.where
    folder, _, base = name.rpartition("/")
    return folder.replace("/", "-") or base.rpartition(".")[0] or base
