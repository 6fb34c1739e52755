"""The `joint` protocol: cleaning, extraction and assertion asked in one request.

The steps stay three: the cleaner asks, and puts what it learnt of phrases into the memory under
the cleaned text, where the extractor and the filter find it. If that memory is lost, or holds
nothing of a phrase, they ask as the `spans` protocol does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, TypeAdapter

from storage.records import Assertion, Match, Phrase
from tasks.engines.llm.cache.response_cache import AnswerMemory, Memories, digest
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.prompts.prompting import load_prompt, numbered, protocol_fingerprint
from tasks.engines.llm.protocols.alignment import Proposal
from tasks.engines.llm.protocols.batched_requests import MALFORMED
from tasks.engines.llm.protocols.json_answers import (
    answer_bound,
    closed_object,
    read_json,
    require_numbers,
)
from tasks.engines.llm.protocols.names import TargetNames
from tasks.engines.llm.protocols.phrases import PhraseBuilder
from tasks.engines.llm.protocols.spans import (
    Changes,
    SentenceStep,
    SpansExtractor,
    changes_schema,
    cleaned_text,
    phrases_schema,
    read_changes,
)
from tasks.engines.llm.protocols.spans_filter import ASSERTIONS, SpansFilter
from tasks.engines.llm.protocols.step_engine import StepEngine
from tasks.engines.llm.protocols.units import Place, Unit, places_of, rejoin
from tasks.engines.protocols import CleanedText, Failure, Fingerprint
from taxonomy.targets import Taxonomy

VERSION = "1"
NAME = "llm-joint"


class _Answer(Changes):
    present: dict[str, dict[str, str]] = Field(default_factory=dict)
    absent: dict[str, dict[str, str]] = Field(default_factory=dict)
    uncertain: dict[str, dict[str, str]] = Field(default_factory=dict)


_ANSWER = TypeAdapter(_Answer)


class Annotation(NamedTuple):
    """What one answer says of a sentence: its new text as in `CleanStep`, and its phrases."""

    text: str | None
    phrases: Sequence[tuple[str, str, Assertion]]


class _Said(NamedTuple):
    """A phrase of a cleaned text, code points, and what is said of it."""

    start: int
    end: int
    target: str
    assertion: Assertion
    match: Match


class JointStep(SentenceStep):
    """Asks for everything about some sentences at once; answers annotations."""

    def __init__(self, chat: ChatEngine, dataset: str, taxonomy: Taxonomy) -> None:
        self._names = TargetNames(taxonomy)
        self.prompt = load_prompt("joint", "annotate", dataset, {"targets": self._names.listing()})
        self.fingerprint = protocol_fingerprint(
            NAME, VERSION, self.prompt, chat, taxonomy=taxonomy.digest("lexicon")
        )

    def request(self, units: Sequence[Unit], complaint: str = "") -> ChatRequest:
        """The request about some sentences."""
        data = numbered([unit.payload() for unit in units])
        phrases = {str(i): {"$ref": "#/$defs/phrases"} for i in range(1, len(units) + 1)}
        schema = closed_object(
            changes_schema(len(units)) | {a: closed_object(phrases) for a in ASSERTIONS},
            **{"$defs": {"phrases": phrases_schema(self._names)}},
        )
        return ChatRequest(self.prompt.messages(data, complaint), 2 * answer_bound(data), schema)

    def read(self, text: str, units: Sequence[Unit]) -> list[Annotation | Failure]:
        """What is said of each sentence, proposals not yet held against it."""
        answer = read_json(_ANSWER, text)
        texts = read_changes(answer, units, self._names)
        phrases: list[list[tuple[str, str, Assertion]]] = [[] for _ in units]
        for assertion in ASSERTIONS:
            said: dict[str, dict[str, str]] = getattr(answer, assertion)
            require_numbers(said, len(units))
            for number, named in said.items():
                phrases[int(number) - 1] += [(w, target, assertion) for w, target in named.items()]
        return [
            new if isinstance(new, Failure) else _annotation(new, own)
            for new, own in zip(texts, phrases, strict=True)
        ]


def _annotation(
    text: str | None, phrases: Sequence[tuple[str, str, Assertion]]
) -> Annotation | Failure:
    if text == "" and phrases:
        return Failure(MALFORMED, f"the sentence is dropped, yet it has “{phrases[0][0]}”")
    return Annotation(text, phrases)


class JointCleaner(StepEngine[Unit]):
    """Cleans as the model says, and remembers what it says of phrases on the way."""

    def __init__(
        self, chat: ChatEngine, memories: Memories, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Asks through `chat` what the memories do not hold, with the prompts of a dataset."""
        super().__init__(JointStep(chat, dataset, taxonomy), chat, memories)
        self._builder = PhraseBuilder(taxonomy)
        self._learnt = _learnt(memories, self.fingerprint)

    def clean(self, texts: Sequence[str]) -> list[CleanedText | Failure]:
        """Clean section texts; one with a sentence that could not be done fails whole."""
        of_texts = [places_of(text) for text in texts]
        answers = self.answers([place.unit for places in of_texts for place in places])
        results: list[CleanedText | Failure] = []
        learnt: dict[str, str] = {}
        for text, places in zip(texts, of_texts, strict=True):
            said = [
                answer
                if isinstance(answer := answers[place.unit], Failure)
                else Annotation(*answer)
                for place in places
            ]
            cleaned = cleaned_text(
                text, places, [a if isinstance(a, Failure) else a.text for a in said]
            )
            results.append(cleaned)
            if isinstance(cleaned, CleanedText):
                annotations = [a for a in said if isinstance(a, Annotation)]
                learnt[digest(cleaned.text)] = self._phrases(text, places, annotations)
        self._learnt.put(learnt)
        return results

    def _phrases(
        self, text: str, places: Sequence[Place], annotations: Sequence[Annotation]
    ) -> str:
        """The phrases of the cleaned text, as JSON for the memory."""
        new = [
            p.unit.sentence if a.text is None else a.text
            for p, a in zip(places, annotations, strict=True)
        ]
        cleaned, starts = rejoin(text, places, new)
        found: list[_Said] = []
        vain: list[tuple[str, str]] = []
        for start, sentence, annotation in zip(starts, new, annotations, strict=True):
            place = Place(start, start + len(sentence), Unit(sentence))
            proposals = [Proposal(words, target) for words, target, _ in annotation.phrases]
            for phrase, i in self._builder.build(cleaned, place, proposals):
                if isinstance(phrase, Failure):
                    vain.append((phrase.reason, phrase.detail))
                else:
                    assertion = annotation.phrases[i][2]
                    found.append(
                        _Said(phrase.start, phrase.end, phrase.target, assertion, phrase.match)
                    )
        return json.dumps([found, vain], ensure_ascii=False)


class JointExtractor:
    """Gives the phrases that the joint cleaner learnt of; asks for them if that is lost."""

    def __init__(
        self, chat: ChatEngine, memories: Memories, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Shares its memory with the `JointCleaner` of the same chat engine and dataset."""
        self._fingerprint = JointStep(chat, dataset, taxonomy).fingerprint
        self._otherwise = SpansExtractor(chat, memories, taxonomy, dataset)
        self._builder = PhraseBuilder(taxonomy)
        self._learnt = _learnt(memories, self._fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the joint cleaner, and the prompt used if its memory is lost."""
        return {**self._fingerprint, "otherwise": self._otherwise.fingerprint["prompt"]}

    def extract(self, texts: Sequence[str]) -> list[list[Phrase | Failure] | Failure]:
        """Phrases of each cleaned text, and the proposals that were in vain."""
        self._learnt.refresh()
        known = {text: self._learnt.get(digest(text)) for text in texts}
        lost = [text for text, answer in known.items() if answer is None]
        asked = dict(zip(lost, self._otherwise.extract(lost), strict=True))
        return [
            asked[text] if (answer := known[text]) is None else self._recalled(text, answer)
            for text in texts
        ]

    def _recalled(self, text: str, answer: str) -> list[Phrase | Failure]:
        found, vain = json.loads(answer)
        places = places_of(text)
        phrases: list[Phrase | Failure] = []
        for start, end, target, _, match in found:
            place = next(p for p in reversed(places) if p.start <= start)
            sentence = text[place.start : place.end]
            said = self._builder.modifiers(sentence, start - place.start, end - place.start, target)
            phrases.append(Phrase(start, end, target, said, match))
        return phrases + [Failure(*failure) for failure in vain]


class JointFilter:
    """Gives the assertions that the joint cleaner learnt of; asks for them if they are lost."""

    def __init__(
        self, chat: ChatEngine, memories: Memories, taxonomy: Taxonomy, dataset: str
    ) -> None:
        """Shares its memory with the `JointCleaner` of the same chat engine and dataset."""
        self._fingerprint = JointStep(chat, dataset, taxonomy).fingerprint
        self._otherwise = SpansFilter(chat, memories, dataset)
        self._learnt = _learnt(memories, self._fingerprint)

    @property
    def fingerprint(self) -> Fingerprint:
        """That of the joint cleaner, and the prompt used if its memory is lost."""
        return {**self._fingerprint, "otherwise": self._otherwise.fingerprint["prompt"]}

    def classify(
        self, texts: Sequence[str], phrases: Sequence[Sequence[Phrase]]
    ) -> list[list[Assertion | Failure]]:
        """One assertion per phrase, order kept."""
        self._learnt.refresh()
        said = [self._recalled(text) for text in texts]
        lost = [
            [phrase for phrase in own if _key(phrase) not in known]
            for own, known in zip(phrases, said, strict=True)
        ]
        asked = self._otherwise.classify(texts, lost)
        for known, own, answers in zip(said, lost, asked, strict=True):
            known.update(zip(map(_key, own), answers, strict=True))
        return [
            [known[_key(phrase)] for phrase in own]
            for own, known in zip(phrases, said, strict=True)
        ]

    def _recalled(self, text: str) -> dict[tuple[int, int, str], Assertion | Failure]:
        found, _ = json.loads(self._learnt.get(digest(text)) or "[[], []]")
        return {(start, end, target): assertion for start, end, target, assertion, _ in found}


def _learnt(memories: Memories, owner: Fingerprint) -> AnswerMemory:
    return memories.of({**owner, "holds": "phrases of cleaned texts"})


def _key(phrase: Phrase) -> tuple[int, int, str]:
    return phrase.start, phrase.end, phrase.target
