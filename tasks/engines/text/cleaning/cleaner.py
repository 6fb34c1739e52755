"""The cleaner: sentence by sentence, until nothing more changes.

What is taken out follows the paper's cleaning prompts (VividMed, section on data synthesis):
comparison and interval change, history, technique, notification, advice, de-identification
debris. What is left is the report's own words in their own order, except for "no" (a finding that
has resolved), "is" or "are" (for "remains"), "in" (for "advanced into"), "and", articles and the
plural of a verb; side, number and negation stay. Where the rules leave no sound sentence, its
findings stay as notes.
Words lost to de-identification that cannot be spared stand as XXXX, whatever stood for them.

No text can hold it up. Every limit counts characters or rounds, never seconds, so that the same
text always ends the same way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from storage.sections import read_sections, stating_sections
from tasks.engines.protocols import CleanedText, Failure, Fingerprint
from tasks.engines.text.cleaning.clauses import joined, split_clauses
from tasks.engines.text.cleaning.debris import LOST, without_debris
from tasks.engines.text.cleaning.guard import shared_guard
from tasks.engines.text.cleaning.mending import ending_of, mended
from tasks.engines.text.cleaning.notes import notes
from tasks.engines.text.cleaning.rules import MARK, SWEEPING_MARK, Rules, load_rules
from tasks.engines.text.collection import without_collection
from tasks.engines.text.language import foreign_language
from tasks.engines.text.normalization import Rewritten, normalize, words_of
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import Taxonomy

VERSION = "7"

LONGEST_TEXT = 100_000
"""Characters of a text that is read; a report of a hundred pages is no report. The longest of
OpenI has 1,500, of MIMIC-CXR some 8,000, a chest CT report some 10,000."""

_LONGEST_SENTENCE = 1_000
"""Characters up to which rules may rewrite a sentence. They take up to quadratic time in it."""

_MOST_ROUNDS = 12
"""Rounds of rules on one sentence, and of sentences on one text; real ones take two or three."""

_LONG_WORD = re.compile(r"\w{60}")
"""No word has 60 letters: what has is no language, and is left as it is."""

_LIST_MARKER = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*•·–])\s+")
_SPACES = re.compile(r"\s+")
_OPEN_CLAUSE = re.compile(rf" ?,\s+(?:and\s+)?{MARK}\s+| and\s+{MARK}\s+(?=\w)")


def refusal(text: str) -> Failure | None:
    """Why a text is not read; None where it is: `too_long_to_read`, `language_not_supported`."""
    if len(text) > LONGEST_TEXT:
        detail = f"the text has {len(text):,} characters; up to {LONGEST_TEXT:,} are read"
        return Failure("too_long_to_read", detail)
    if language := foreign_language(text):
        detail = f"the text is in {language}; only English reports are understood"
        return Failure("language_not_supported", detail)
    return None


class RulesCleaner:
    """Drops or rewrites what one image cannot show; the same text always gives the same."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Compile the rules, with the taxonomy's words for findings in them."""
        self._rules = load_rules(taxonomy)
        self._guard = shared_guard(self._rules.polarity, taxonomy)
        self._known = words_of(taxonomy)
        self._taxonomy = taxonomy.digest("lexicon")
        self._clean = lru_cache(maxsize=1 << 15)(self._read_sentence)

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and the digests of the rules, with what checks them, and the taxonomy."""
        digest = hashlib.sha256(f"{self._rules.digest} {self._guard.digest}".encode()).hexdigest()
        name = {"name": "rules", "version": VERSION}
        return name | {"rules": digest, "taxonomy": self._taxonomy}

    @without_collection
    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts or whole reports, order kept; nothing left gives "".

        A failure: `too_long_to_read`, `language_not_supported`.
        """
        return [self._clean_text(text) for text in texts]

    def _clean_text(self, text: str) -> CleanedText | Failure:
        if failure := refusal(text):
            return failure
        cleaned, removed = self._pass(text)
        before = text
        rounds = 1
        while cleaned != before and rounds < _MOST_ROUNDS:
            before = cleaned  # a second look sees what the first one joined
            cleaned, _ = self._pass(before)
            rounds += 1
        return CleanedText(cleaned, tuple(removed))

    def _pass(self, source: str) -> tuple[str, list[str]]:
        normal = normalize(source, self._known)
        whole = without_debris(normal.text)
        text = whole.text
        kept: list[tuple[str, str]] = []
        removed: list[tuple[int, int]] = []
        end_of_last = kept_from = 0
        for start, end in _sentences(text, removed):
            sentence = _SPACES.sub(" ", text[start:end])
            cleaned, takes_back = self._clean(sentence)
            if kept and takes_back:
                removed.append((kept_from, start))
                kept.pop()
                continue
            as_it_stood = sentence
            if LOST in sentence:  # one placeholder for several is a rewriting too
                as_it_stood = _SPACES.sub(" ", _quoted(source, normal, whole, (start, end)))
            if cleaned != as_it_stood:
                removed.append((start, end))
            if any(map(str.isalnum, cleaned)):
                gap = "\n" if "\n" in text[end_of_last:start] else " "
                kept.append((gap if kept else "", cleaned))
                end_of_last, kept_from = end, start
        return "".join(part for pair in kept for part in pair), [
            _quoted(source, normal, whole, span) for span in sorted(removed)
        ]

    def _read_sentence(self, sentence: str) -> tuple[str, bool]:
        """A sentence cleaned, and whether it takes back the one before it."""
        takes_back = self._rules.takes_back.is_in(sentence, self._rules.missing(sentence))
        return self._clean_sentence(sentence), takes_back

    def _clean_sentence(self, sentence: str) -> str:
        if len(sentence) > _LONGEST_SENTENCE or _LONG_WORD.search(sentence):
            return self._clean_run_on(sentence)
        marker = _LIST_MARKER.match(sentence)
        head = marker[0] if marker else ""
        body = sentence[len(head) :].replace(MARK, "")
        cleaned = self._clean_clauses(body)
        return head + cleaned if cleaned else ""

    def _clean_clauses(self, body: str) -> str:
        """Clean each statement of a sentence alone, where it has several and some rule sees it."""
        if not self._rules.look(body)[1]:
            return body
        clauses = split_clauses(body)
        if len(clauses) > 1:
            cleaned = [(link, clause, self._clean_clause(clause)) for link, clause in clauses]
            if any(clause != after for _, clause, after in cleaned):
                whole = [(link, after, after == clause) for link, clause, after in cleaned]
                return joined(whole, ending_of(body))
        return self._clean_clause(body)

    def _clean_clause(self, body: str) -> str:
        """Clean one statement; where the rules leave no sound one, note what it finds."""
        cleaned = self._by_rules(body)
        rules = self._rules
        missing = rules.missing(cleaned)
        compares = any(sought.is_in(cleaned, missing) for sought in rules.compares)
        breaks = cleaned != body and any(
            sought.is_in(cleaned, missing) and not sought.pattern.search(body)
            for sought in rules.broken
        )
        if not compares and not breaks:
            return cleaned
        if rules.unnoted.pattern.search(body):
            return "" if compares else cleaned
        return notes(body, self._guard.answered(body), ending_of(body))

    def _by_rules(self, body: str) -> str:
        for clauses in (False, True):
            cleaned = self._rewritten(body, clauses=clauses)
            if cleaned in ("", body) or self._is_faithful(body, cleaned):
                return cleaned
        return body

    def _is_faithful(self, body: str, cleaned: str) -> bool:
        """Whether the findings left are asserted as before, what is said of the past aside."""
        if self._guard.agrees(body, cleaned):
            return True
        today = body
        missing = self._rules.missing(body)
        for rule in self._rules.past:
            if rule.concerns(today, missing):
                today = rule.applied(today).replace(SWEEPING_MARK, MARK)
                missing = self._rules.missing(today)
        if today == body:
            return False
        return self._guard.agrees(mended(today, body, self._rules.neutral), cleaned)

    def _rewritten(self, body: str, *, clauses: bool) -> str:
        """What the rules make of a sentence; "" also where they come to no end."""
        for _ in range(_MOST_ROUNDS):
            cleaned = _apply(body, self._rules, clauses=clauses)
            if not cleaned or cleaned == body:
                return cleaned
            body = cleaned
        return ""

    def _clean_run_on(self, sentence: str) -> str:
        """Clean a sentence that is too long to rewrite by its clauses, as sentences of their own.

        A piece without a comma or semicolon to end it, or with a word that is none, is only looked
        at: it stays if no rule concerns it, or goes.
        """
        pieces: list[str] = []
        for piece in _pieces(sentence):
            cleaned = piece
            if not _LONG_WORD.search(piece):
                is_clause = len(piece) <= _LONGEST_SENTENCE // 2 and piece[-1] in ".,;"
                changed = _apply(piece, self._rules, clauses=False) != piece
                if changed:
                    cleaned = self._clean_sentence(piece.rstrip(" ,;")) if is_clause else ""
                    cleaned += piece[-1] if cleaned and piece[-1] in ",;" else ""
            pieces += [cleaned] if cleaned else []
        return " ".join(pieces).rstrip(" ,;")


def _pieces(sentence: str) -> Iterator[str]:
    """The pieces of a run-on sentence, cut after a comma or semicolon where there is one."""
    start = 0
    while start < len(sentence):
        end = min(start + _LONGEST_SENTENCE // 2, len(sentence))
        if end < len(sentence):
            points = (sentence.rfind(sign, start, end) for sign in ("; ", ", ", " "))
            end = next((point + 1 for point in points if point > start), end)
        if piece := sentence[start:end].strip():
            yield piece
        start = end


def _sentences(text: str, removed: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of the sentences that speak of the image; titles and other sections are removed."""
    sections = stating_sections(text)
    if [(s.start, s.body, s.end) for s in sections] == [(0, 0, len(text))]:
        return split_sentences(text)
    stating = {section.start for section in sections}
    for section in read_sections(text):
        end = section.body if section.start in stating else section.end
        if any(map(str.isalnum, text[section.start : end])):
            removed.append((section.start, end))
    return [
        (section.body + start, section.body + end)
        for section in sections
        for start, end in split_sentences(text[section.body : section.end])
    ]


def _quoted(source: str, normal: Rewritten, whole: Rewritten, span: tuple[int, int]) -> str:
    return source[slice(*normal.span(*whole.span(*span)))].strip()


def _apply(sentence: str, rules: Rules, *, clauses: bool) -> str:
    """One round of all rules. `clauses` leaves a semicolon where a word was cut before a comma."""
    changed = sentence
    missing, groups = rules.look(sentence)
    for group in groups:
        for rule in group.rules:
            if rule.sought.needs & missing or not rule.concerns(changed, missing):
                continue
            if rule.action == "drop":
                return ""
            changed = rule.applied(changed)
            if SWEEPING_MARK in changed:
                changed = rules.swept.sub(MARK, _SPACES.sub(" ", changed))
            missing = rules.missing(changed)
    if changed == sentence:
        return sentence
    if clauses:
        changed = _OPEN_CLAUSE.sub("; ", changed)
    return mended(changed, sentence, rules.neutral)
