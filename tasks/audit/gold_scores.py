"""The text steps against the gold sentences: phrases, targets and assertions, by kind of text.

Extraction and assertion read each text as it stands, uncleaned, so that a phrase has the offsets
of the gold. What the three steps together state as positive is scored beside it, text by text
(`presence`): there a finding that cleaning loses, adds or turns round is an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from storage.records import Assertion
from storage.shards import table_from_rows
from tasks.audit.gold import GoldFile, GoldPhrase, GoldSentence, Grade
from tasks.audit.scores import Score
from tasks.clean import clean_reports
from tasks.engines.protocols import AssertionClassifier, Cleaner, Extractor
from tasks.extract import extract_phrases
from tasks.filter import filter_positives
from taxonomy.targets import Taxonomy

GRADES: tuple[Grade, ...] = get_args(Grade)


Span = tuple[int, int]
Difference = Literal["missed", "extra", "assertion", "side"]
_Counts = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """A phrase that the steps found: code points of the text, half-open."""

    span: Span
    target: str
    assertion: str
    laterality: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the steps made of a text.

    found: every phrase of the uncleaned text.
    positives: the targets kept after cleaning, extraction and assertion.
    """

    found: tuple[Found, ...] = ()
    positives: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Miss:
    """Where a reading differs from the gold of a development sentence."""

    sentence: str
    difference: Difference
    words: str
    target: str
    expected: str
    found: str


@dataclass(frozen=True)
class GroupScore:
    """Scores of a group of texts.

    spans: phrases that overlap, one to one, whatever their target.
    exact: phrases with the gold's very bounds.
    targets: phrases that overlap and have the same target.
    assertions: by grade, over the findings whose target agrees.
    sides: over the phrases whose target agrees and whose side the gold gives.
    presence: (text, finding) pairs that the three steps together state as positive.
    """

    texts: int
    phrases: int
    spans: Score
    exact: Score
    targets: Score
    assertions: Mapping[Grade, Score]
    sides: Score
    presence: Score

    @property
    def assertion_f1(self) -> float:
        """Mean F1 of the grades that the gold has here; 0 without any."""
        scores = [s.f1 for s in self.assertions.values() if s.support]
        return sum(scores) / max(len(scores), 1)

    @property
    def negation(self) -> Score:
        """Of the grade `absent`."""
        return self.assertions["absent"]

    def as_json(self) -> dict[str, Any]:
        """Counts and rates, as JSON values."""
        return {
            "texts": self.texts,
            "phrases": self.phrases,
            "assertion_macro_f1": self.assertion_f1,
            "spans": self.spans.as_json(),
            "exact": self.exact.as_json(),
            "targets": self.targets.as_json(),
            "assertions": {grade: s.as_json() for grade, s in self.assertions.items()},
            "sides": self.sides.as_json(),
            "presence": self.presence.as_json(),
        }


@dataclass(frozen=True)
class GoldScore:
    """Scores by half, and for the development half also by kind with every difference.

    known: the halves again, without the phrases whose target the taxonomy lacks.
    """

    halves: Mapping[str, GroupScore]
    known: Mapping[str, GroupScore]
    kinds: Mapping[str, GroupScore]
    misses: Sequence[Miss]

    def as_json(self) -> dict[str, Any]:
        """Everything a table or a test needs, as JSON values."""
        misses = [
            {name: getattr(miss, name) for name in Miss.__dataclass_fields__}
            for miss in self.misses
        ]
        return {
            "halves": {name: s.as_json() for name, s in self.halves.items()},
            "halves_of_known_targets": {name: s.as_json() for name, s in self.known.items()},
            "dev_by_kind": {name: s.as_json() for name, s in self.kinds.items()},
            "dev_differences": misses,
        }


def read_sentences(
    sentences: Sequence[GoldSentence],
    cleaner: Cleaner,
    extractor: Extractor,
    classifier: AssertionClassifier,
    taxonomy: Taxonomy,
    positive: Collection[Assertion],
) -> dict[str, Reading]:
    """Run the text steps on the sentences; readings by sentence id."""
    texts = [{"study_id": s.id, "findings": s.text} for s in sentences]
    plain = table_from_rows("clean_reports", [text | {"status": "unchanged"} for text in texts])
    phrases = extract_phrases(plain, extractor, taxonomy).rows
    judged = filter_positives(plain, phrases, classifier, get_args(Assertion)).rows
    cleaned = clean_reports(table_from_rows("studies", texts), cleaner, "any").rows
    kept = filter_positives(
        cleaned, extract_phrases(cleaned, extractor, taxonomy).rows, classifier, positive
    ).rows
    found, positives = _rows_by_study(judged), _rows_by_study(kept)
    return {
        s.id: Reading(
            tuple(
                Found(
                    (row["start"], row["end"]),
                    row["target"],
                    row["assertion"],
                    row["modifiers"]["laterality"],
                )
                for row in found[s.id]
            ),
            frozenset(row["target"] for row in positives[s.id]),
        )
        for s in sentences
    }


def _rows_by_study(table: pa.Table) -> defaultdict[str, list[dict[str, Any]]]:
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        rows[row["study_id"]].append(row)
    return rows


def score_sentences(
    gold: GoldFile,
    readings: Mapping[str, Reading],
    taxonomy: Taxonomy,
    positive: Collection[str],
) -> GoldScore:
    """Score readings against the gold.

    Args:
        gold: the sentences.
        readings: what the steps made of them, by sentence id.
        taxonomy: for the category of a target, and which targets it has.
        positive: the assertions that the steps keep; gold phrases of these grades are positive.
    """
    findings = _findings(gold, taxonomy)
    counts = {s.id: _count(s, readings[s.id], findings, positive) for s in gold.sentences}
    without_new = {
        s.id: _count(_without_new(s, taxonomy), readings[s.id], findings, positive)
        for s in gold.sentences
    }
    halves = sorted({s.half for s in gold.sentences})
    dev = [s for s in gold.sentences if s.half == "dev"]

    def group(ids: Iterable[str], counted: Mapping[str, _Counts]) -> GroupScore:
        return _group_score([counted[name] for name in ids])

    def of_half(half: str) -> list[str]:
        return [s.id for s in gold.sentences if s.half == half]

    return GoldScore(
        halves={half: group(of_half(half), counts) for half in halves},
        known={half: group(of_half(half), without_new) for half in halves},
        kinds={
            kind: group([s.id for s in dev if s.kind == kind], counts)
            for kind in dict.fromkeys(s.kind for s in dev)
        },
        misses=[miss for s in dev for miss in _misses(s, readings[s.id])],
    )


def _findings(gold: GoldFile, taxonomy: Taxonomy) -> frozenset[str]:
    new = gold.new_targets.get("abnormality", ())
    return frozenset(new) | {
        t.name for t in taxonomy.targets.values() if t.category == "abnormality"
    }


def _without_new(sentence: GoldSentence, taxonomy: Taxonomy) -> GoldSentence:
    """The sentence with every phrase unscored whose target the taxonomy lacks."""
    phrases = tuple(
        phrase
        if phrase.target is None or phrase.target in taxonomy
        else phrase.model_copy(update={"assertion": "unscored"})
        for phrase in sentence.phrases
    )
    return sentence.model_copy(update={"phrases": phrases})


@dataclass(frozen=True)
class _Comparison:
    """A sentence's scored phrases and what was found, paired where span and target agree."""

    gold: Sequence[GoldPhrase]
    found: Sequence[Found]
    pairs: Sequence[tuple[GoldPhrase, Found]]


def _compare(sentence: GoldSentence, reading: Reading) -> _Comparison:
    """Pair the phrases; what was found in unscored words alone is left out."""
    gold = [p for p in sentence.phrases if p.assertion != "unscored"]
    unscored = [sentence.span(p) for p in sentence.phrases if p.assertion == "unscored"]
    found = [
        one
        for one in reading.found
        if not any(_overlap(one.span, span) for span in unscored)
        or any(_agree(one, phrase, sentence) for phrase in gold)
    ]
    free = list(found)
    pairs = []
    for phrase in gold:
        span = sentence.span(phrase)
        candidates = [one for one in free if _agree(one, phrase, sentence)]
        if candidates:
            best = max(candidates, key=lambda one: _overlap(one.span, span))
            free.remove(best)
            pairs.append((phrase, best))
    return _Comparison(gold, found, pairs)


def _agree(found: Found, phrase: GoldPhrase, sentence: GoldSentence) -> bool:
    return found.target == phrase.target and _overlap(found.span, sentence.span(phrase)) > 0


def _overlap(one: Span, other: Span) -> int:
    """Code points that two spans share."""
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _count(
    sentence: GoldSentence, reading: Reading, findings: Collection[str], positive: Collection[str]
) -> _Counts:
    """Support, predictions and agreements of every measure on one sentence."""
    compared = _compare(sentence, reading)
    counts: _Counts = Counter({("texts", "support"): 1})

    def add(measure: str, support: int, predicted: int, agreed: int) -> None:
        counts[measure, "support"] += support
        counts[measure, "predicted"] += predicted
        counts[measure, "agreed"] += agreed

    gold_spans = sorted({sentence.span(phrase) for phrase in compared.gold})
    found_spans = sorted({one.span for one in compared.found})
    add("spans", len(gold_spans), len(found_spans), _paired(gold_spans, found_spans))
    same = len(set(gold_spans) & set(found_spans))
    add("exact", len(gold_spans), len(found_spans), same)
    add("targets", len(compared.gold), len(compared.found), len(compared.pairs))
    for phrase, one in compared.pairs:
        if phrase.laterality:
            add("sides", 1, one.laterality is not None, one.laterality == phrase.laterality)
        if phrase.target in findings:
            grade = one.assertion
            add(f"assertion {phrase.assertion}", 1, 0, grade == phrase.assertion)
            add(f"assertion {grade}", 0, 1, 0)
    theirs, ours = _presence(sentence, reading, findings, positive)
    add("presence", len(theirs), len(ours), len(theirs & ours))
    return counts


def _paired(gold: Sequence[Span], found: Sequence[Span]) -> int:
    """How many spans overlap, one to one, in the order of the text."""
    free = list(found)
    paired = 0
    for span in gold:
        partner = next((one for one in free if _overlap(one, span)), None)
        if partner is not None:
            free.remove(partner)
            paired += 1
    return paired


def _presence(
    sentence: GoldSentence, reading: Reading, findings: Collection[str], positive: Collection[str]
) -> tuple[set[str], set[str]]:
    """The findings that are positive by the gold and by the steps; those unscored are left out."""
    theirs = {str(p.target) for p in sentence.phrases if p.assertion in positive}
    unscored = [p for p in sentence.phrases if p.assertion == "unscored"]
    ignored = {p.target for p in unscored} | {
        one.target
        for one in reading.found
        if any(_overlap(one.span, sentence.span(phrase)) for phrase in unscored)
    }
    ours = {target for target in reading.positives if target in findings}
    return theirs & set(findings), ours - (ignored - theirs)


def _group_score(counts: Sequence[_Counts]) -> GroupScore:
    total: _Counts = Counter()
    for one in counts:
        total.update(one)

    def score(measure: str) -> Score:
        return Score(*(total[measure, of] for of in ("support", "predicted", "agreed")))

    return GroupScore(
        texts=total["texts", "support"],
        phrases=total["targets", "support"],
        spans=score("spans"),
        exact=score("exact"),
        targets=score("targets"),
        assertions={grade: score(f"assertion {grade}") for grade in GRADES},
        sides=score("sides"),
        presence=score("presence"),
    )


def _misses(sentence: GoldSentence, reading: Reading) -> Iterator[Miss]:
    """Every difference, in the order of the text's gold phrases, then what was found besides."""
    compared = _compare(sentence, reading)
    pairs = {id(phrase): one for phrase, one in compared.pairs}
    for phrase in compared.gold:
        one = pairs.pop(id(phrase), None)
        name = (sentence.id, phrase.words, str(phrase.target))
        if one is None:
            yield _miss(name, "missed", phrase.assertion, "")
            continue
        if one.assertion != phrase.assertion:
            yield _miss(name, "assertion", phrase.assertion, one.assertion)
        if phrase.laterality and one.laterality != phrase.laterality:
            yield _miss(name, "side", phrase.laterality, one.laterality or "")
    paired = {id(one) for _, one in compared.pairs}
    for one in compared.found:
        if id(one) not in paired:
            words = sentence.text[one.span[0] : one.span[1]]
            yield _miss((sentence.id, words, one.target), "extra", "", one.assertion)


def _miss(name: tuple[str, str, str], difference: Difference, expected: str, found: str) -> Miss:
    sentence, words, target = name
    return Miss(sentence, difference, " ".join(words.split()), target, expected, found)
