"""Studies that a store holds twice: the same report and the same images under two ids.

Exports from archives hold a study again when it was sent again, or given another number. Studies
are compared by their texts first; of those with the same text, the images by the sizes of their
files, and only of those with the same sizes the images themselves. A study without text or without
images is a duplicate of none: "no acute disease" is said of many.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from storage.digests import MISSING, UNREADABLE, content_digests
from storage.plans import Holding, read_holdings
from storage.shards import dataset_folder
from storage.store import Store
from storage.tables import Tables, open_tables

if TYPE_CHECKING:
    import pyarrow as pa

LISTED = 1000
"""Groups that are kept by the ids of their studies; all are counted."""

_DIGEST = 8
"""Bytes that tell texts apart: of a million, two are alike by chance once in 37 million times, and
their images are compared all the same."""

_COLUMNS = ["study_id", "findings", "impression", "images"]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a data set.

    compared: digest of the studies that were compared.
    studies: how many are a duplicate of another that comes before them.
    groups: ids of studies that are the same; of very many groups, the first.
    """

    compared: str
    studies: int
    groups: tuple[tuple[str, ...], ...]

    def sentence(self) -> str:
        """One line for a person."""
        if not self.studies:
            return "no study is there twice"
        first = "; ".join(" = ".join(group) for group in self.groups[:3])
        more = "; …" if len(self.groups) > 3 else ""
        are = "study has" if self.studies == 1 else "studies have"
        return f"{self.studies:,} {are} the report and the images of another: {first}{more}"


def find_duplicates(store: Store, dataset: str) -> Duplicates:
    """Compare the studies of a data set, and keep what was found in the store.

    Raises:
        StoreError: if the store cannot be read or written.
        ShardError: if a shard is damaged.
    """
    studies = 0
    groups: list[tuple[str, ...]] = []
    for same_text in _with_same_text(store, dataset):
        for group in _same_images(same_text):
            studies += len(group) - 1
            if len(groups) < LISTED:
                groups.append(tuple(group))
    [holding] = read_holdings(store, dataset)
    found = Duplicates(_compared(holding), studies, tuple(groups))
    store.write(_path(dataset), json.dumps(asdict(found), ensure_ascii=False).encode())
    return found


def read_duplicates(store: Store, holding: Holding) -> Duplicates | None:
    """What was found of the studies that the store holds now; None if they were not compared."""
    data = store.read(_path(holding.dataset))
    try:
        found = _DUPLICATES.validate_json(data) if data is not None else None
    except ValueError:
        return None
    if found is None or found.compared != _compared(holding):
        return None
    return found


def _with_same_text(store: Store, dataset: str) -> Iterator[list[tuple[str, list[str]]]]:
    """Studies with one text, each with the paths of its images; texts that one has alone are none.

    The table is read twice. In memory are 8 bytes a study, and the digests of texts that are there
    again; what is compared is put aside on disk.
    """
    import numpy as np  # reading what was found, as `vividmed status` does, needs none of it

    tables = open_tables(store, dataset)
    digests = np.fromiter((digest for digest, _ in _texts(tables)), np.uint64)
    values, counts = np.unique(digests, return_counts=True)
    again = frozenset(values[counts > 1].tolist())
    with closing(sqlite3.connect("")) as aside:  # without a name: a file that SQLite removes
        aside.execute("CREATE TABLE texts (digest BLOB, study TEXT, images TEXT)")
        for digest, (studies, place) in _texts(tables) if again else ():
            if digest in again:
                [row] = studies.slice(place, 1).to_pylist()
                images = json.dumps([image["uri"] for image in row["images"]])
                said = (digest.to_bytes(_DIGEST), row["study_id"], images)
                aside.execute("INSERT INTO texts VALUES (?, ?, ?)", said)
        rows = aside.execute("SELECT digest, study, images FROM texts ORDER BY digest, study")
        for _, same in groupby(rows, key=lambda row: row[0]):
            yield [(study, json.loads(images)) for _, study, images in same]


def _texts(tables: Tables) -> Iterator[tuple[int, tuple[pa.Table, int]]]:
    """A digest of the text of each study that has one and images, and in which row it stands.

    Raises:
        ShardError: if a shard is damaged.
    """
    import pyarrow as pa
    from pyarrow import compute as pc

    for shard in tables.shards.get("studies", ()):  # a scanner of all reads far ahead
        try:
            held = tables.dataset("studies", [shard]).to_table(_COLUMNS, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise tables.fault([shard], error) from error
        sections = (held[name].to_pylist() for name in ("findings", "impression"))
        counts = pc.list_value_length(held["images"]).to_pylist()
        for place, (findings, impression, images) in enumerate(zip(*sections, counts, strict=True)):
            if images and (findings or impression):
                text = f"{findings or ''}\0{impression or ''}".encode()
                digest = blake2b(text, digest_size=_DIGEST).digest()
                yield int.from_bytes(digest), (held, place)


def _same_images(studies: Sequence[tuple[str, list[str]]]) -> Iterator[list[str]]:
    """Of studies with one text, those that have the same images too."""
    by_size: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for study, uris in studies:
        files = [file for uri in uris for file in _files(Path(uri))]
        by_size.setdefault(tuple(sorted(map(_size, files))), []).append((study, files))
    for candidates in by_size.values():
        if len(candidates) == 1:
            continue
        by_content: dict[tuple[str, ...], list[str]] = {}
        for study, files in candidates:
            found = content_digests(map(Path, files)).items()
            content = [str(p) if d in (MISSING, UNREADABLE) else d for p, d in found]
            by_content.setdefault(tuple(sorted(content)), []).append(study)
        yield from (group for group in by_content.values() if len(group) > 1)


def _files(image: Path) -> list[str]:
    """The file of an image, or those of a series; the path itself where nothing is there."""
    try:
        if image.is_dir():
            return [str(file) for file in image.iterdir() if not file.name.startswith(".")]
    except OSError:
        pass
    return [str(image)]


def _size(file: str) -> str:
    """Its bytes; the path where nothing is there, which is the same as itself alone."""
    try:
        return str(Path(file).stat().st_size)
    except OSError:
        return file


def _compared(holding: Holding) -> str:
    digests = sorted(
        f"{m.part.name} {m.outputs['studies'].sha256}"
        for m in holding.current
        if "studies" in m.outputs
    )
    return sha256("\n".join(digests).encode()).hexdigest()


def _path(dataset: str) -> str:
    return f"duplicates/{dataset_folder(dataset)}.json"


_DUPLICATES = TypeAdapter(Duplicates)
