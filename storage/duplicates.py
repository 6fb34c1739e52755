"""Studies that a store holds twice: the same report and the same images under two ids.

Exports from archives hold a study again when it was sent again, or given another number. Studies
are compared by their texts first; of those with the same text, the images by the sizes of their
files, and only of those with the same sizes the images themselves. A study without text or without
images is a duplicate of none: "no acute disease" is said of many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from storage.digests import MISSING, UNREADABLE, content_digests
from storage.plans import Holding, read_holdings
from storage.shards import dataset_folder
from storage.store import Store

if TYPE_CHECKING:
    import duckdb

LISTED = 1000
"""Groups that are kept by the ids of their studies; all are counted."""

_ROWS_AT_ONCE = 1000

_SAME_TEXT = """
WITH texts AS (
    SELECT study_id, [i.uri FOR i IN images] AS uris,
        md5(concat_ws(chr(0), coalesce(findings, ''), coalesce(impression, ''))) AS text
    FROM studies
    WHERE dataset = ? AND len(images) > 0
        AND coalesce(findings, '') || coalesce(impression, '') <> ''
), again AS (SELECT text FROM texts GROUP BY text HAVING count(*) > 1)
SELECT text, study_id, uris FROM texts JOIN again USING (text) ORDER BY text, study_id
"""


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
        CatalogueError: if a shard is damaged.
    """
    import duckdb  # reading what was found, as `vividmed status` does, needs none of it

    from storage.catalogue import CatalogueError, connect

    studies = 0
    groups: list[tuple[str, ...]] = []
    with connect(store) as rows:
        try:
            result = rows.execute(_SAME_TEXT, [dataset])
        except duckdb.Error as error:
            raise CatalogueError(f"the studies of {dataset} cannot be compared: {error}") from error
        for _, same_text in groupby(_rows(result), key=lambda row: row[0]):
            for group in _same_images([(study, uris) for _, study, uris in same_text]):
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


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, list[str]]]:
    while rows := result.fetchmany(_ROWS_AT_ONCE):
        yield from rows


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
