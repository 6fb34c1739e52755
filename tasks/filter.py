"""Filter: keep the phrases whose target the report states as present."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.clean import SECTIONS
from tasks.engines.protocols import Assertion, AssertionClassifier, Failure, Modifiers, Phrase
from tasks.step import StepOutput


def filter_positives(
    reports: pa.Table,
    phrases: pa.Table,
    classifier: AssertionClassifier,
    positive: Collection[Assertion],
) -> StepOutput:
    """Keep the phrases with an assertion that counts as positive; set the others aside.

    The reason of a phrase set aside is its assertion, or why there is none; its record is
    `<section>:<start>`.
    """
    texts = {
        (report["study_id"], section): report[section]
        for report in reports.select(["study_id", *SECTIONS]).to_pylist()
        for section in SECTIONS
    }
    sections: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in phrases.to_pylist():
        sections[row["study_id"], row["section"]].append(row)
    assertions = classifier.classify(
        [texts[key] for key in sections],
        [[phrase_of(row) for row in rows] for rows in sections.values()],
    )
    kept: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for rows, in_section in zip(sections.values(), assertions, strict=True):
        for row, assertion in zip(rows, in_section, strict=True):
            record = f"{row['section']}:{row['start']}"
            if isinstance(assertion, Failure):
                rejects.append(Reject(row["study_id"], record, assertion.reason, assertion.detail))
            elif assertion in positive:
                kept.append(row | {"assertion": assertion})
            else:
                detail = f"{row['target']} is stated as {assertion}: “{row['phrase']}”"
                rejects.append(Reject(row["study_id"], record, assertion, detail))
    return StepOutput(table_from_rows("positives", kept), rejects, phrases.num_rows, len(kept))


def phrase_of(row: dict[str, Any]) -> Phrase:
    """The phrase that a row of `phrases` or `positives` holds."""
    return Phrase(row["start"], row["end"], row["target"], modifiers_of(row["modifiers"]))


def modifiers_of(value: dict[str, Any]) -> Modifiers:
    """The modifiers that a struct cell holds."""
    return Modifiers(value["laterality"], tuple(value["zones"] or ()), value["count"])
