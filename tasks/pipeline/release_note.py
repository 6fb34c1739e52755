"""What a re-annotation changed in a data set: tags and groundings, by target, with examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from storage.manifests import Manifest, read_manifests
from storage.shards import dataset_folder, read_shard
from storage.store import Store

Kind = Literal["tag added", "tag removed", "target changed", "grounding gained", "grounding lost"]

FOLDER = "changes"

EXAMPLES = 5
"""Phrases shown for a kind of change of a target: enough to see what it was about."""

_STAGE, _TABLE = "assemble", "grounded_reports"

_Place = tuple[str, str | None, int, int]
"""Study, image, and the code points of a phrase in the report."""


@dataclass(frozen=True)
class TagChange:
    """One tag that is not as it was.

    target: of today; of a tag that is gone, the one that it had.
    before: the target that it had, where that has changed.
    """

    kind: Kind
    study_id: str
    image_id: str | None
    phrase: str
    target: str
    before: str | None = None


@dataclass(frozen=True)
class ReleaseNote:
    """All changes of a data set from one version to the next."""

    dataset: str
    changes: tuple[TagChange, ...]

    def table(self) -> pa.Table:
        """A row for each change."""
        return pa.Table.from_pylist([asdict(change) for change in self.changes], schema=_SCHEMA)

    def counts(self) -> dict[tuple[str, Kind], int]:
        """How many tags of each target changed in which way, most first."""
        return dict(Counter((c.target, c.kind) for c in self.changes).most_common())

    def headline(self) -> str:
        """One line for people."""
        count = len(self.changes)
        return f"{count:,} changes of tags and groundings" if count else "no tag has changed"

    def lines(self) -> list[tuple[str, ...]]:
        """For each target and kind of change, most first: both, the number of tags, examples."""
        phrases: dict[tuple[str, Kind], dict[str, None]] = defaultdict(dict)
        for change in self.changes:
            was = f" (was {change.before})" if change.before else ""
            phrases[change.target, change.kind][f"“{change.phrase}”{was}"] = None
        return [
            (target, kind, f"{count:,}", ", ".join([*phrases[target, kind]][:EXAMPLES]))
            for (target, kind), count in self.counts().items()
        ]

    def markdown(self) -> str:
        """A page for people, with a table of the `lines`."""
        head = [f"{self.dataset}: {self.headline()}."]
        if self.changes:
            head += ["", "| target | change | tags | such as |", "|---|---|---|---|"]
        return "\n".join([*head, *(f"| {' | '.join(line)} |" for line in self.lines())])


def write_note(store: Store, note: ReleaseNote, version: int) -> None:
    """Keep a note beside the version that it is about, as a Parquet file.

    Raises:
        StoreError: if the store cannot be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(note.table(), sink, compression="zstd")
    path = f"{FOLDER}/{dataset_folder(note.dataset)}/{version:06d}.parquet"
    store.write(path, sink.getvalue().to_pybytes())


def release_note(before: Store, after: Store, dataset: str) -> ReleaseNote:
    """Compare two versions of a data set.

    Args:
        before: the store with the version that is read now.
        after: the same with the next version put over it.
        dataset: its name.

    Raises:
        StoreError: if one of them cannot be read.
    """
    old = {m.part.name: m for m in read_manifests(before, dataset) if m.stage == _STAGE}
    new = {m.part.name: m for m in read_manifests(after, dataset) if m.stage == _STAGE}
    changes: list[TagChange] = []
    for part in sorted(old.keys() | new.keys()):
        was, now = old.get(part), new.get(part)
        if was and now and was.outputs[_TABLE].sha256 == now.outputs[_TABLE].sha256:
            continue
        changes += _compared(_tags(before, was), _tags(after, now))
    return ReleaseNote(dataset, tuple(changes))


def _tags(store: Store, manifest: Manifest | None) -> dict[_Place, dict[str, dict[str, Any]]]:
    """The tags of a part by place and target."""
    tags: dict[_Place, dict[str, dict[str, Any]]] = defaultdict(dict)
    if manifest is None:
        return tags
    rows = read_shard(store, manifest.outputs[_TABLE]).select(["study_id", "image_id", "tags"])
    for row in rows.to_pylist():
        for tag in row["tags"]:
            place = row["study_id"], row["image_id"], tag["start"], tag["end"]
            tags[place][tag["target"]] = tag
    return tags


def _compared(
    before: dict[_Place, dict[str, dict[str, Any]]], after: dict[_Place, dict[str, dict[str, Any]]]
) -> Iterator[TagChange]:
    for place in sorted(before.keys() | after.keys(), key=lambda p: (p[0], p[1] or "", p[2:])):
        old, new = before.get(place, {}), after.get(place, {})
        study, image = place[:2]
        gone = [name for name in old if name not in new]
        come = [name for name in new if name not in old]
        for was, name in zip(gone, come, strict=False):
            phrase = new[name]["phrase"]
            yield TagChange("target changed", study, image, phrase, name, before=was)
        for name in come[len(gone) :]:
            yield TagChange("tag added", study, image, new[name]["phrase"], name)
        for name in gone[len(come) :]:
            yield TagChange("tag removed", study, image, old[name]["phrase"], name)
        pairs = [(name, name) for name in new if name in old]
        for was, name in [*pairs, *zip(gone, come, strict=False)]:
            yield from _grounding(place, old[was], new[name])


def _grounding(place: _Place, before: dict[str, Any], after: dict[str, Any]) -> Sequence[TagChange]:
    had, has = before["grounding"] != "none", after["grounding"] != "none"
    if had == has:
        return ()
    kind: Kind = "grounding gained" if has else "grounding lost"
    return (TagChange(kind, *place[:2], after["phrase"], after["target"]),)


_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("kind", "study_id", "image_id", "phrase", "target", "before")]
)
