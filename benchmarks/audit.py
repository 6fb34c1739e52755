"""The text steps against the MeSH coding of OpenI: the averages of `vividmed audit openi`.

    python -m benchmarks.audit

Even report numbers are the development half; the targets hold for the odd half, which is scored and
never read. Beside the macro average over targets that are coded in enough reports to be measured
stands the one over all, in which a target with one report counts as much as one with hundreds.
"""

from __future__ import annotations

import sys
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.targets import judge
from storage.datasets.openi import OpenIReader
from storage.datasets.reader import Study
from storage.inputs import fetch, input_path
from storage.shards import table_from_rows
from tasks.annotate import annotate
from tasks.audit.mesh import MINIMUM_SUPPORT, audit
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy


def main() -> int:
    """Print the averages of both halves; 1 if a target is missed."""
    taxonomy = load_taxonomy()
    settings = BuildSettings(dataset="openi")
    engines = choose_engines(settings, taxonomy)
    studies = _studies()
    found = annotate(
        studies,
        engines,
        taxonomy,
        require=settings.require_sections,
        positive=settings.positive,
    )
    kept = studies.filter(pc.is_in(studies["study_id"], value_set=found.reports["study_id"]))
    halves = audit(kept, found.positives, taxonomy).as_json()
    print(f"{'half':<8}{'reports':>8}{'micro-F1':>10}{'macro-F1':>10}{'macro-F1, all':>15}")
    for name, half in halves.items():
        print(f"{name:<8}{half['reports']:>8,}" + _averages(half))
    odd = halves["odd"]
    return judge(
        "audit",
        {
            "micro-F1, odd half": odd["micro_f1"],
            f"macro-F1, odd half, targets coded in {MINIMUM_SUPPORT} reports": odd["macro_f1"],
            "macro-F1, odd half, all coded targets": odd["macro_f1_any_support"],
        },
    )


def _averages(half: dict[str, Any]) -> str:
    return (
        f"{half['micro_f1']:>10.3f}{half['macro_f1']:>10.3f}{half['macro_f1_any_support']:>15.3f}"
    )


def _studies() -> pa.Table:
    fetch(["openi"])
    reader = OpenIReader(input_path("openi/NLMCXR_reports.tgz").parent)
    read = reader.read(reader.records())
    return table_from_rows(
        "studies", [s.row("openi", "train") for s in read if isinstance(s, Study)]
    )


if __name__ == "__main__":
    sys.exit(main())
