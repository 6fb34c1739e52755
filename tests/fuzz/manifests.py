"""Manifests of shards: their JSON cut and flipped, its values removed and replaced."""

import copy
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from storage.manifests import is_complete, manifest_path, read_manifest, read_manifests
from storage.shards import Part, shard_path
from storage.store import Store
from tests.fuzz.edits import Damaged, damaged, edited
from tests.fuzz.trials import Kind, RefusedError

_PART = Part("archive", "train", 0)
_DOCUMENT: dict[str, Any] = {
    "stage": "clean",
    "part": {"dataset": "archive", "split": "train", "index": 0},
    "digest": "d",
    "recipe": {"engine": {"name": "rules"}},
    "inputs": {"ingest.studies": "s"},
    "outputs": {
        "clean_reports": {
            "path": shard_path("clean_reports", _PART, "clean"),
            "sha256": "s",
            "rows": 1,
        }
    },
    "unit": "report",
    "rows_in": 3,
    "rows_out": 1,
    "rejects": {"no_findings": 2},
    "discarded": {},
    "usage": {"requests": 4},
    "seconds": 1.5,
    "finished_at": "2026-01-01T00:00:00+00:00",
}
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    2,
    10**30,
    0.5,
    math.nan,
    math.inf,
    "",
    "../../outside",
    "a\0b",
    "\ud800",
    "x" * 5000,
    [],
    {},
    {"path": "a", "sha256": "b", "rows": -1},
)
_PIECES = (b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b"\xef\xbb\xbf", b"\\ud800", b"NaN")


class ChangedValue(NamedTuple):
    """The keys down to a value, and what stands in its place; nothing if it is removed."""

    keys: tuple[str, ...]
    value: tuple[Any, ...]


def inputs() -> SearchStrategy[Any]:
    """Damaged manifests."""
    value = st.just(()) | st.sampled_from(_ODD_VALUES).map(lambda odd: (odd,))
    changed = st.builds(ChangedValue, st.sampled_from(list(_keys(_DOCUMENT))), value)
    return damaged({"manifest": _written(_DOCUMENT)}, pieces=_PIECES) | st.lists(
        changed, min_size=1, max_size=2
    )


def outcome(given: Damaged | list[ChangedValue], folder: Path) -> None:
    """Read the manifest; one that does not add up, or is not in its place, counts for none."""
    store = Store(str(folder))
    path = manifest_path("clean", _PART)
    store.write(path, _data(given))
    manifest = read_manifest(store, "clean", _PART)
    # By their words: NaN, which a recipe may hold, is not equal to itself.
    assert repr(read_manifests(store)) == repr([] if manifest is None else [manifest])
    if manifest is None:
        raise RefusedError("counts for none")
    assert manifest.rows_in == manifest.rows_out + sum(manifest.rejects.values())
    assert manifest_path(manifest.stage, manifest.part) == path
    assert not is_complete(store, manifest), "its files are taken for whole, and there are none"


def _data(given: Damaged | list[ChangedValue]) -> bytes:
    if isinstance(given, Damaged):
        return edited(_written(_DOCUMENT), given.edits)
    document = copy.deepcopy(_DOCUMENT)
    for keys, value in given:
        _change(document, keys, value)
    return _written(document)


def _written(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def _keys(node: Any) -> list[tuple[str, ...]]:
    if not isinstance(node, dict):
        return []
    return [(key, *below) for key, value in node.items() for below in ((), *_keys(value))]


def _change(document: Any, keys: tuple[str, ...], value: tuple[Any, ...]) -> None:
    *above, last = keys
    for key in above:
        document = document.get(key) if isinstance(document, dict) else None
    if isinstance(document, dict):
        document.pop(last, None)
        document.update((last, odd) for odd in value)


KIND = Kind("manifests", inputs, outcome)
