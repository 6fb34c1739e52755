"""Chest ImaGenome (Wu et al., NeurIPS 2021): regions of MIMIC-CXR films, and findings in them.

Two readers. Gold: 1,000 images whose regions and findings people checked; `gold_dataset` has a
table of region boxes and one of attributes. Silver: 243,310 scene graphs that programs made, read
in place from `silver_dataset/scene_graph.zip`, with the set's own splits, which do not follow those
of MIMIC-CXR.

Boxes are taken in pixels of the original image, not in the frame of 224 × 224 beside them. A study
is one image. The sentences that attributes come from are its findings section, where there are any.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from storage.datasets.declaration import Declaration
from storage.datasets.image_files import ImageFiles
from storage.datasets.marks import (
    MarkError,
    box_on_image,
    described,
    number,
    report_of,
    target_of,
)
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.datasets.row_index import RowIndex
from storage.datasets.rows import Row
from storage.gold import Gold, GoldBox, GoldPhrase
from storage.paths import listing_digest
from storage.records import Assertion
from storage.rejects import Reject

GOLD_BOXES = "gold_dataset/gold_bbox_coordinate_annotations_1000images.csv"
GOLD_ATTRIBUTES = "gold_dataset/gold_object_attribute_with_coordinates.txt"
GRAPHS = "silver_dataset/scene_graph.zip"
SPLITS = {
    "train": "silver_dataset/splits/train.csv",
    "validate": "silver_dataset/splits/valid.csv",
    "test": "silver_dataset/splits/test.csv",
}
IMAGES = ("files/{image}.jpg", "files/*/*/*/{image}.jpg", "{image}.jpg")
"""Where a film of MIMIC-CXR-JPG may be, if it is below the folder at all."""

FINDINGS = ("anatomicalfinding", "disease", "tubesandlines", "device")
"""Categories of attributes that name a finding; others grade or compare one."""

ASSERTIONS: Mapping[str, Assertion] = {"yes": "present", "no": "absent"}
_CORNERS = ("original_x1", "original_y1", "original_x2", "original_y2")
_PER_REGION = "|"


class _Attribute(NamedTuple):
    """A finding that is stated of a region; words are those that state it, if given."""

    category: str
    relation: str
    label: str
    words: str


class _Region(NamedTuple):
    """A region's box in the original image: x_min, y_min, x_max, y_max as text."""

    name: str
    corners: Sequence[str]


class _SceneReader:
    """What both readers share: a study of regions and attributes."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._images = ImageFiles(source, IMAGES)

    def _study(
        self,
        record: SourceRecord,
        regions: Iterable[_Region],
        attributes: Iterable[_Attribute],
    ) -> Study:
        path = self._images.find(record.key)
        file = described(path)
        image = StudyImage(record.key, str(path), "DX", "FRONTAL", file.shape if file else None)
        left_out: list[Reject] = []
        boxes = tuple(self._boxes(image, regions, left_out))
        phrases = tuple(self._phrases(record.key, attributes, left_out))
        words = [phrase.phrase for phrase in phrases if phrase.phrase != phrase.label]
        return Study(
            record.key,
            report_of(words) or None,
            None,
            self._declaration.source,
            record.patient_id,
            (image,),
            gold=Gold(phrases, boxes),
            left_out=tuple(left_out),
        )

    def _boxes(
        self, image: StudyImage, regions: Iterable[_Region], left_out: list[Reject]
    ) -> Iterator[GoldBox]:
        for region in regions:
            try:
                target = target_of(self._declaration.targets, region.name)
                box, cut = box_on_image([number(corner) for corner in region.corners], image.shape)
            except MarkError as error:
                left_out.append(error.reject(image.image_id, f"region {region.name}"))
                continue
            if cut is not None:
                left_out.append(cut.reject(image.image_id, f"region {region.name}"))
            yield GoldBox(image.image_id, box, region.name, target)

    def _phrases(
        self, key: str, attributes: Iterable[_Attribute], left_out: list[Reject]
    ) -> Iterator[GoldPhrase]:
        """A phrase for each finding and the words that state it, whatever regions it is in."""
        stated = dict.fromkeys(a for a in attributes if a.category in FINDINGS)
        for position, attribute in enumerate(stated):
            assertion = ASSERTIONS.get(attribute.relation)
            try:
                if assertion is None:
                    raise MarkError("mark_unreadable", f"{attribute.relation!r} is no yes or no")
                target = target_of(self._declaration.targets, attribute.label)
            except MarkError as error:
                left_out.append(error.reject(key, f"attribute {attribute.label}"))
                continue
            yield GoldPhrase(
                str(position),
                attribute.words or attribute.label,
                attribute.label,
                target,
                assertion,
                key,
            )


class ChestImaGenomeReader(_SceneReader):
    """Reads the gold tables once, as streams."""

    def records(self) -> Iterator[SourceRecord]:
        """A record an image."""
        for key in self._keys():
            patient = next((r.cells.get("patient_id") for r in self._attributes.rows(key)), None)
            yield SourceRecord(self._declaration.splits[0], key, patient or None)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and tables, and of the images' state."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        for index in (self._regions, self._attributes):
            with index.table.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        digest.update(listing_digest(map(self._images.find, self._keys())).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many boxes of regions and rows of attributes there are."""
        return {"boxes": len(self._regions), "attributes": len(self._attributes)}

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The regions and findings of each image."""
        for record in records:
            rows = [*self._regions.rows(record.key), *self._attributes.rows(record.key)]
            if fault := next((row for row in rows if row.fault), None):
                detail = f"row {fault.number}: {fault.fault}"
                yield Reject(record.key, record.key, "row_malformed", detail)
                continue
            regions = (
                _Region(row.cells["bbox_name"], [row.cells[name] for name in _CORNERS])
                for row in self._regions.rows(record.key)
            )
            attributes = (
                _Attribute(
                    row.cells["categoryID"].lower(),
                    row.cells["context"].lower(),
                    row.cells["label_name"],
                    row.cells.get("sentence", ""),
                )
                for row in self._attributes.rows(record.key)
            )
            yield self._study(record, regions, attributes)

    def _keys(self) -> Iterator[str]:
        """Every image once: those with regions, then those with attributes alone."""
        yield from self._regions.keys()
        yield from (key for key in self._attributes.keys() if key not in self._regions)  # noqa: SIM118

    @cached_property
    def _regions(self) -> RowIndex:
        return RowIndex(self._source / GOLD_BOXES, _image, ["image_id", "bbox_name", *_CORNERS])

    @cached_property
    def _attributes(self) -> RowIndex:
        columns = ["image_id", "bbox", "context", "categoryID", "label_name"]
        optional = ["sentence", "patient_id"]
        return RowIndex(self._source / GOLD_ATTRIBUTES, _image, columns, optional)


class SilverSceneGraphReader(_SceneReader):
    """Reads scene graphs from their archive, one at a time; nothing is unpacked."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        super().__init__(declaration, source)
        self._lock = Lock()

    def records(self) -> Iterator[SourceRecord]:
        """A record an image that a split lists."""
        for split, index in self._splits.items():
            for key in index.keys():  # noqa: SIM118 it is no mapping
                patient = index.rows(key)[0].cells.get("subject_id")
                yield SourceRecord(split, key, patient or None)

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and splits; size and time of the archive and the images."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        digest.update(listing_digest([self._source / GRAPHS]).encode())
        for index in self._splits.values():
            digest.update(index.table.read_bytes())
            digest.update(listing_digest(map(self._images.find, index.keys())).encode())
        return digest.hexdigest()

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The regions and findings of each graph; one that is missing or damaged is rejected."""
        for record in records:
            name = f"scene_graph/{record.key}_SceneGraph.json"
            try:
                with self._lock:
                    graph = json.loads(self._archive.read(name))
                yield self._study(record, _regions(graph), _attributes(graph))
            except KeyError:
                detail = f"{GRAPHS} has no {name}"
                yield Reject(record.key, name, "file_unreadable", detail)
            except (ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
                yield Reject(record.key, name, "file_unreadable", f"{name}: {error}")

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        """The open archive; its directory takes some 500 bytes a graph in memory."""
        path = self._source / GRAPHS
        try:
            return zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{path} cannot be read: {error}: fetch it again") from error

    @cached_property
    def _splits(self) -> dict[str, RowIndex]:
        _ = self._archive  # a damaged archive is told of before any work
        optional = ["subject_id"]
        found = {
            split: RowIndex(self._source / name, "dicom_id", ["dicom_id"], optional)
            for split, name in SPLITS.items()
            if (self._source / name).is_file()
        }
        if not found:
            names = ", ".join(SPLITS.values())
            raise DatasetError(
                f"{self._source} has none of {names}: give the folder of the release"
            )
        return found


def _regions(graph: Mapping[str, Any]) -> Iterator[_Region]:
    for item in graph.get("objects") or ():
        yield _Region(str(item.get("bbox_name")), [str(item.get(name)) for name in _CORNERS])


def _attributes(graph: Mapping[str, Any]) -> Iterator[_Attribute]:
    """The attributes of every region: a list of `category|relation|finding` for each phrase."""
    for item in graph.get("attributes") or ():
        phrases = item.get("phrases") or ()
        for number_of_phrase, of_phrase in enumerate(item.get("attributes") or ()):
            words = phrases[number_of_phrase] if number_of_phrase < len(phrases) else ""
            for attribute in of_phrase:
                category, relation, label = ([*str(attribute).split(_PER_REGION), "", ""])[:3]
                yield _Attribute(
                    category.lower(), relation.lower(), label, " ".join(str(words).split())
                )


def _image(row: Row) -> str:
    name = row.cells.get("image_id", "").removesuffix(".dcm")
    return name if name and not row.fault else f"row {row.number}"
