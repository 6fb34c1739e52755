"""A dry run: the embedded engines answer in the model's place, in the model's format.

It uses the same prompts, parsers and alignment as a real run, but takes only seconds, so it shows
the requests of a run and the lengths of their answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from storage.records import Phrase
from tasks.engines.llm.chat.engine import ChatRequest, Completion
from tasks.engines.llm.chat.tokens import TokenCounter, request_tokens
from tasks.engines.llm.prompts.prompting import COMPLAINT, load_prompt
from tasks.engines.llm.protocols.alignment import Proposal, align, bare_words, occurrences
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.inline import stripped, with_tags
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.metering import consume
from tasks.engines.protocols import CleanedText, Fingerprint
from taxonomy.targets import Taxonomy

_MARK = re.compile(r"\[\d+: (?P<words>.*?)(?: \| (?P<target>[^|\]]+))?\]")

_INLINE_KEEPS = ("present", "probable")
"""What the filter prompt of the `inline` protocol asks to keep."""


class _Stated(NamedTuple):
    """A phrase of a sentence, code points, with what is said of it where that is asked."""

    start: int
    end: int
    target: str
    assertion: str = ""


class DryRunEngine:
    """Answers every prompt of every protocol as the embedded engines would."""

    concurrency: int | None = None  # the embedded engines run on this machine's CPU

    def __init__(
        self, taxonomy: Taxonomy, dataset: str, count: TokenCounter, fingerprint: Fingerprint
    ) -> None:
        """Has the fingerprint of the engine that it stands for, so that it finds that one's cache.

        Tokens are counted as `tokens_in` and `tokens_out`; `tokens_shared` are those of
        `tokens_in` in the prefix that all requests of a step share, which prefix caching saves.
        """
        self.fingerprint = fingerprint
        self._count = count
        embedded = embedded_steps(taxonomy)
        self._cleaner = embedded.cleaner
        self._lexicon = embedded.extractor
        self._context = embedded.filter
        self._names = TargetNames(taxonomy)
        listing = {"targets": self._names.listing()}
        writers: dict[tuple[str, str], Callable[[str], str]] = {
            ("spans", "clean"): self._clean,
            ("spans", "extract"): self._extract,
            ("spans", "filter"): self._filter,
            ("joint", "annotate"): self._annotate,
            ("inline", "clean"): self._clean_inline,
            ("inline", "extract"): self._extract_inline,
            ("inline", "filter"): self._filter_inline,
        }
        self._writers = {
            load_prompt(*step, dataset, listing).rules: write for step, write in writers.items()
        }

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        """One answer per request, order kept."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> Completion:
        write = self._writers[request.messages[0].content]
        text = write(request.messages[-1].content.split(COMPLAINT)[0])
        tokens_in, shared = request_tokens(request, self._count)
        tokens_out = self._count(text) + 1  # the end of the turn
        consume(requests=1, tokens_in=tokens_in, tokens_shared=shared, tokens_out=tokens_out)
        return Completion(text, "stop", tokens_in, tokens_out, 0.0)

    def _clean(self, data: str) -> str:
        return _compact({n: _change(s, self._cleaned(s)) for n, s in _sentences(data)})

    def _extract(self, data: str) -> str:
        return _compact(
            {n: [[words, t] for words, t, _ in self._named(s)] for n, s in _sentences(data)}
        )

    def _filter(self, data: str) -> str:
        said: dict[str, str] = {}
        for _, marked in _sentences(data):
            sentence, phrases = _unmarked(marked)
            for assertion in self._context.classify([sentence], [phrases])[0]:
                said[str(len(said) + 1)] = assertion
        return _compact(said)

    def _annotate(self, data: str) -> str:
        return _compact({n: self._annotation(s) for n, s in _sentences(data)})

    def _annotation(self, sentence: str) -> Any:
        change = _change(sentence, self._cleaned(sentence))
        if isinstance(change, str):
            return change
        phrases = self._named(change.get("rewrite", sentence))
        return {**change, "phrases": phrases} if change else phrases

    def _clean_inline(self, data: str) -> str:
        opening, text, closing = _fenced(data)
        return opening + self._cleaned(text) + closing

    def _extract_inline(self, data: str) -> str:
        opening, text, closing = _fenced(data)
        return opening + with_tags(text, self._lexicon.extract([text])[0]) + closing

    def _filter_inline(self, data: str) -> str:
        opening, tagged, closing = _fenced(data)
        text, tags = stripped(tagged)
        phrases = [Phrase(*tag) for tag in tags]
        said = self._context.classify([text], [phrases])[0]
        kept = [p for p, assertion in zip(phrases, said, strict=True) if assertion in _INLINE_KEEPS]
        return opening + with_tags(text, kept) + closing

    def _cleaned(self, text: str) -> str:
        (cleaned,) = self._cleaner.clean([text])
        return cleaned.text if isinstance(cleaned, CleanedText) else text

    def _named(self, sentence: str) -> list[tuple[str, str, str]]:
        """Words, target as a model writes it, and assertion of the phrases of a sentence."""
        return [
            (words, self._names.short(bare_words(words), target), assertion)
            for words, target, assertion in _named(sentence, self._stated(sentence))
        ]

    def _stated(self, sentence: str) -> list[_Stated]:
        """The phrases; of words with several targets the first, as a model gives one."""
        first = {(p.start, p.end): p for p in reversed(self._lexicon.extract([sentence])[0])}
        phrases = list(first.values())[::-1]
        said = self._context.classify([sentence], [phrases])[0]
        return [_Stated(p.start, p.end, p.target, a) for p, a in zip(phrases, said, strict=True)]


def _sentences(data: str) -> Iterable[tuple[str, str]]:
    """Number and sentence of each entry of a prompt's data."""
    payloads: Mapping[str, Any] = json.loads(data)
    return [(n, p if isinstance(p, str) else p["sentence"]) for n, p in payloads.items()]


def _fenced(data: str) -> tuple[str, str, str]:
    """The opening mark of a prompt's data, the text, and the closing mark."""
    after, before = data.index("\n") + 1, data.rindex("\n")
    return data[:after], data[after:before], data[before:]


def _change(old: str, new: str) -> str | dict[str, str]:
    """What the clean step answers about a sentence; empty if it stays."""
    if not new:
        return "drop"
    return {"rewrite": new} if new != old else {}


def _compact(answer: Mapping[str, Any]) -> str:
    """JSON without spaces and without what is empty."""
    content = {key: value for key, value in answer.items() if value}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _unmarked(marked: str) -> tuple[str, list[Phrase]]:
    """A sentence without the marks of its phrases, and the phrases."""
    sentence, end = "", 0
    phrases: list[Phrase] = []
    for match in _MARK.finditer(marked):
        sentence += marked[end : match.start()]
        words = match["words"]
        target = match["target"] or words.lower()
        phrases.append(Phrase(len(sentence), len(sentence) + len(words), target))
        sentence, end = sentence + words, match.end()
    return sentence + marked[end:], phrases


def _named(sentence: str, phrases: Sequence[_Stated]) -> list[tuple[str, str, str]]:
    """Words, target and assertion of phrases, with numbers on words where they are needed."""
    groups: dict[str, list[_Stated]] = {}
    for phrase in phrases:
        groups.setdefault(sentence[phrase.start : phrase.end].lower(), []).append(phrase)
    plain = [(sentence[own[0].start : own[0].end], own[0].target, own) for own in groups.values()]
    aligned, _ = align(sentence, [Proposal(words, target) for words, target, _ in plain])
    named: list[tuple[str, str, str]] = []
    for i, (words, target, own) in enumerate(plain):
        reached = {(a.start, a.end) for a in aligned if a.proposal == i}
        alike = len({(p.target, p.assertion) for p in own}) == 1
        if alike and reached == {(p.start, p.end) for p in own}:
            named.append((words, target, own[0].assertion))
            continue
        places = occurrences(sentence, words)
        named += [
            (f"{words}#{places.index((p.start, p.end)) + 1}", p.target, p.assertion) for p in own
        ]
    return named
