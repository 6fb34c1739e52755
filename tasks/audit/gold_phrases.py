"""The audit against phrases that people wrote or marked in the reports of a grounded data set.

By study: the targets of its gold phrases against those that we keep as positive. By sentence: the
same for each sentence, which is looked for in the cleaned findings; one that cleaning took away or
reworded is counted, and not scored. A phrase that states its target as absent says that the target
is not there. Phrases whose label names no target say nothing of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from tasks.audit.scores import ReportScores, score_reports
from taxonomy.targets import Taxonomy

SECTION = "findings"
"""The section that readers of grounded data sets make of the phrases."""

STATED = ("present", "probable")


@dataclass(frozen=True)
class PhraseAudit:
    """Scores by study and by sentence.

    sentences: `covered` are those that stand in the cleaned findings as they were; the others are
        not scored.
    unmapped: gold phrases with a label that names no target.
    """

    studies: ReportScores
    sentences: ReportScores
    unmapped: int

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "studies": self.studies.as_json(),
            "sentences": self.sentences.as_json(),
            "phrases_unmapped": self.unmapped,
        }


def audit_phrases(
    gold: pa.Table,
    reports: pa.Table,
    positives: pa.Table,
    taxonomy: Taxonomy,
) -> PhraseAudit | None:
    """Score the positives of reports against gold phrases; None where there are none.

    Args:
        gold: the phrases (`storage.schemas.GOLD_PHRASES`).
        reports: ids and findings of those that cleaning kept (`storage.schemas.CLEAN_REPORTS`).
        positives: the phrases kept (`storage.schemas.POSITIVES`).
        taxonomy: for the hierarchy.
    """
    rows = gold.select(["study_id", "phrase", "label", "target", "assertion"]).to_pylist()
    if not rows:
        return None
    known = [row for row in rows if row["target"] in taxonomy]
    targets = sorted({row["target"] for row in known})
    texts = {row["study_id"]: row[SECTION] or "" for row in reports.to_pylist()}
    kept = _by_study(positives, taxonomy)
    by_study: dict[str, set[str]] = {row["study_id"]: set() for row in rows}
    by_sentence: dict[tuple[str, str], set[str]] = {
        (row["study_id"], row["phrase"]): set() for row in rows
    }
    for row in known:
        if row["assertion"] in STATED:
            by_study[row["study_id"]].add(row["target"])
            by_sentence[row["study_id"], row["phrase"]].add(row["target"])
    found = {study: {target for *_, target in of_study} for study, of_study in kept.items()}
    spans = {key: _span(texts.get(key[0], ""), key[1]) for key in by_sentence}
    located = {_name(key): _inside(kept.get(key[0], ()), s) for key, s in spans.items() if s}
    coded = {_name(key): named for key, named in by_sentence.items() if spans[key]}
    scored = score_reports(list(coded), coded, located, coded, targets, taxonomy)
    return PhraseAudit(
        score_reports(list(by_study), by_study, found, texts, targets, taxonomy),
        replace(scored, reports=len(by_sentence)),
        sum(row["label"] is not None and row["target"] not in taxonomy for row in rows),
    )


def _by_study(
    positives: pa.Table, taxonomy: Taxonomy
) -> dict[str, list[tuple[str, int, int, str]]]:
    """Section, start, end and target of the positives of each study."""
    found: dict[str, list[tuple[str, int, int, str]]] = {}
    columns = ["study_id", "section", "start", "end", "target"]
    for row in positives.select(columns).to_pylist():
        if row["target"] in taxonomy:
            place = (row["section"], row["start"], row["end"], row["target"])
            found.setdefault(row["study_id"], []).append(place)
    return found


def _span(text: str, sentence: str) -> tuple[int, int] | None:
    """Where a sentence stands in a text, whatever its spaces, case and full stop."""
    words = [re.escape(word) for word in sentence.strip().rstrip(".!?").split()]
    found = re.search(r"\s+".join(words), text, re.IGNORECASE) if words else None
    return found.span() if found else None


def _inside(
    phrases: Iterable[tuple[str, int, int, str]], span: tuple[int, int] | None
) -> Sequence[str]:
    start, end = span or (0, 0)
    return [t for section, a, b, t in phrases if section == SECTION and start <= a and b <= end]


def _name(key: tuple[str, str]) -> str:
    return "\n".join(key)
