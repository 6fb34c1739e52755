"""Where the audit's two sides differ: the most frequent wordings, each with a person's judgment.

Only the even half is looked at; the odd half stays unread. Judgments were made by reading the
reports and are kept in `disagreements.tsv`.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from tasks.audit.mesh import (
    TagRule,
    coded_targets,
    load_tag_rules,
    manual_tags,
)
from tasks.audit.scores import closed, report_number
from tasks.clean import SECTIONS
from tasks.engines.text.assertion.cues import GRADES, load_cues
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import Taxonomy
from taxonomy.words import tokenize

Kind = Literal["missed", "extra"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A wording over which the sides differ: `extra` is ours alone, `missed` is theirs alone.

    wording: the phrase and the hedge or negation nearest to it, or the tag where the report has
        no such phrase.
    judgment: which side is wrong (`ours`, `theirs`, `neither`) and why; None where not judged.
    """

    kind: Kind
    target: str
    wording: str
    count: int
    example: str
    judgment: tuple[str, str] | None


@cache
def load_judgments() -> Mapping[tuple[str, str, str], tuple[str, str]]:
    """The judgments of `disagreements.tsv` by kind, target and wording, read once."""
    with Path(__file__).with_suffix(".tsv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {
            (row["kind"], row["target"], row["wording"]): (row["wrong"], row["reason"])
            for row in rows
        }


def disagreements(
    studies: pa.Table,
    reports: pa.Table,
    phrases: pa.Table,
    positives: pa.Table,
    taxonomy: Taxonomy,
    limit: int = 30,
) -> list[Disagreement]:
    """The most frequent disagreements of the even half, most frequent first.

    Args:
        studies: the reports, with their tags (`storage.schemas.STUDIES`).
        reports: those that cleaning kept (`storage.schemas.CLEAN_REPORTS`); the others are
            counted by the audit's coverage.
        phrases: every phrase found in them (`storage.schemas.PHRASES`).
        positives: the phrases kept (`storage.schemas.POSITIVES`).
        taxonomy: for the hierarchy.
        limit: how many to give.
    """
    rules = load_tag_rules()
    texts = {r["study_id"]: r for r in reports.select(["study_id", *SECTIONS]).to_pylist()}
    found, kept = _by_study(phrases), _by_study(positives)
    counts: Counter[tuple[Kind, str, str]] = Counter()
    examples: dict[tuple[Kind, str, str], str] = {}
    for study in studies.select(["study_id", "labels"]).to_pylist():
        name = study["study_id"]
        tags = manual_tags(study["labels"])
        if report_number(name) % 2 or not tags or name not in texts:
            continue
        differences = _differences(
            tags, found.get(name, []), kept.get(name, []), texts[name], taxonomy, rules
        )
        for key in differences:
            counts[key] += 1
            examples.setdefault(key, name)
    judgments = load_judgments()
    weight = Counter(key[:2] for key in counts.elements())
    ranked = sorted(counts, key=lambda key: (-counts[key], -weight[key[:2]], key))
    return [
        Disagreement(*key, counts[key], examples[key], judgments.get(key)) for key in ranked[:limit]
    ]


def _by_study(phrases: pa.Table) -> dict[str, list[dict[str, Any]]]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    columns = ["study_id", "section", "start", "end", "target"]
    for row in phrases.select(columns).to_pylist():
        grouped.setdefault(row["study_id"], []).append(row)
    return grouped


def _differences(
    tags: Sequence[str],
    found: Sequence[Mapping[str, Any]],
    kept: Sequence[Mapping[str, Any]],
    sections: Mapping[str, str | None],
    taxonomy: Taxonomy,
    rules: Sequence[TagRule],
) -> Iterator[tuple[Kind, str, str]]:
    """Narrowest differing targets only: a missed rib fracture isn't a missed fracture again."""
    scored = {rule.target for rule in rules}
    coded = coded_targets(tags, rules)
    ours = {phrase["target"] for phrase in kept}
    for target in sorted(coded - closed(ours, taxonomy)):
        phrase = next((p for p in found if p["target"] == target), None)
        wording = (
            _wording_with_cue(phrase, sections) if phrase else _tag_naming(target, tags, rules)
        )
        yield "missed", target, wording
    for target in sorted((ours & scored) - closed(coded, taxonomy)):
        phrase = next(p for p in kept if p["target"] == target)
        yield "extra", target, _wording(phrase, sections)


def _tag_naming(target: str, tags: Sequence[str], rules: Sequence[TagRule]) -> str:
    tag = next(t for t in tags if target in coded_targets([t], rules))
    return f"not worded; coded {tag.split('/')[0]}"


def _wording(phrase: Mapping[str, Any], sections: Mapping[str, str | None]) -> str:
    text = sections[phrase["section"]] or ""
    return " ".join(text[phrase["start"] : phrase["end"]].lower().split())


def _wording_with_cue(phrase: Mapping[str, Any], sections: Mapping[str, str | None]) -> str:
    """The phrase and the hedge or negation nearest to it, which is why it was not kept."""
    text = sections[phrase["section"]] or ""
    start, end = next(s for s in split_sentences(text) if s[0] <= phrase["start"] < s[1])
    tokens = tokenize(text[start:end])
    here = bisect_left(tokens.starts, phrase["start"] - start)
    cues = [
        (abs(first - here), " ".join(form.word for form in tokens.forms[first:after]))
        for first, after, found in load_cues().tree.find(tokens)
        if found[0].meaning in GRADES
    ]
    words = _wording(phrase, sections)
    return f"{min(cues)[1]} … {words}" if cues else words
