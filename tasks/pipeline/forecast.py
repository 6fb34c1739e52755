"""What a change of the taxonomy will cost a data set, before anything runs.

The studies that the text steps read again are counted exactly, by the words of their reports, as
the run itself finds them. What the localizers are asked about new phrases, only the run can tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.plans import Holding
from storage.shards import ShardFile, read_shard
from storage.store import Store
from tasks.clean import SECTIONS
from tasks.engines.text.lexicon.vocabulary import target_names
from tasks.engines.text.sentences import split_sentences
from tasks.pipeline import word_index
from tasks.pipeline.word_index import line_of, studies_with
from taxonomy.diff import Change, diff
from taxonomy.impact import Words, impact, words_of_change
from taxonomy.targets import Taxonomy

_AMOUNTS = {
    "requests": "requests",
    "tokens_in": "tokens read",
    "tokens_out": "tokens written",
    "busy_us": "µs of GPU time",
}
"""What engines count of their work, with words for people."""

EXAMPLES = 10
"""Sentences shown for a change: enough to see that a synonym means what was thought."""


@dataclass(frozen=True)
class ChangeForecast:
    """One change of the taxonomy in a data set.

    studies: whose report has the words that it is about; None where words do not tell.
    examples: sentences with these words, of different studies.
    """

    change: Change
    studies: int | None
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """What a change of the taxonomy will cost a data set.

    studies: of the data set.
    read_again: those whose reports the text steps will read again.
    regrounded: targets that other classes ground; a localizer that uses them sees all images again.
    whole: why all reports have to be read again; None if only some have.
    spent: what the engines took for all reports when they last read all of them, by stage.
    """

    dataset: str
    studies: int
    read_again: int
    regrounded: int
    whole: str | None
    changes: tuple[ChangeForecast, ...]
    renamed: Mapping[str, str]
    spent: Mapping[str, Counter[str]]

    def as_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return asdict(self) | {
            "spent": {stage: dict(usage) for stage, usage in self.spent.items()},
            "expected": {name: self.expected(name) for name in _AMOUNTS},
        }

    def lines(self) -> Iterator[str]:
        """Lines for a person."""
        yield (
            f"{self.read_again:,} of {self.studies:,} reports are read again ({self.share:.1%})"
            + (f": {self.whole}" if self.whole else "")
        )
        if self.regrounded:
            yield (
                f"other classes ground {self.regrounded:,} targets: a localizer that uses such "
                "classes works on all images again"
            )
        costs = [f"{self.expected(name):,} {words}" for name, words in _AMOUNTS.items()]
        if any(self.expected(name) for name in _AMOUNTS):
            yield "about " + ", ".join(costs) + ", as far as the response cache has no answer"
        for old, new in self.renamed.items():
            yield f"{old} becomes {new} wherever it is, without an engine"
        if not self.changes:
            yield "no change"
        for found in self.changes:
            count = "" if found.studies is None else f" (in {found.studies:,} reports)"
            yield f"{found.change}{count}"
            yield from (f"    “{sentence}”" for sentence in found.examples)

    @property
    def share(self) -> float:
        """The share of the reports that is read again."""
        return self.read_again / self.studies if self.studies else 0.0

    def expected(self, amount: str) -> int:
        """What of an amount, such as `requests`, the engines will take, by that share."""
        return round(self.share * sum(step[amount] for step in self.spent.values()))


def forecast(store: Store, holding: Holding, old: Taxonomy, new: Taxonomy) -> Forecast:
    """Tell what annotating a data set with another taxonomy will cost.

    Args:
        store: the store that holds it.
        holding: what it holds of the data set.
        old: the taxonomy that it was annotated with.
        new: the one to annotate it with.

    Raises:
        StoreError: if the store cannot be read.
    """
    touched = impact(old, new, target_names())
    indexes = _files(holding, word_index.STAGE, word_index.TABLE)
    changes = diff(old, new)
    words = [words_of_change(change, old, new) for change in changes]
    counts: list[int] = [0] * len(changes)
    examples: list[list[str]] = [[] for _ in changes]
    studies = again = 0
    texts = _files(holding, "ingest", "studies")
    for part, file in indexes.items():
        index = read_shard(store, file)
        studies += index.num_rows
        again += index.num_rows if touched.whole else len(studies_with(index, touched.words))
        for i, patterns in enumerate(words):
            found = studies_with(index, patterns) if patterns else set()
            counts[i] += len(found)
            missing = EXAMPLES - len(examples[i])
            if found and missing > 0:
                reports = read_shard(store, texts[part])
                examples[i] += islice(_sentences(reports, found, patterns), missing)
    return Forecast(
        holding.dataset,
        studies,
        again,
        len({change.target for change in changes if change.kind == "grounding"}),
        touched.whole,
        tuple(
            ChangeForecast(change, counts[i] if words[i] else None, tuple(examples[i]))
            for i, change in enumerate(changes)
        ),
        touched.renamed,
        _spent(holding),
    )


def _files(holding: Holding, stage: str, table: str) -> dict[str, ShardFile]:
    """The shards of a table by part."""
    return {m.part.name: m.outputs[table] for m in holding.current if m.stage == stage}


def _sentences(studies: pa.Table, found: set[str], patterns: Sequence[Words]) -> Iterator[str]:
    """For each study the first sentence that has the words of a pattern."""
    wanted = studies.filter(pc.is_in(studies["study_id"], pa.array(sorted(found))))
    for row in wanted.select(list(SECTIONS)).to_pylist():
        sentences = (
            row[section][start:end]
            for section in SECTIONS
            if row[section]
            for start, end in split_sentences(row[section])
        )
        for sentence in sentences:
            line = line_of([sentence])
            if any(all(f" {word} " in line for word in pattern) for pattern in patterns):
                yield " ".join(sentence.split())
                break


def _spent(holding: Holding) -> dict[str, Counter[str]]:
    """Usage of the engines by stage, of the parts that were read whole."""
    spent: dict[str, Counter[str]] = {}
    for manifest in holding.current:
        if manifest.usage and manifest.renewed is None:
            spent.setdefault(manifest.stage, Counter()).update(manifest.usage)
    return spent
