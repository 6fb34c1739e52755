"""The words of each report, kept beside the cleaned reports, to find those that a change touches.

A line of words for each report, with a space on either side of each word, is searched by a
plain search for " word ", some hundred thousand reports a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from storage.shards import table_from_rows
from tasks.clean import SECTIONS
from tasks.engines.text.lexicon.spelling import Spelling
from tasks.engines.text.lexicon.vocabulary import load_vocabulary
from tasks.engines.text.normalization import readings
from tasks.step import StepOutput
from taxonomy.impact import JOINED, Words
from taxonomy.words import form, tokenize

TABLE = "report_words"
STAGE = "clean"
"""The stage that writes it."""

_WORD = re.compile(r"[^\W_]+")


def with_words(studies: pa.Table, cleaned: StepOutput) -> StepOutput:
    """What cleaning made of studies, with the words of all reports beside it."""
    after = {row["study_id"]: row for row in cleaned.rows.select(_COLUMNS).to_pylist()}
    rows = [
        {name: study[name] for name in _KEY}
        | {"words": line_of(texts(study, after.get(study["study_id"])))}
        for study in studies.select([*_KEY, *SECTIONS]).to_pylist()
    ]
    return replace(cleaned, beside={**cleaned.beside, TABLE: table_from_rows(TABLE, rows)})


def studies_with(index: pa.Table, patterns: Iterable[Words]) -> set[str]:
    """The studies whose report has every word of one of the patterns.

    Args:
        index: rows of `report_words`.
        patterns: words in their normal form.
    """
    lines = index["words"]
    seen: dict[str, pa.ChunkedArray] = {}
    found = None
    for pattern in patterns:
        has_all = None
        for word in pattern:
            if word not in seen:
                seen[word] = pc.match_substring(lines, f" {word} ")
            has_all = seen[word] if has_all is None else pc.and_(has_all, seen[word])
        if has_all is not None:
            found = has_all if found is None else pc.or_(found, has_all)
    if found is None:
        return set()
    return set(index["study_id"].filter(found).to_pylist())


def texts(*reports: dict[str, str | None] | None) -> list[str]:
    """The sections of reports."""
    return [text for report in reports if report for s in SECTIONS if (text := report[s])]


def line_of(sections: Iterable[str]) -> str:
    """The distinct words of some texts, sorted, each between two spaces; empty without words."""
    words: set[str] = set()
    for section in sections:
        apart, *joined = [_words(text) for text in readings(section)]
        words |= apart
        for more in joined:
            words |= more | {JOINED + word for word in more - apart}
    words.update(_spelling().corrections(words).values())
    return f" {' '.join(sorted(words))} " if words else ""


def _words(text: str) -> set[str]:
    words: set[str] = set()
    for found in tokenize(text).forms:
        words.add(found.word)
        if found.capitals:
            words.add(found.capitals)
    # Tokens join compounds and part glued words, which rules read as they stand.
    words.update(form(word).word for word in _WORD.findall(text))
    return words


@cache
def _spelling() -> Spelling:
    """Guesses more than any extractor, as it knows no word that would be no mistake."""
    return Spelling(load_vocabulary().misspelled, ())


_KEY = ("dataset", "split", "study_id")
_COLUMNS = ["study_id", *SECTIONS]
