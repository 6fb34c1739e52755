"""The tables of a store as Arrow datasets: the shards of the current generation, and no others.

Files are named one by one, so no character of the store's path has a meaning of its own, and each
is opened only when it is read: a damaged one is no hindrance to what does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from storage.manifests import Manifest
from storage.plans import Holding, read_holdings
from storage.schemas import SCHEMAS
from storage.shards import Part, ShardFile, is_intact
from storage.snapshots import current
from storage.store import Store, StoreError

if TYPE_CHECKING:
    from pyarrow import dataset as ds

_READERS = 8
"""Shards looked through at once: on a disk the CPU is the limit, in a bucket the answer's time."""


T = TypeVar("T")


class ShardError(Exception):
    """A shard that cannot be read; the message names its file and says what to do."""


@dataclass(frozen=True)
class Shard:
    """A shard that a manifest of the current generation lists."""

    part: Part
    file: ShardFile


@dataclass(frozen=True)
class Tables:
    """The tables of a store when it was opened, each with its shards in the order of their paths.

    A table of which the store has manifests is there, though it may have no rows.

    incomplete: what the store lacks of its datasets, a line each.
    """

    store: Store
    shards: Mapping[str, Sequence[Shard]]
    manifests: Sequence[Manifest]
    incomplete: Sequence[str] = ()

    def dataset(self, table: str, shards: Iterable[Shard] | None = None) -> ds.Dataset:
        """All shards of a table, or some, as an Arrow dataset of the declared schema."""
        from pyarrow import dataset as ds  # it imports pandas, which costs more than a look-up

        filesystem, base = self.store.filesystem()
        chosen = self.shards.get(table, ()) if shards is None else shards
        files = [f"{base}/{path}" for path in self.places(chosen)]
        return ds.FileSystemDataset.from_paths(
            files, schema=SCHEMAS[table], format=ds.ParquetFileFormat(), filesystem=filesystem
        )

    def read(self, table: str, dataset: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a dataset in a table, of all columns or of some.

        Raises:
            ShardError: if a shard is damaged or gone.
        """
        shards = [s for s in self.shards.get(table, ()) if s.part.dataset == dataset]
        chosen = columns and list(columns)
        try:
            return self._unmoved(shards, lambda: self.dataset(table, shards).to_table(chosen))
        except (OSError, pa.ArrowException) as error:
            raise self.fault(shards, error) from error

    def rows_of_study(self, table: str, study_id: str) -> tuple[list[dict[str, Any]], list[Shard]]:
        """The rows of a study, of all datasets that have one, and the shards that cannot be read.

        Only the shards that hold the study are read whole, of the others the column of ids.
        """
        shards = self.shards.get(table, ())

        def look(shard: Shard) -> list[dict[str, Any]] | None:
            try:
                return self._rows_of_study(shard, SCHEMAS[table], study_id)
            except (OSError, pa.ArrowException):
                return None

        with ThreadPoolExecutor(_READERS) as readers:
            found_in = self._unmoved(shards, lambda: [*readers.map(look, shards)])
        looked = list(zip(shards, found_in, strict=True))
        rows = [row for _, found in looked for row in found or ()]
        return rows, [shard for shard, found in looked if found is None]

    def _rows_of_study(
        self, shard: Shard, schema: pa.Schema, study_id: str
    ) -> list[dict[str, Any]]:
        if not shard.file.rows:
            return []
        filesystem, base = self.store.filesystem()
        [path] = self.store.places([shard.file.path])
        with filesystem.open_input_file(f"{base}/{path}") as stream:
            file = pq.ParquetFile(stream)
            ids = file.read(columns=["study_id"])["study_id"].to_pylist()
            if study_id not in ids:
                return []
            held = file.read()
        nothing = dict.fromkeys(schema.names)  # a shard of an earlier schema may lack columns
        here = [i for i, name in enumerate(ids) if name == study_id]
        return [nothing | row for i in here for row in held.slice(i, 1).to_pylist()]

    def places(self, shards: Iterable[Shard] | None = None) -> list[str]:
        """Where the files of all shards, or of some, lie now: a switch may move them."""
        chosen = chain.from_iterable(self.shards.values()) if shards is None else shards
        return self.store.places([shard.file.path for shard in chosen if shard.file.rows])

    def _unmoved(self, shards: Sequence[Shard], read: Callable[[], T]) -> T:
        """What is read of shards; again, if a switch has moved their files meanwhile."""
        before = self.places(shards)
        try:
            found = read()
        except (OSError, pa.ArrowException):
            if self.places(shards) == before:
                raise
        else:
            if self.places(shards) == before:
                return found
        return read()

    def study_ids(self) -> set[str]:
        """The ids of all studies, but for those in damaged shards."""
        filesystem, base = self.store.filesystem()
        ids: set[str] = set()
        for shard in (*self.shards.get("studies", ()), *self.shards.get("grounded_reports", ())):
            if not shard.file.rows:
                continue
            [path] = self.store.places([shard.file.path])
            try:
                with filesystem.open_input_file(f"{base}/{path}") as stream:
                    found = pq.ParquetFile(stream).read(columns=["study_id"])
            except (OSError, pa.ArrowException):
                continue
            ids.update(found["study_id"].to_pylist())
        return ids

    def fault(self, shards: Iterable[Shard], error: Exception) -> ShardError:
        """What a failure to read means: the shard that is damaged or gone, found by its digest."""
        for shard in shards:
            try:
                if is_intact(self.store, shard.file):
                    continue
            except StoreError as unreachable:
                return ShardError(str(unreachable))
            return ShardError(self.sentence(shard))
        return ShardError(f"the store cannot be read: {str(error).splitlines()[0]}")

    def sentence(self, shard: Shard) -> str:
        """Which file is damaged or gone, and what to do."""
        return (
            f"the shard {Store(self.store.root).location(shard.file.path)} is damaged or gone: "
            f"`vividmed build` of {shard.part.dataset} makes it again"
        )


def open_tables(store: Store, dataset: str = "") -> Tables:
    """The tables of a store, of one dataset or of all, at their current versions.

    Raises:
        StoreError: if the store cannot be read.
    """
    store = current(store)
    shards: dict[str, list[Shard]] = {}
    manifests: list[Manifest] = []
    holdings = read_holdings(store, dataset)
    for holding in holdings:
        for manifest in (*holding.current, *holding.older):
            for table in manifest.outputs.keys() & SCHEMAS.keys():
                shards.setdefault(table, [])
        manifests += holding.current
    for manifest, table, file in _listed(manifests):
        shards[table].append(Shard(manifest.part, file))
    by_path = {
        table: sorted(shards[table], key=lambda shard: shard.file.path)
        for table in SCHEMAS
        if table in shards
    }
    incomplete = [holding.condition() for holding in holdings if not holding.is_complete]
    return Tables(store, by_path, manifests, incomplete)


def damaged_shards(store: Store, holding: Holding) -> list[str]:
    """Paths of the current shards of a dataset that are gone, cut off, or of other rows.

    Only the end of each file is read, which says how many rows it has: a byte that changed in the
    middle is found by `vividmed build` alone, which compares the digests.
    """
    files = [file for _, _, file in _listed(holding.current) if file.rows]
    filesystem, base = store.filesystem()

    def is_whole(file: ShardFile) -> bool:
        try:
            with filesystem.open_input_file(f"{base}/{file.path}") as stream:
                return bool(pq.read_metadata(stream).num_rows == file.rows)
        except (OSError, pa.ArrowException):
            return False

    with ThreadPoolExecutor(_READERS) as readers:
        looked = zip(files, readers.map(is_whole, files), strict=True)
        return [file.path for file, whole in looked if not whole]


def _listed(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, str, ShardFile]]:
    for manifest in manifests:
        for table, file in manifest.outputs.items():
            if table in SCHEMAS:
                yield manifest, table, file
