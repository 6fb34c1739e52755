"""A stage on a part: skip it, or run its step, write its shards and then its manifest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.manifests import (
    Manifest,
    is_complete,
    manifest_path,
    read_manifest,
    recipe_digest,
    write_manifest,
)
from storage.reasons import may_succeed_later
from storage.rejects import count_by_reason, rejects_table
from storage.schemas import schema_digest
from storage.shards import Part, ShardFile, read_shard, read_version, shard_path, write_shard
from storage.store import Store
from tasks.engines.metering import metered
from tasks.pipeline import word_index
from tasks.pipeline.renewal import Change, Earlier, renewed
from tasks.step import StepOutput


@dataclass(frozen=True)
class Stage:
    """A step with everything that decides its output.

    recipe: engine fingerprint, settings and code version, as JSON values.
    step: called with the part and the input tables, in the order of `inputs`.
    inputs: the shards it reads, as (stage, table).
    external: what it reads from outside the store, as names and digests; called like the step,
        in the thread that runs it. None: nothing, and a finished part is skipped unread.
    beside: further tables that it writes.
    taxonomy: digest of the run's taxonomy.
    change: what of the taxonomy has changed for this stage since one of an earlier digest; None if
        that one is not known any more.
    concurrency: shards that its engine takes at once, beside this machine's CPU; None: it runs on
        the CPU, which all such stages share.
    """

    name: str
    table: str
    unit: str
    recipe: Mapping[str, Any]
    step: Callable[..., StepOutput]
    inputs: Sequence[tuple[str, str]] = ()
    external: Callable[..., Mapping[str, str]] | None = None
    concurrency: int | None = None
    beside: Sequence[str] = ()
    taxonomy: str = ""
    change: Callable[[str], Change | None] | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it writes, less its rejects; the first is what its manifest counts."""
        return self.table, *self.beside

    @property
    def reads(self) -> frozenset[str]:
        """The stages whose shards it reads."""
        return frozenset(stage for stage, _ in self.inputs)


@dataclass(frozen=True)
class ShardResult:
    """How a stage on a part ended.

    restored: the part had been finished before, but a file of it was lost or damaged, so
    whatever was built on it is built again too.
    """

    manifest: Manifest
    skipped: bool = False
    restored: bool = False

    def __str__(self) -> str:
        made = self.manifest
        if self.skipped:
            return f"{made.stage} {made.part}: already done"
        return (
            f"{made.stage} {made.part}: {made.rows_in} {made.unit}s in, {made.rows_out} out, "
            f"{sum(made.rejects.values())} rejected, {made.seconds:.1f} s"
        )


def run_stage(
    store: Store, stage: Stage, part: Part, upstream: Mapping[str, ShardResult]
) -> ShardResult:
    """Run the stage on a part, unless the store already holds its shards.

    Args:
        store: where shards and manifests live.
        stage: what to run.
        part: on which part.
        upstream: results of the stages it reads from, by stage name.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    files = {f"{s}.{table}": upstream[s].manifest.outputs[table] for s, table in stage.inputs}
    hashes = {name: file.sha256 for name, file in files.items()}
    tables: list[pa.Table] | None = None
    if stage.external:
        tables = _read(store, files.values())
        hashes |= stage.external(part, *tables)
    schemas = {table: schema_digest(table) for table in (*stage.tables, "rejects")}
    recipe = {**stage.recipe, "schemas": schemas}
    digest = recipe_digest(stage.name, recipe, hashes)

    known = read_manifest(store, stage.name, part)
    current = known is not None and known.digest == digest
    complete = (
        known is not None
        and {*stage.tables, "rejects"} <= set(known.outputs)
        and is_complete(store, known)
    )
    retry = known is not None and any(map(may_succeed_later, known.rejects))
    built_anew = any(result.restored for result in upstream.values())
    if known and current and complete and not retry and not built_anew:
        return ShardResult(known, skipped=True)

    started = time.perf_counter()
    tables = tables or _read(store, files.values())
    with metered() as usage:
        output, read_again = _renewed(
            store,
            stage,
            part,
            known if complete and not current else None,
            recipe,
            tables,
            upstream,
        ) or (stage.step(part, *tables), None)
    # Without its manifest a shard does not count: a run that is killed here leaves no new file
    # under the manifest of the old one.
    store.delete(manifest_path(stage.name, part))
    manifest = Manifest(
        stage=stage.name,
        part=part,
        digest=digest,
        recipe=recipe,
        inputs=hashes,
        outputs=_write(store, stage, part, output),
        renewed=read_again,
        taxonomy=stage.taxonomy,
        unit=stage.unit,
        rows_in=output.rows_in,
        rows_out=output.rows_out,
        rejects=count_by_reason(output.rejects),
        discarded=count_by_reason(output.discarded),
        usage=dict(usage),
        funnel=tuple(output.funnel),
        seconds=round(time.perf_counter() - started, 3),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_manifest(store, manifest)
    return ShardResult(manifest, restored=current and (built_anew or not complete))


def _renewed(
    store: Store,
    stage: Stage,
    part: Part,
    known: Manifest | None,
    recipe: Mapping[str, Any],
    tables: Sequence[pa.Table],
    upstream: Mapping[str, ShardResult],
) -> tuple[StepOutput, int] | None:
    """The output with the rows that a change of the taxonomy leaves, and the studies read again.

    None where there is no earlier output, more than the taxonomy has changed, or what the stage
    read then is gone.
    """
    if known is None or stage.change is None or not _agree(known.recipe, recipe):
        return None
    if (change := stage.change(known.taxonomy)) is None:
        return None
    inputs: list[tuple[str, pa.Table]] = []
    for (made_by, name), now in zip(stage.inputs, tables, strict=True):
        sha256 = known.inputs.get(f"{made_by}.{name}")
        if sha256 == upstream[made_by].manifest.outputs[name].sha256:
            inputs.append((name, now))
            continue
        before = read_version(store, shard_path(name, part, made_by), sha256 or "")
        if before is None:
            return None
        inputs.append((name, before))
    if stage.external:
        then = stage.external(part, *(table for _, table in inputs))
        if any(known.inputs.get(name) != digest for name, digest in then.items()):
            return None
    outputs = {name: read_shard(store, known.outputs[name]) for name in (*stage.tables, "rejects")}
    earlier = Earlier(inputs, outputs, sum(known.rejects.values()))
    words = None
    if change.by_words:
        by = known if word_index.TABLE in known.outputs else upstream[word_index.STAGE].manifest
        words = read_shard(store, by.outputs[word_index.TABLE])
    return renewed(part, stage.unit, stage.step, tables, earlier, change, words)


def _agree(before: object, now: object) -> bool:
    """Whether two recipes are the same but for digests of taxonomies."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return json.dumps(before) == json.dumps(now)  # a manifest has lists for tuples
    return before.keys() == now.keys() and all(
        name.endswith("taxonomy") or _agree(before[name], now[name]) for name in now
    )


def _read(store: Store, files: Iterable[ShardFile]) -> list[pa.Table]:
    return [read_shard(store, file) for file in files]


def _write(store: Store, stage: Stage, part: Part, output: StepOutput) -> dict[str, ShardFile]:
    if output.rows_in != output.rows_out + len(output.rejects):
        raise AssertionError(
            f"{stage.name} on {part} lost records: {output.rows_in} in, {output.rows_out} out, "
            f"{len(output.rejects)} rejected"
        )
    tables = {
        stage.table: output.rows,
        **output.beside,
        "rejects": rejects_table(part, stage.name, [*output.rejects, *output.discarded]),
    }
    return {
        table: write_shard(store, shard_path(table, part, stage.name), table, rows)
        for table, rows in tables.items()
    }
