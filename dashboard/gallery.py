"""The gallery: one self-contained page that shows what a store holds.

All studies of a small dataset, a varied sample of a large one: the report with its phrases marked,
the image with their boxes or masks, and how it all came about. The page needs no network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape

from dashboard.articles import Article, read_article
from dashboard.pictures import add_pictures
from dashboard.sampling import VOLUME_COST, Candidate, choose_studies
from dashboard.summary import DatasetSummary, summarize
from storage import imaging
from storage.catalogue import connect
from storage.images.vocabulary import volume_modalities
from storage.manifests import Manifest
from storage.plans import current_manifests
from storage.reasons import explain, reasons
from storage.records import GroundedReport, masks_by_key
from storage.snapshots import current, versions_of
from storage.store import Store

FILE = "gallery.html"
_HERE = Path(__file__).parent
_RENDERING = Path(imaging.__file__).parent
_DIGEST = re.compile(rb'<meta name="vividmed-digest" content="([0-9a-f]{64})">')
_HEAD_BYTES = 2000

# DuckDB keeps the order of rows: `place` is that of the dataset, which a join may lose.
_CANDIDATES = """
SELECT study_id,
       list_distinct([t.target for t in tags if t.category = 'abnormality']) AS abnormalities,
       len([t for t in tags if t.grounding != 'none']) AS grounded,
       len([i for i in images if list_contains($volumes, i.modality)]) AS volumes
FROM (SELECT *, row_number() OVER () AS place FROM grounded_reports WHERE dataset = $dataset)
JOIN studies USING (dataset, split, study_id)
ORDER BY place
"""

_REPORTS = """
SELECT g.*, s.images
FROM grounded_reports g
JOIN studies s USING (dataset, split, study_id)
WHERE dataset = $dataset AND list_contains($studies, study_id) ORDER BY image_id
"""

_REMOVED = """
SELECT study_id, removed FROM clean_reports
WHERE dataset = $dataset AND list_contains($studies, study_id)
"""

_MASKS = """
SELECT * FROM masks
WHERE dataset = $dataset AND study_id = $study_id AND image_id = $image_id
"""


def write_gallery(store: Store) -> Path | None:
    """Write `gallery.html` into a local store; a page of the same content is left as it is.

    Returns:
        The page's path; None for a store in a bucket, which no browser opens by path.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    if not store.is_local:
        return None
    page = Path(store.location(FILE))
    seen = current(store)
    manifests = current_manifests(seen)
    versions = {version.dataset: version.number for version in versions_of(seen)}
    digest = _digest(manifests, versions)
    if _written_digest(page) == digest:
        return page
    # A data set without reports is only ingested.
    shown = {m.part.dataset for m in manifests if "grounded_reports" in m.outputs}
    with connect(seen) as catalogue:
        summaries = summarize(manifests, catalogue)
        of_versions = [replace(s, version=versions.get(s.dataset)) for s in summaries]
        datasets = [_with_articles(s, catalogue) for s in of_versions if s.dataset in shown]
    store.write(FILE, render_page(digest, datasets).encode())
    return page


def _digest(manifests: Iterable[Manifest], versions: Mapping[str, int]) -> str:
    """SHA-256 of everything the page shows, and of the code and data that show it."""
    # A manifest's digest covers the images, whose content may change under the same boxes.
    shown = [
        (m.stage, str(m.part), m.digest, m.rows_out, dict(m.rejects), _files(m)) for m in manifests
    ]
    digest = hashlib.sha256(json.dumps([shown, versions], sort_keys=True).encode())
    digest.update(repr(reasons()).encode())
    for file in (*sorted(_HERE.glob("*.*")), *sorted(_RENDERING.glob("*.*"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(manifest: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.outputs.values()}


def _written_digest(page: Path) -> str | None:
    try:
        with page.open("rb") as stream:
            found = _DIGEST.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode() if found else None


def _with_articles(
    summary: DatasetSummary, catalogue: duckdb.DuckDBPyConnection
) -> tuple[DatasetSummary, list[Article]]:
    return summary, list(_articles(summary.dataset, catalogue))


def _articles(dataset: str, catalogue: duckdb.DuckDBPyConnection) -> Iterator[Article]:
    chosen = choose_studies(_candidates(dataset, catalogue))
    found = _rows(catalogue, _REPORTS, dataset=dataset, studies=chosen)
    by_study: dict[str, list[dict[str, Any]]] = {study: [] for study in chosen}
    for row in found:
        by_study[row["study_id"]].append(row)
    removed = _removed(dataset, chosen, catalogue)
    for study, rows in by_study.items():
        for i, row in enumerate(_distinct(rows)):
            anchor = f"{dataset}.{study}" + (f".{i + 1}" if i else "")
            report = GroundedReport.from_row(row, masks_by_key(_masks(row, catalogue)))
            article = read_article(quote(anchor, safe=""), report, removed.get(study, []))
            images = {image["image_id"]: image for image in row["images"]}
            add_pictures(article, images.get(row["image_id"]))
            yield article


def _removed(
    dataset: str, studies: list[str], catalogue: duckdb.DuckDBPyConnection
) -> dict[str, list[str]]:
    """What cleaning dropped, by study; a store of predictions alone has no cleaned reports."""
    if ("clean_reports",) not in catalogue.execute("SHOW TABLES").fetchall():
        return {}
    rows = _rows(catalogue, _REMOVED, dataset=dataset, studies=studies)
    return {row["study_id"]: row["removed"] or [] for row in rows}


def _candidates(dataset: str, catalogue: duckdb.DuckDBPyConnection) -> list[Candidate]:
    """One per study: its images share the text."""
    rows = _rows(catalogue, _CANDIDATES, dataset=dataset, volumes=sorted(volume_modalities()))
    studies: dict[str, Candidate] = {}
    for row in rows:
        known = studies.get(row["study_id"])
        grounded = row["grounded"] + (known.grounded if known else 0)
        cost = max(1, VOLUME_COST * row["volumes"])
        abnormalities = frozenset(row["abnormalities"])
        studies[row["study_id"]] = Candidate(row["study_id"], abnormalities, grounded, cost)
    return list(studies.values())


def _distinct(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without further images of a study on which nothing is grounded for the same reasons."""
    told = set()
    for row in rows:
        reasons = tuple(tag["reason"] for tag in row["tags"])
        if not all(reasons) or reasons not in told:
            told.add(reasons)
            yield row


def _masks(report: dict[str, Any], catalogue: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The rows of `masks` that a row of `grounded_reports` refers to, and their image's others."""
    if not any(tag["mask"] for tag in report["tags"]):
        return []
    key = {name: report[name] for name in ("dataset", "study_id", "image_id")}
    return _rows(catalogue, _MASKS, **key)


def _rows(
    catalogue: duckdb.DuckDBPyConnection, query: str, **parameters: Any
) -> list[dict[str, Any]]:
    return list(catalogue.sql(query, params=parameters).to_arrow_table().to_pylist())


def render_page(digest: str, datasets: Sequence[tuple[DatasetSummary, Sequence[Article]]]) -> str:
    """The page of some data sets, each with the reports to show of it."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"verbatim": _verbatim, "explain": explain}
    return environment.get_template(FILE).render(digest=digest, datasets=datasets)


def _verbatim(text: str) -> Markup:
    """Text that the browser shows as it is stored: HTML would turn a bare CR into LF."""
    return escape(text).replace("\r", Markup("&#13;"))
