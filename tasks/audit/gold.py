"""The gold sentences: short texts with the phrases that the text steps should find in them.

`gold_sentences.yaml` was written by hand before any step had read it, and says how it was
annotated; this module checks it whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from taxonomy.reading import Category
from taxonomy.targets import Taxonomy

PACKAGED = Path(__file__).with_name("gold_sentences.yaml")

Half = Literal["dev", "held-out"]
Grade = Literal["present", "probable", "possible", "absent"]

_STRICT = ConfigDict(extra="forbid", frozen=True)


class GoldError(Exception):
    """Gold sentences that cannot be used; the message says which and why."""


class GoldPhrase(BaseModel):
    """Words that name a target, and what the text says of it; see the head of the file.

    occurrence: which one, where the words stand in the text more than once; the first is 1.
    target: None only for words that do not count (`unscored`).
    laterality, zones: given only where they are scored.
    """

    model_config = _STRICT

    words: str
    occurrence: int = 1
    target: str | None = None
    assertion: Grade | Literal["unscored"] = "present"
    laterality: Literal["left", "right", "bilateral"] | None = None
    zones: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_target(self) -> GoldPhrase:
        if self.target is None and self.assertion != "unscored":
            raise ValueError(f"“{self.words}” has no target; only an unscored phrase may lack one")
        return self


class GoldSentence(BaseModel):
    """A text of a kind, in one of the two halves."""

    model_config = _STRICT

    id: str
    kind: str
    half: Half
    text: str
    phrases: tuple[GoldPhrase, ...]

    @model_validator(mode="after")
    def _holds_its_phrases(self) -> GoldSentence:
        for phrase in self.phrases:
            if self.text.count(phrase.words) < phrase.occurrence or phrase.occurrence < 1:
                raise ValueError(
                    f"{self.id}: the text has no occurrence {phrase.occurrence} of “{phrase.words}”"
                )
        return self

    def span(self, phrase: GoldPhrase) -> tuple[int, int]:
        """Code points of the phrase in the text, half-open."""
        start = -1
        for _ in range(phrase.occurrence):
            start = self.text.index(phrase.words, start + 1)
        return start, start + len(phrase.words)


class GoldFile(BaseModel):
    """All sentences, and the targets that they use beyond the taxonomy, by category."""

    model_config = _STRICT

    new_targets: Mapping[Category, tuple[str, ...]]
    sentences: tuple[GoldSentence, ...]

    @model_validator(mode="after")
    def _names_each_once(self) -> GoldFile:
        times = Counter(sentence.id for sentence in self.sentences)
        if twice := [name for name, count in times.items() if count > 1]:
            raise ValueError(f"two sentences have the same id: {', '.join(twice)}")
        return self

    def category(self, target: str, taxonomy: Taxonomy) -> Category:
        """Of a target of the taxonomy or of a new one."""
        if target in taxonomy:
            return taxonomy[target].category
        return next(c for c, names in self.new_targets.items() if target in names)


def load_gold(taxonomy: Taxonomy, path: Path = PACKAGED) -> GoldFile:
    """Read and check a file of gold sentences.

    Raises:
        GoldError: if the file has another form, a phrase is not in its text, or a target is
            neither in the taxonomy nor among the file's new ones.
    """
    try:
        gold = GoldFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise GoldError(f"{path.name} cannot be used: {error}") from error
    known = {*taxonomy.targets, *(n for names in gold.new_targets.values() for n in names)}
    unknown = {
        f"{phrase.target} ({sentence.id})"
        for sentence in gold.sentences
        for phrase in sentence.phrases
        if phrase.target is not None and phrase.target not in known
    }
    if unknown:
        raise GoldError(
            f"{path.name} names targets that neither the taxonomy nor its `new_targets` has: "
            + ", ".join(sorted(unknown))
        )
    return gold
