"""A store as a library gives it: tables as Arrow, pandas and polars; images and masks as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.catalogue import CatalogueError, query_table, study_rows
from storage.images.loading import is_volume, load_radiograph, load_volume
from storage.images.types import Radiograph, Volume
from storage.records import GroundedReport, Mask, masks_by_key
from storage.schemas import SCHEMAS
from storage.snapshots import open_snapshots, versions_of
from storage.store import Store, StoreError
from storage.tables import ShardError, open_tables

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


@dataclass(frozen=True)
class StoreView:
    """A store to read from.

    store: at its current version, which each call sees anew, or at one that never changes.
    """

    store: Store

    @classmethod
    def open(cls, root: str, snapshots: Mapping[str, int] | None = None) -> StoreView:
        """The store at a path or URI.

        Args:
            root: its folder or URI.
            snapshots: the number of the version of some data sets: the store is then seen as it is
                now, whatever becomes current later, and these data sets at the versions named.

        Raises:
            StoreError: if there is none, or no such version.
        """
        store = Store(root)
        if not store.list("manifests", ".json"):
            raise StoreError(f"{root} is not a store, or an empty one: run `vividmed build` first")
        return cls(store if snapshots is None else open_snapshots(store, snapshots))

    @property
    def root(self) -> str:
        """Its folder or URI."""
        return self.store.root

    @property
    def snapshots(self) -> dict[str, int]:
        """The number of the version of each data set, of those that have versions."""
        return {s.dataset: s.number for s in versions_of(self.store)}

    @property
    def tables(self) -> list[str]:
        """The tables of the store; their schemas are in `storage.schemas`."""
        return list(open_tables(self.store).shards)

    def arrow(self, table: str, dataset: str | None = None) -> pa.Table:
        """The rows of a table, or those of one data set.

        Raises:
            CatalogueError: if there is no such table, or a shard of it is damaged.
        """
        tables = open_tables(self.store)
        if table not in tables.shards:
            known = ", ".join(tables.shards)
            raise CatalogueError(f"{self.root} has no table {table}: it has {known}")
        datasets = {shard.part.dataset: None for shard in tables.shards[table]}
        chosen = [dataset] if dataset is not None else [*datasets]
        try:
            rows = [tables.read(table, name) for name in chosen]
        except ShardError as error:
            raise CatalogueError(str(error)) from error
        return pa.concat_tables(rows) if rows else SCHEMAS[table].empty_table()

    def pandas(self, table: str, dataset: str | None = None) -> pd.DataFrame:
        """The same as a pandas data frame; pandas must be installed."""
        return self.arrow(table, dataset).to_pandas()

    def polars(self, table: str, dataset: str | None = None) -> pl.DataFrame:
        """The same as a polars data frame; polars must be installed."""
        import polars

        frame = polars.from_arrow(self.arrow(table, dataset))
        assert isinstance(frame, polars.DataFrame)  # noqa: S101 a table gives no series
        return frame

    def sql(self, query: str) -> pa.Table:
        """The answer of a query over all tables; the store is only read.

        Raises:
            CatalogueError: if it is no query, or meets a damaged shard.
        """
        return query_table(self.store, query)

    def reports(self, study_id: str, dataset: str | None = None) -> list[GroundedReport]:
        """The grounded reports of a study, one an image, with their boxes and masks."""
        masks = self._of_study("masks", study_id, dataset)
        reports = []
        for row in self._of_study("grounded_reports", study_id, dataset):
            place = ("dataset", "split", "image_id")
            own = (mask for mask in masks if all(mask[name] == row[name] for name in place))
            reports.append(GroundedReport.from_row(row, masks_by_key(own)))
        return reports

    def image(self, study_id: str, image_id: str | None = None) -> Radiograph | Volume:
        """An image of a study, from the file that the study refers to.

        Args:
            study_id: the study.
            image_id: which of its images; the only one, unless given.

        Returns:
            A radiograph: `pixels` float32 (rows, columns), 0 to 1, bright is dense. A CT: `hu`
            int16 (x, y, z) in RAS+, and its `affine` (4, 4), voxel index to RAS mm.

        Raises:
            StoreError: if the store has no such image, or it is not clear which is meant.
            ImageError: if its file cannot be read.
        """
        studies = self._of_study("studies", study_id, None)
        images: list[Mapping[str, Any]] = [i for study in studies for i in study["images"]]
        wanted = [i for i in images if image_id in (None, i["image_id"])]
        if len(wanted) != 1:
            known = ", ".join(i["image_id"] for i in images) or "none"
            asked = f"image {image_id}" if image_id else "single image"
            raise StoreError(f"{study_id} has no {asked} in {self.root}; its images are: {known}")
        path, modality = Path(wanted[0]["uri"]), wanted[0]["modality"]
        return load_volume(path, modality or "CT") if is_volume(path) else load_radiograph(path)

    def masks(self, study_id: str, dataset: str | None = None) -> list[tuple[str, Mask]]:
        """The masks of a study, each with its target.

        `mask.voxels` is boolean: (x, y, z) in RAS+ of a CT, where `mask.affine` is (4, 4) row by
        row, voxel index to RAS mm; (rows, columns) of a radiograph, whose affine is None.
        """
        rows = self._of_study("masks", study_id, dataset)
        return [(row["target"], Mask.from_row(row)) for row in rows]

    def _of_study(self, table: str, study_id: str, dataset: str | None) -> list[dict[str, Any]]:
        rows = study_rows(self.store, table, study_id)
        return [row for row in rows if dataset in (None, row["dataset"])]
