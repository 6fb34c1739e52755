"""The text steps against two references of OpenI: the averages of `vividmed audit openi`.

    python -m benchmarks.audit

Reports with even numbers are the development half; the targets apply to the odd half, whose texts
nobody reads. All coded reports are scored, also those that cleaning rejected; `cleaned` is the
share that cleaning kept. The first macro average is over all coded targets, each with equal weight
even if only one report has it; the second is over targets with enough coded reports.
"""

from __future__ import annotations

import sys

import pyarrow as pa

from benchmarks.targets import judge
from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.inputs import fetch, input_path
from storage.shards import table_from_rows
from tasks.annotate import annotate
from tasks.audit.automatic import audit_automatic, audit_coders
from tasks.audit.mesh import audit
from tasks.audit.scores import MINIMUM_SUPPORT, Audit
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy


def main() -> int:
    """Print the averages of both halves; 1 if a target is missed."""
    taxonomy = load_taxonomy()
    settings = BuildSettings(dataset="openi")
    engines = choose_engines(settings, taxonomy)
    studies = _studies()
    found = annotate(studies, engines, taxonomy, positive=settings.positive)
    steps = (studies, found.reports, found.positives, taxonomy)
    coders = audit(*steps)
    print(
        f"{'reference':<26}{'half':<6}{'reports':>8}{'cleaned':>9}{'macro-F1':>10}"
        f"{f'n >= {MINIMUM_SUPPORT}':>8}{'micro-F1':>10}{'precision':>11}{'recall':>8}"
    )
    _print_halves("coders", coders)
    _print_halves("automatic tags", audit_automatic(*steps))
    _print_halves("coders against automatic", audit_coders(studies, taxonomy))
    odd = coders.odd
    return judge(
        "audit",
        {
            "macro-F1, odd half, all coded targets": odd.macro_f1,
            f"macro-F1, odd half, targets coded in {MINIMUM_SUPPORT} reports": odd.mean_f1(
                MINIMUM_SUPPORT
            ),
            "micro-F1, odd half": odd.micro_f1,
        },
    )


def _print_halves(reference: str, result: Audit) -> None:
    for name, half in (("even", result.even), ("odd", result.odd)):
        print(
            f"{reference:<26}{name:<6}{half.reports:>8,}{half.coverage:>9.3f}"
            f"{half.macro_f1:>10.3f}{half.mean_f1(MINIMUM_SUPPORT):>8.3f}{half.micro_f1:>10.3f}"
            f"{half.overall.precision:>11.3f}{half.overall.recall:>8.3f}"
        )


def _studies() -> pa.Table:
    fetch(["openi"])
    reader = find_declaration("openi").open(input_path("openi/NLMCXR_reports.tgz").parent)
    read = reader.read(reader.records())
    return table_from_rows(
        "studies", [s.row("openi", "train") for s in read if isinstance(s, Study)]
    )


if __name__ == "__main__":
    sys.exit(main())
