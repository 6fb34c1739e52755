"""Whatever a model answers, every text is accounted for and nothing wrong is accepted."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import get_args

import pytest

from storage.records import Assertion, Phrase
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.engine import ChatRequest, Completion
from tasks.engines.llm.prompts.prompting import COMPLAINT
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.settings import ProtocolName
from tasks.engines.protocols import CleanedText, Failure
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import SpyEngine

TAXONOMY = load_taxonomy()
RUBBISH = ("", "Sure!", "{}", "[]", '{"1":', '{"99":"drop"}', '{"1":{"moon":1}}', '{"x":{}}', "\0")
ASSERTIONS = get_args(Assertion)


class Monkey:
    """Answers in the shape that is asked for, with words of the text and of its own."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311

    def answer(self, requests: Sequence[ChatRequest]) -> list[Completion]:
        return [self._completion(request) for request in requests]

    def _completion(self, request: ChatRequest) -> Completion:
        if self._random.random() < 0.15:
            return Completion(self._random.choice(RUBBISH), "stop", 1, 1, 0.0)
        finish = "length" if self._random.random() < 0.05 else "stop"
        return Completion(self._plausible(request), finish, 1, 1, 0.0)

    def _plausible(self, request: ChatRequest) -> str:
        data = request.messages[-1].content.split(COMPLAINT)[0]
        if request.schema is None:
            return self._tagged(data)
        sentences = {
            number: payload if isinstance(payload, str) else payload["sentence"]
            for number, payload in json.loads(data).items()
        }
        value = request.schema["$defs"]["value"]
        if value.get("enum") == list(ASSERTIONS):
            return json.dumps(self._judged(request.schema["required"]))
        entries: dict[str, object] = {}
        for number, sentence in sentences.items():
            if value.get("type") == "array":
                entries[number] = self._phrases(sentence)
            elif self._random.random() < 0.1:
                entries[number] = "drop"
            else:
                entry = {
                    "phrases": [
                        [*p, self._random.choice(ASSERTIONS)] for p in self._phrases(sentence)
                    ]
                }
                entry = entry if "phrases" in value["anyOf"][-1]["properties"] else {}
                is_new = self._random.random() < 0.1
                new = {"rewrite": self._rewritten(sentence)} if is_new else {}
                entries[number] = (entry | new) if new else entry.get("phrases", "keep")
        return json.dumps(entries)

    def _phrases(self, sentence: str) -> list[tuple[str, str]]:
        targets = ["lung nodule", "=", "left lung", "pneumonia", "no such target"]
        if self._random.random() < 0.5:
            return []
        named = {self._words(sentence): self._random.choice(targets) for _ in range(3)}
        return list(named.items())

    def _words(self, sentence: str) -> str:
        words = sentence.split() or [""]
        first = self._random.randrange(len(words))
        run = " ".join(words[first : first + self._random.randint(1, 3)])
        slips = [str.upper, str.title, lambda w: w[:-1], lambda w: w + "#1", lambda _: "the moon"]
        return self._random.choice(slips)(run) if self._random.random() < 0.4 else run

    def _rewritten(self, sentence: str) -> str:
        words = sentence.split()
        return self._random.choice([" ".join(words[1:]), "Left pneumonia.", sentence + " 4 mm"])

    def _judged(self, numbers: list[str]) -> dict[str, str]:
        heard = [number for number in numbers if self._random.random() < 0.95]
        return {number: self._random.choice(ASSERTIONS) for number in heard}

    def _tagged(self, data: str) -> str:
        words = [w for w in data.split() if w.isalpha()]
        if not words:
            return data
        word = self._random.choice(words)
        target = self._random.choice(["lung", "moon"])
        return data if "](" in data else data.replace(f" {word} ", f" [{word}]({target}) ")


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("protocol", ["spans", "joint", "inline", "cascade"])
def test_nothing_is_lost_and_every_phrase_is_in_its_text(
    tmp_path: Path, even_texts: list[str], protocol: ProtocolName, seed: int
) -> None:
    texts = [*even_texts[seed::60], "", "."]
    caches = ResponseCaches(Store(str(tmp_path)))
    chat = SpyEngine(Monkey(seed).answer)
    engines = text_engines(protocol, chat, caches, TAXONOMY, "openi", "reject")
    cleaned = engines.cleaner.clean(texts)
    assert len(cleaned) == len(texts)
    kept = [c.text for c in cleaned if isinstance(c, CleanedText)]
    found = engines.extractor.extract(kept)
    assert len(found) == len(kept)
    phrases: list[list[Phrase]] = []
    for text, own in zip(kept, found, strict=True):
        good = [] if isinstance(own, Failure) else [p for p in own if isinstance(p, Phrase)]
        phrases.append(good)
        ends = [0, *(p.end for p in good)]
        for phrase, end in zip(good, ends, strict=False):
            assert end <= phrase.start < phrase.end <= len(text)
            assert phrase.target in TAXONOMY
            assert text[phrase.start : phrase.end].strip()
    said = engines.filter.classify(kept, phrases)
    assert [len(answers) for answers in said] == [len(own) for own in phrases]
    judged = [a for answers in said for a in answers if not isinstance(a, Failure)]
    assert set(judged) <= set(ASSERTIONS)
    # The monkey must have been believed at times, and at times not.
    assert judged
    assert any(isinstance(c, Failure) for c in cleaned)
    rejected = [f for own in found if not isinstance(own, Failure) for f in own]
    assert any(isinstance(f, Failure) for f in rejected)
