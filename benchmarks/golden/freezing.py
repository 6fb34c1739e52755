"""What a store holds, in a form that can be committed: no words of any report are in it.

OpenI's reports may not be given on in parts (CC BY-NC-ND), so texts and the details of rejects are
kept as digests, beside which tags are kept in full: places, targets, groundings.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.masks import decode_mask

Key = tuple[Any, ...]
Row = dict[str, Any]
Rows = dict[Key, Row]

DATASETS = ("openi", "showcase")
FOLDER = Path(__file__).with_name("frozen")

KEYS = {
    "reports": ("dataset", "study_id", "image_id"),
    "tags": ("dataset", "study_id", "image_id", "start", "end", "nth"),  # of those on one span
    "rejects": ("dataset", "study_id", "stage", "reason"),
    "groundings": (
        "dataset",
        "study_id",
        "image_id",
        "target",
        "laterality",
        "zones",
        "instance",
    ),
    "counts": ("dataset", "stage"),
}
"""The parts of what is frozen, and the columns that name a row of each."""

DIGEST_HEX = 12
"""Hexadecimal digits of a row's digest: 48 bits, as a changed row needs only to be told from the
one before, and tens of thousands of longer ones would make up most of the files."""

_SITE = ("dataset", "study_id", "image_id", "target", "laterality", "zones")
_BOX = pa.struct([(name, pa.float32()) for name in ("x_min", "y_min", "x_max", "y_max", "score")])
_KEY_FIELDS = [("dataset", pa.string()), ("study_id", pa.string())]
_PARQUET = {
    "reports": pa.schema(
        [
            *_KEY_FIELDS,
            ("image_id", pa.string()),
            ("split", pa.string()),
            ("text", pa.string()),
            ("provenance", pa.string()),
        ]
    ),
    "tags": pa.schema(
        [
            *_KEY_FIELDS,
            ("image_id", pa.string()),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("nth", pa.int32()),
            ("target", pa.string()),
            ("category", pa.string()),
            ("phrase_fits", pa.bool_()),
            ("grounding", pa.string()),
            ("reason", pa.string()),
            ("mask", pa.string()),
            ("boxes", pa.list_(_BOX)),
        ]
    ),
    "rejects": pa.schema(
        [
            *_KEY_FIELDS,
            ("stage", pa.string()),
            ("reason", pa.string()),
            ("count", pa.int32()),
            ("details", pa.string()),
        ]
    ),
}
_ZSTD_LEVEL = 19  # written once, cloned by everybody

# A path is where the folder of the inputs happens to lie; the file's own name is kept. Quoted
# words of a report are left alone.
_FOLDERS = re.compile(r"(?:(?<=\s)|^)/(?:[^/\n:“”]+/)+")


@dataclass(frozen=True)
class Frozen:
    """The rows of each part, by the columns of `KEYS`.

    reports: digest of the text, provenance.
    tags: target, category, grounding, reason, mask and boxes; and whether the phrase, which is not
        kept, is the text at its place.
    rejects: how many records of a study a stage rejected for a reason, and a digest of their
        details.
    groundings: rows of `boxes` and `masks`, a mask by the digest of its voxels.
    counts: the sums of a stage's manifests.
    """

    reports: Rows
    tags: Rows
    rejects: Rows
    groundings: Rows
    counts: Rows

    def only(self, dataset: str, studies: Collection[str]) -> Frozen:
        """The rows of some studies; counts, which are sums over all, are left out."""
        wanted = set(studies)
        parts = {
            part: {k: row for k, row in rows.items() if k[0] == dataset and k[1] in wanted}
            for part, rows in self.parts().items()
            if part != "counts"
        }
        return Frozen(**parts, counts={})

    def of_dataset(self, dataset: str) -> Frozen:
        """The rows of one dataset."""
        return Frozen(
            **{
                part: {key: row for key, row in rows.items() if key[0] == dataset}
                for part, rows in self.parts().items()
            }
        )

    def studies(self, dataset: str) -> set[str]:
        """The studies that became a report or were rejected."""
        return {
            key[1] for rows in (self.reports, self.rejects) for key in rows if key[0] == dataset
        }

    def parts(self) -> dict[str, Rows]:
        """The parts by name."""
        return {part: getattr(self, part) for part in KEYS}

    def digests(self) -> dict[str, dict[str, str]]:
        """SHA-256 of the rows of each dataset and part; boxes and other measures left out."""
        return {
            dataset: {
                part: _sha256([[*key, _exact(row)] for key, row in _ordered(rows)])
                for part, rows in self.of_dataset(dataset).parts().items()
            }
            for dataset in DATASETS
        }


@dataclass(frozen=True)
class Words:
    """What the frozen form leaves out, to show a person: texts of reports, details of rejects."""

    texts: Mapping[Key, str]
    details: Mapping[Key, list[str]]


def freeze(store: Path) -> tuple[Frozen, Words]:
    """Read a local store.

    Raises:
        FileNotFoundError: if the folder holds no store.
        ValueError: if two rows have the same key, which would hide one of them.
    """
    if not (store / "manifests").is_dir():
        raise FileNotFoundError(f"{store} holds no store: give the folder that a build wrote")
    reports: list[Row] = []
    tags: list[Row] = []
    texts: dict[Key, str] = {}
    for report in _table(store, "grounded_reports"):
        key = {name: report[name] for name in KEYS["reports"]}
        texts[tuple(key.values())] = report["text"]
        reports.append(
            key
            | {
                "split": report["split"],
                "text": _short(report["text"]),
                "provenance": _json(_without_folders(_only(PROVENANCE, report["provenance"]))),
            }
        )
        spans: Counter[tuple[int, int]] = Counter()
        for tag in report["tags"]:
            span = tag["start"], tag["end"]
            tags.append(key | {"nth": spans[span]} | _tag(tag, report["text"]))
            spans[span] += 1
    details: dict[Key, list[str]] = defaultdict(list)
    for row in _table(store, "rejects"):
        details[tuple(row[name] for name in KEYS["rejects"])].append(
            _without_folders(row["detail"])
        )
    rejects = {
        key: {"count": len(texts), "details": _short(sorted(texts))}
        for key, texts in details.items()
    }
    frozen = Frozen(
        reports=_keyed("reports", reports),
        tags=_keyed("tags", tags),
        rejects=rejects,
        groundings=_keyed("groundings", [*_boxes(store), *_masks(store)]),
        counts=_counts(store),
    )
    return frozen, Words(texts, details)


def write(frozen: Frozen, folder: Path = FOLDER) -> None:
    """Write what was frozen; the same rows give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, schema in _PARQUET.items():
        table = pa.Table.from_pylist(_flat(part, getattr(frozen, part)), schema=schema)
        pq.write_table(
            table,
            folder / f"{part}.parquet",
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            version="2.6",
        )
    written = {
        "digests": frozen.digests(),
        "counts": _flat("counts", frozen.counts),
        "groundings": _flat("groundings", frozen.groundings),
    }
    text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
    (folder / "digests.json").write_text(text, encoding="utf-8")


def load(folder: Path = FOLDER) -> Frozen:
    """Read what was frozen.

    Raises:
        ValueError: if the files are not those that were written together.
    """
    written = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    tables = {part: pq.read_table(folder / f"{part}.parquet").to_pylist() for part in _PARQUET}
    parts = tables | {part: written[part] for part in ("counts", "groundings")}
    frozen = Frozen(**{part: _keyed(part, rows) for part, rows in parts.items()})
    if frozen.digests() != written["digests"]:
        raise ValueError(
            f"the files in {folder} are not of one renewal, or one was edited: take them from one "
            "commit, or renew them with `python -m benchmarks.golden --renew`"
        )
    return frozen


PROVENANCE = ("source", "cleaner", "extractor", "filter", "localizer", "taxonomy", "notice")
MASK_REFERENCE = ("target", "laterality", "zones", "voxel_count")
BOX = ("x_min", "y_min", "x_max", "y_max", "score")
"""The columns that are frozen: one that a schema gains later is no change of these."""


def _table(store: Path, table: str) -> Iterable[Row]:
    for file in sorted((store / table).rglob("*.parquet")):
        rows = pq.read_table(file, partitioning=None).to_pylist()
        yield from (row for row in rows if row["dataset"] in DATASETS)


def _tag(tag: Row, text: str) -> Row:
    kept = ("start", "end", "target", "category", "grounding", "reason")
    return {name: tag[name] for name in kept} | {
        "phrase_fits": tag["phrase"] == text[tag["start"] : tag["end"]],
        "mask": tag["mask"] and _json(_only(MASK_REFERENCE, tag["mask"])),
        "boxes": [_only(BOX, box) for box in tag["boxes"] or []],
    }


def _only(columns: tuple[str, ...], row: Row) -> Row:
    return {name: row[name] for name in columns}


def _boxes(store: Path) -> Iterable[Row]:
    measures = (*BOX, "detector")
    for row in _table(store, "boxes"):
        yield _site(row) | {"instance": row["instance"]} | {name: row[name] for name in measures}


def _masks(store: Path) -> Iterable[Row]:
    measures = ("shape", "affine", "voxel_count", "volume_mm3", "score", "segmenter")
    for row in _table(store, "masks"):
        packed = decode_mask(row["mask"])
        # The voxels and not the stored bytes: another release of zstd may compress them otherwise.
        voxels = hashlib.sha256(f"{packed.shape}".encode() + packed.tobytes()).hexdigest()
        key = _site(row) | {"instance": None}
        yield key | {name: row[name] for name in measures} | {"voxels": voxels}


def _site(row: Row) -> Row:
    return {name: row[name] for name in _SITE} | {"zones": ", ".join(row["zones"])}


def _counts(store: Path) -> Rows:
    sums: dict[Key, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for file in sorted((store / "manifests").rglob("*.json")):
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["part"]["dataset"] not in DATASETS:
            continue
        total = sums[manifest["part"]["dataset"], manifest["stage"]]
        total["rows"].update({name: manifest[name] for name in ("rows_in", "rows_out")})
        total["rejects"].update(manifest["rejects"])
        total["discarded"].update(manifest["discarded"])
        total["outputs"].update({table: out["rows"] for table, out in manifest["outputs"].items()})
    return {
        key: {what: dict(sorted(counter.items())) for what, counter in total.items()}
        for key, total in sums.items()
    }


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {name: _without_folders(element) for name, element in value.items()}
    return value


def _keyed(part: str, rows: Iterable[Row]) -> Rows:
    columns = KEYS[part]
    keyed: Rows = {}
    for row in rows:
        key = tuple(row[name] for name in columns)
        if key in keyed:
            raise ValueError(f"two rows of {part} have the key {key}")
        keyed[key] = {name: value for name, value in row.items() if name not in columns}
    return keyed


def _flat(part: str, rows: Rows) -> list[Row]:
    return [dict(zip(KEYS[part], key, strict=True)) | row for key, row in _ordered(rows)]


def _ordered(rows: Rows) -> list[tuple[Key, Row]]:
    # None sorts before everything else.
    return sorted(rows.items(), key=lambda item: [(part is not None, part) for part in item[0]])


def _exact(value: Any) -> Any:
    """The value without its floats, whose last bits are the processor's."""
    if isinstance(value, dict):
        return {
            name: _exact(element)
            for name, element in value.items()
            if not isinstance(element, float)
        }
    if isinstance(value, list):
        return [_exact(element) for element in value if not isinstance(element, float)]
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _sha256(value: Any) -> str:
    return hashlib.sha256(_json(value).encode()).hexdigest()


def _short(value: Any) -> str:
    return _sha256(value)[:DIGEST_HEX]
