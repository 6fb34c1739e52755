"""Filter: keep the phrases whose target the report states as present."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from storage.records import Assertion, Phrase, SiteKey
from storage.rejects import Reject
from storage.shards import table_from_rows
from tasks.answers import checked_assertion, require_as_many
from tasks.clean import SECTIONS
from tasks.engines.protocols import AssertionClassifier, Failure, RulesAssertion
from tasks.step import StepOutput


def filter_positives(
    reports: pa.Table,
    phrases: pa.Table,
    classifier: AssertionClassifier,
    positive: Collection[Assertion],
) -> StepOutput:
    """Keep the phrases with an assertion that counts as positive; reject the others.

    The reason of a rejected phrase is its assertion, or why it has none.

    Raises:
        EngineAnswerError: if the engine gives more answers than phrases, or fewer.
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
        [[Phrase.from_row(row) for row in rows] for rows in sections.values()],
    )
    require_as_many(classifier, assertions, sections, "texts")
    kept: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    for rows, in_section in zip(sections.values(), assertions, strict=True):
        require_as_many(classifier, in_section, rows, "phrases of a text")
        for row, answer in zip(rows, in_section, strict=True):
            by_rules = isinstance(answer, RulesAssertion)
            said = answer.assertion if isinstance(answer, RulesAssertion) else answer
            assertion = said if isinstance(said, Failure) else checked_assertion(said)
            if isinstance(assertion, Failure):
                rejects.append(_reject(row, assertion))
            elif assertion in positive:
                mark = {"by_rules": row["by_rules"] or by_rules}
                kept.append(row | mark | {"assertion": assertion})
            else:
                judge = " by the rules, as the language model failed" if by_rules else ""
                detail = f"{row['target']} is stated as {assertion}{judge}: “{row['phrase']}”"
                rejects.append(_reject(row, Failure(assertion, detail)))
    return StepOutput(table_from_rows("positives", kept), rejects, phrases.num_rows, len(kept))


def _reject(row: dict[str, Any], why: Failure) -> Reject:
    section, start = row["section"], row["start"]
    return Reject(
        row["study_id"],
        f"{section}:{start}",
        why.reason,
        why.detail,
        site=SiteKey(row["target"]),
        section=section,
        start=start,
    )
