"""Renews the output of a stage after a change of the taxonomy: reads again only what it touches.

A study is touched if a row that the stage reads of it has changed, or if its report has words that
the change is about (`taxonomy.impact`). The stage's step runs on the touched studies alone; the
rows of the others are taken over, under the names of today. The result is that of a full run, in
the same order, which `tests/tasks/pipeline/test_renewal.py` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.reasons import may_succeed_later
from storage.records import SiteKey
from storage.rejects import Reject, rejects_of
from storage.shards import Part
from tasks.pipeline.word_index import studies_with
from tasks.sites import site_label
from tasks.step import StepOutput
from taxonomy.impact import Impact

Row = dict[str, Any]


@dataclass(frozen=True)
class Earlier:
    """What a stage read and made of a part before the change.

    inputs: its input tables with their names, in the order of the stage's.
    outputs: its tables by name, the one that it counts first.
    rejects: how many rows of its rejects are records; those behind them are discarded proposals.
    """

    inputs: Sequence[tuple[str, pa.Table]]
    outputs: Mapping[str, pa.Table]
    rejects: int


@dataclass(frozen=True)
class Change:
    """What has changed since, for one stage.

    impact: of the taxonomy.
    by_words: whether the stage reads texts, so that words tell what is touched.
    by_targets: whether it reads which classes ground a target.
    taxonomy: the digest of today's taxonomy, for provenance.
    """

    impact: Impact
    taxonomy: str
    by_words: bool = False
    by_targets: bool = False


def renewed(
    part: Part,
    unit: str,
    step: Callable[..., StepOutput],
    inputs: Sequence[pa.Table],
    earlier: Earlier,
    change: Change,
    index: pa.Table | None,
) -> tuple[StepOutput, int] | None:
    """The output of a stage on a part, and how many studies its step was run on.

    None where all has to be made again.

    Args:
        part: the part.
        unit: what the stage counts.
        step: called with the part and the input tables.
        inputs: its input tables of today; the first has a row for each study, in order.
        earlier: what it read and made before.
        change: what has changed since.
        index: rows of `report_words`, for a stage that reads texts.
    """
    names = _Names(change.impact.renamed, change.taxonomy)
    touched = _touched(inputs, earlier, change, names, index)
    if touched is None:
        return None
    order = inputs[0]["study_id"].to_pylist()
    [rows_name, *_] = earlier.outputs
    made = step(part, *(_of(table, touched) for table in inputs)) if touched else None
    tables = {
        name: _merged(
            _without(names.carried(name, table), touched),
            (made.beside.get(name) if name != rows_name else made.rows) if made else None,
            order,
        )
        for name, table in earlier.outputs.items()
        if name != "rejects"
    }
    old = names.carried("rejects", earlier.outputs["rejects"])
    rejects = _in_order(
        rejects_of(_without(old.slice(0, earlier.rejects), touched)),
        made.rejects if made else (),
        order,
    )
    discarded = _in_order(
        rejects_of(_without(old.slice(earlier.rejects), touched)),
        made.discarded if made else (),
        order,
    )
    rows = tables.pop(rows_name)
    read = _records(unit, inputs, rows, len(rejects))
    through = read - len(rejects)
    return StepOutput(rows, rejects, read, through, discarded, tables), len(touched)


def _touched(
    inputs: Sequence[pa.Table],
    earlier: Earlier,
    change: Change,
    names: _Names,
    index: pa.Table | None,
) -> set[str] | None:
    """The studies to read again; None for all of them."""
    rejects = earlier.outputs["rejects"]
    later = {
        reason for reason in pc.unique(rejects["reason"]).to_pylist() if may_succeed_later(reason)
    }
    touched = _named(rejects, "reason", later)
    if change.by_words:
        if change.impact.whole is not None or index is None:
            return None
        touched |= studies_with(index, change.impact.words)
        # A model named a target that there was not; now there may be.
        touched |= _named(rejects, "reason", {"unknown_target"})
    if change.by_targets:
        for table in inputs:
            if "target" in table.column_names:
                touched |= _named(table, "target", change.impact.regrounded)
        touched |= names.unclear(rejects)
    for (name, before), now in zip(earlier.inputs, inputs, strict=True):
        if before is not now:
            touched |= changed_studies(names.carried(name, before), now)
    return touched & set(inputs[0]["study_id"].to_pylist()) if touched else touched


def _named(table: pa.Table, column: str, values: Collection[str]) -> set[str]:
    """The studies of rows that have one of the values."""
    found = pc.is_in(table[column], pa.array(sorted(values), pa.string()))
    return set(table["study_id"].filter(found).to_pylist())


def changed_studies(before: pa.Table, now: pa.Table) -> set[str]:
    """The studies of which two versions of a table have different rows."""
    if before.equals(now):
        return set()
    with duckdb.connect() as db:
        db.register("before", before)
        db.register("now", now)
        found = db.sql(
            "SELECT DISTINCT study_id FROM ("
            "(FROM before EXCEPT ALL FROM now) UNION ALL (FROM now EXCEPT ALL FROM before))"
        ).fetchall()
    return {study for (study,) in found}


class _Names:
    """Rows of earlier times under the names of today."""

    def __init__(self, renamed: Mapping[str, str], taxonomy: str) -> None:
        self._renamed = renamed
        self._taxonomy = taxonomy

    def carried(self, name: str, table: pa.Table) -> pa.Table:
        """The rows of a table as they would be made today."""
        if name == "grounded_reports":
            table = _with_provenance(self._tags_renamed(table), self._taxonomy)
        elif name == "rejects":
            table = self._rejects_renamed(table)
        elif "target" in table.column_names:
            place = table.schema.get_field_index("target")
            table = table.set_column(place, table.schema.field(place), self._named(table["target"]))
        return table

    def unclear(self, rejects: pa.Table) -> set[str]:
        """Studies with discarded boxes, whose site stands in words alone."""
        if not self._renamed:
            return set()
        alone = pc.and_(pc.is_valid(rejects["image_id"]), pc.is_null(rejects["target"]))
        return set(rejects["study_id"].filter(alone).to_pylist())

    def _named(self, targets: Any) -> Any:
        """A column of targets under the names of today."""
        for before, today in self._renamed.items():
            targets = pc.if_else(pc.equal(targets, before), today, targets)
        return targets

    def _rejects_renamed(self, table: pa.Table) -> pa.Table:
        names = pa.array(list(self._renamed), pa.string())
        if not pc.any(pc.is_in(table["target"], names)).as_py():
            return table
        rows = [self._row(row) for row in table.to_pylist()]
        return pa.Table.from_pylist(rows, schema=table.schema)

    def _row(self, row: Row) -> Row:
        before = row["target"]
        if before not in self._renamed:
            return row
        row["target"] = today = self._renamed[before]
        if row["section"] is None:
            row["record"] = site_label(row["image_id"], SiteKey.from_row(row))
        elif row["detail"].startswith(f"{before} is stated as "):
            row["detail"] = today + row["detail"].removeprefix(before)
        return row

    def _tags_renamed(self, table: pa.Table) -> pa.Table:
        """The rows of `grounded_reports`, with the targets of tags and of their masks renamed."""
        if not self._renamed or not table.num_rows:
            return table
        place = table.schema.get_field_index("tags")
        lists = table["tags"].combine_chunks()
        tags = lists.flatten()
        mask = pc.struct_field(tags, "mask")
        named = {
            "target": self._named(pc.struct_field(tags, "target")),
            "mask": _with_field(mask, "target", self._named(pc.struct_field(mask, "target"))),
        }
        for name, values in named.items():
            tags = _with_field(tags, name, values)
        ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        renamed = pa.ListArray.from_arrays(offsets, tags, type=lists.type)
        return table.set_column(place, table.schema.field(place), renamed)


def _with_field(structs: Any, name: str, values: Any) -> Any:
    """An array of structs with other values of one field; those that are null stay so."""
    fields = structs.type.fields
    columns = [values if f.name == name else pc.struct_field(structs, f.name) for f in fields]
    return pa.StructArray.from_arrays(columns, fields=fields, mask=pc.is_null(structs))


def _with_provenance(table: pa.Table, taxonomy: str) -> pa.Table:
    if not table.num_rows:
        return table
    place = table.schema.get_field_index("provenance")
    made = table["provenance"].combine_chunks()
    digests = pa.array([taxonomy] * table.num_rows, pa.string())
    made = _with_field(made, "taxonomy", digests)
    return table.set_column(place, table.schema.field(place), made)


def _of(table: pa.Table, studies: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["study_id"], pa.array(sorted(studies), pa.string())))


def _without(table: pa.Table, studies: Collection[str]) -> pa.Table:
    if not studies:
        return table
    known = pc.is_in(table["study_id"], pa.array(sorted(studies), pa.string()))
    return table.filter(pc.invert(known))


def _merged(kept: pa.Table, made: pa.Table | None, order: Sequence[str]) -> pa.Table:
    """Rows of both tables by the order of their studies."""
    if made is None or not made.num_rows:
        return kept
    both = pa.concat_tables([kept, made.cast(kept.schema)])
    places = pc.index_in(both["study_id"], pa.array(order, pa.string())).to_numpy()
    return both.take(pa.array(np.argsort(places, kind="stable"))).combine_chunks()


def _in_order(kept: Iterable[Reject], made: Iterable[Reject], order: Sequence[str]) -> list[Reject]:
    places = {study: i for i, study in enumerate(order)}
    return sorted([*kept, *made], key=lambda reject: places.get(reject.study_id, len(places)))


def _records(unit: str, inputs: Sequence[pa.Table], rows: pa.Table, rejects: int) -> int:
    """How many records a stage read, in its unit."""
    match unit:
        case "report":
            return int(inputs[0].num_rows)
        case "phrase":
            return int(inputs[1].num_rows)
        case "site":
            grounded = pc.sum(pc.equal(rows["instance"], 0)).as_py() or 0
            return int(grounded) + rejects
        case _:
            return int(rows.num_rows) + rejects
