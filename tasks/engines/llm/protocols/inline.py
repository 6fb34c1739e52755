"""The `inline` protocol: the paper's procedure, in which every step returns the whole report.

Kept for comparison, and for reproducing the paper (VividMed, data synthesis): the
cleaned text comes back whole, then with `[words](target)` tags, then with fewer tags. Unlike the
paper's code, an answer counts only if it is the source again once its tags are stripped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from storage.records import Phrase
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.prompts.prompting import Prompt, load_prompt, protocol_fingerprint
from tasks.engines.llm.protocols.batched_requests import MALFORMED
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.meaning import MeaningCheck
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.step_engine import ProtocolSetup, StepEngine
from tasks.engines.llm.protocols.units import normalize_spaces, sentence_places
from tasks.engines.protocols import CleanedText, Failure, PhraseAnswer, RulesAssertion
from taxonomy.targets import Taxonomy

VERSION = "2"
NAME = "llm-inline"

_TAG = re.compile(r"\[([^\[\]]+)\]\(([^()\[\]]+)\)")
_SPARE_TOKENS = 64
"""Tokens of an answer beyond its text, for the marks around it and a few tags."""


class Tag(NamedTuple):
    """A tag of an answer: `source[start:end]` and the name that the model gave it."""

    start: int
    end: int
    target: str


class _WholeText:
    """Requests a whole text; a unit is a text."""

    units_per_request = 1

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def payload(self, unit: str) -> str:
        """The text itself."""
        return unit

    def request(self, units: Sequence[str], complaint: str = "") -> ChatRequest:
        """The request about one text, free of schema."""
        (text,) = units
        data = fenced(text)
        # A tag at most doubles a text: names are longer than the words that they stand for.
        return ChatRequest(self.prompt.messages(data, complaint), _SPARE_TOKENS + len(data))


class InlineCleanStep(_WholeText):
    """Asks for the cleaned text."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        super().__init__(load_prompt("inline", "clean", dataset))
        embedded = embedded_steps(taxonomy)
        self._check = MeaningCheck(taxonomy, embedded)
        self.fingerprint = protocol_fingerprint(
            NAME,
            VERSION,
            self.prompt,
            chat,
            taxonomy=taxonomy.digest("lexicon"),
            checked_by=self._check.digest,
        )

    def read(self, text: str, units: Sequence[str]) -> list[str | Failure]:
        """The cleaned text, if its meaning is that of its source."""
        (source,) = units
        cleaned = unfenced(text, source)
        if isinstance(cleaned, Failure) or normalize_spaces(cleaned) == normalize_spaces(source):
            return [cleaned]
        return [self._check.cleaned(source, cleaned)]


class InlineExtractStep(_WholeText):
    """Asks for the tagged text; answers tags."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        listing = TargetNames(taxonomy).listing()
        super().__init__(load_prompt("inline", "extract", dataset, {"targets": listing}))
        self.fingerprint = protocol_fingerprint(
            NAME, VERSION, self.prompt, chat, taxonomy=taxonomy.digest("lexicon")
        )

    def read(self, text: str, units: Sequence[str]) -> list[list[Tag] | Failure]:
        """The tags, if the text is its source without them."""
        (source,) = units
        tagged_text = unfenced(text, source)
        return [tagged_text if isinstance(tagged_text, Failure) else read_tags(tagged_text, source)]


class InlineFilterStep(_WholeText):
    """Asks for a tagged text with fewer tags; answers the starts of those that stay."""

    def __init__(self, chat: ChatEngine, dataset: str) -> None:
        super().__init__(load_prompt("inline", "filter", dataset))
        self.fingerprint = protocol_fingerprint(NAME, VERSION, self.prompt, chat)

    def read(self, text: str, units: Sequence[str]) -> list[list[int] | Failure]:
        """Starts of the tags kept; a tag that was not there before fails the text."""
        (given,) = units
        source, had = stripped(given)
        answer = unfenced(text, given)
        kept = answer if isinstance(answer, Failure) else read_tags(answer, source)
        if isinstance(kept, Failure):
            return [kept]
        if added := set(kept) - set(had):
            words = source[min(added).start : min(added).end]
            return [Failure(MALFORMED, f"the tag at “{words}” was added or changed")]
        return [[tag.start for tag in kept]]


class InlineCleaner(StepEngine[str]):
    """Takes the cleaned text as the model writes it."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(InlineCleanStep(setup.chat, setup.dataset, setup.taxonomy), setup)

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts, order kept; removed are the sentences that are not there again."""
        answers = self.answers(list(filter(self.step.prompt.concerns, texts)))
        return [self._cleaned(text, answers.get(text, text)) for text in texts]

    def _cleaned(self, text: str, answer: str | Failure) -> CleanedText | Failure:
        if self.is_left_to_rules(answer):
            by_rules = tuple(text[p.start : p.end] for p in sentence_places(text))
            cleaned = self._embedded.cleaner.clean([text])[0]
            return cleaned if isinstance(cleaned, Failure) else replace(cleaned, by_rules=by_rules)
        return _cleaned(text, answer)


class InlineExtractor(StepEngine[str]):
    """Takes phrases from the tags that the model writes into the text."""

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(InlineExtractStep(setup.chat, setup.dataset, setup.taxonomy), setup)
        self._builder = PhraseBuilder(setup.taxonomy)

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each text; one that did not come back as it was fails whole."""
        answers = self.answers(texts)
        return [self._phrases(text, answers[text]) for text in texts]

    def _phrases(self, text: str, answer: Any | Failure) -> list[Phrase | Failure] | Failure:
        if self.is_left_to_rules(answer):
            return [*self._embedded.phrases(text)]
        if isinstance(answer, Failure):
            return answer
        return [self._phrase(text, Tag(*tag)) for tag in answer]

    def _phrase(self, text: str, tag: Tag) -> Phrase | Failure:
        words = text[tag.start : tag.end]
        target = self._builder.target(words, tag.target)
        if target is None:
            return Failure("unknown_target", f"“{tag.target}” of “{words}” is no target")
        place = next(p for p in reversed(sentence_places(text)) if p.start <= tag.start)
        sentence = text[place.start : place.end]
        said = self._builder.modifiers(
            sentence, tag.start - place.start, tag.end - place.start, target
        )
        return Phrase(tag.start, tag.end, target, said)


class InlineFilter(StepEngine[str]):
    """Counts a phrase as present if its tag stays, as the paper does.

    The prompt keeps what is probable; what is no more than possible is absent.
    """

    def __init__(self, setup: ProtocolSetup) -> None:
        super().__init__(InlineFilterStep(setup.chat, setup.dataset), setup)

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[PhraseAnswer]]:
        """One assertion per phrase, order kept."""
        given = [with_tags(text, own) for text, own in zip(texts, phrases, strict=True)]
        answers = self.answers([u for u, own in zip(given, phrases, strict=True) if own])
        results: list[list[PhraseAnswer]] = []
        for text, unit, own in zip(texts, given, phrases, strict=True):
            answer = answers.get(unit, [])
            if self.is_left_to_rules(answer):
                by_rules = self._embedded.assertions(text, own)
                results.append([RulesAssertion(said) for said in by_rules])
                continue
            results.append(
                [answer] * len(own)
                if isinstance(answer, Failure)
                else ["present" if phrase.start in answer else "absent" for phrase in own]
            )
        return results


def fenced(text: str) -> str:
    """The text between two marks that do not occur in it."""
    mark = _mark(text)
    return f"<{mark}>\n{text}\n</{mark}>"


def unfenced(answer: str, source: str) -> str | Failure:
    """The text between the marks of an answer about a source."""
    mark = _mark(source)
    body = answer.strip()
    opening, closing = f"<{mark}>", f"</{mark}>"
    if not (body.startswith(opening) and body.endswith(closing)):
        return Failure(MALFORMED, f"the text must stand between {opening} and {closing}, alone")
    return body[len(opening) : -len(closing)].strip()


def with_tags(text: str, phrases: Sequence[Phrase]) -> str:
    """The text with its phrases tagged; words of several targets get the tag of the first."""
    pieces: list[str] = []
    end = 0
    for phrase in sorted(phrases, key=lambda p: p.start):
        if phrase.start < end:
            continue
        words = text[phrase.start : phrase.end]
        pieces += [text[end : phrase.start], f"[{words}]({phrase.target})"]
        end = phrase.end
    return "".join([*pieces, text[end:]])


def stripped(tagged: str) -> tuple[str, list[Tag]]:
    """The text without its tags, and the tags with offsets into it."""
    text = ""
    tags: list[Tag] = []
    done = 0
    for match in _TAG.finditer(tagged):
        text += tagged[done : match.start()]
        tags.append(Tag(len(text), len(text) + len(match[1]), match[2].strip()))
        text, done = text + match[1], match.end()
    return text + tagged[done:], tags


def read_tags(tagged: str, source: str) -> list[Tag] | Failure:
    """The tags of a text, with offsets into its source; white space may differ, nothing else."""
    text, tags = stripped(tagged)
    here = [i for i, character in enumerate(text) if not character.isspace()]
    there = [i for i, character in enumerate(source) if not character.isspace()]
    if [text[i] for i in here] != [source[i] for i in there]:
        return Failure(MALFORMED, "without its tags the text is not the text that was given")
    at = dict(zip(here, there, strict=True))
    solid = [t for t in tags if text[t.start : t.end].strip()]
    trimmed = [(t, *_trimmed(text, t.start, t.end)) for t in solid]
    return [Tag(at[start], at[end - 1] + 1, tag.target) for tag, start, end in trimmed]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    words = text[start:end]
    return end - len(words.lstrip()), start + len(words.rstrip())


def _mark(text: str) -> str:
    mark = "report"
    while f"{mark}>" in text:
        mark += "-text"
    return mark


def _cleaned(source: str, answer: str | Failure) -> CleanedText | Failure:
    if isinstance(answer, Failure):
        return answer
    kept = {place.unit.sentence for place in sentence_places(answer)}
    removed = tuple(
        source[p.start : p.end] for p in sentence_places(source) if p.unit.sentence not in kept
    )
    # Where nothing was removed, the source's own white space stays.
    is_same = normalize_spaces(answer) == normalize_spaces(source)
    return CleanedText(source if is_same else answer, removed)
