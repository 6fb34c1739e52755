"""The vocabulary beside the taxonomy, read from `vocabulary.yaml` and compiled for look-up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from storage.records import Laterality
from taxonomy.targets import Target, Taxonomy
from taxonomy.words import WORD_RULES, form, load_yaml, ordinal, phrase_key
from taxonomy.zones import load_zones, zones_digest

_PACKAGED = Path(__file__).with_suffix(".yaml")

LUNG = "lung"
RIB = "rib"
"""The structures whose parts and numbers the grammar composes."""

HALF = "hemi"
"""What the name of one side of a structure may begin with: left hemidiaphragm."""

Kind = Literal[
    "finding", "anatomy", "structure", "said",
    "side", "zone", "zone noun", "place noun", "number", "ordinal", "neither",
]  # fmt: skip


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Predicate(_Model):
    """A finding stated as a predicate of a structure.

    Examples are "heart … enlarged" and "enlargement of the heart".

    whole: the structure belongs to the phrase.
    """

    target: str
    structures: tuple[str, ...]
    states: tuple[str, ...]
    nouns: tuple[str, ...]
    after: tuple[str, ...] = ()
    whole: bool = False


class Refinement(_Model):
    """Words that name a narrower target beside a structure."""

    target: str
    words: tuple[str, ...]
    structures: tuple[str, ...]


class GeneralWords(_Model):
    """Words that name a target only where the words around allow it."""

    target: str
    words: tuple[str, ...]
    unless: Literal["elsewhere", "hardware"] | None = None
    only: Literal["lung", "inside"] | None = None
    instead: dict[str, str] = {}
    inside: dict[str, str] = {}
    also: dict[str, str] = {}
    besides: tuple[str, ...] = ()


class Display(_Model):
    """Words of how an image is shown, and those that may stand before them."""

    words: frozenset[str]
    between: frozenset[str]


class Vocabulary(_Model):
    """`vocabulary.yaml`, and the words of `taxonomy/zones.yaml`."""

    sides: dict[str, tuple[str, ...]]
    zones: dict[str, tuple[str, ...]]
    both_sides: frozenset[str]
    zone_nouns: dict[str, tuple[str, ...]]
    place_nouns: tuple[str, ...]
    lobes: dict[str, str]
    numbers: dict[int, tuple[str | int, ...]]
    ordinals: tuple[str, ...]
    measures: frozenset[str]
    structures: dict[str, tuple[str, ...]]
    structure_zones: dict[str, str]
    composites: dict[str, tuple[str, ...]]
    display: Display
    range_joins: frozenset[str]
    predicates: tuple[Predicate, ...]
    refinements: tuple[Refinement, ...]
    composed: tuple[str, ...]
    shared_heads: dict[str, dict[str, str]]
    places: dict[Literal["lung", "bone", "elsewhere", "hardware"], frozenset[str]]
    findings: tuple[GeneralWords, ...]
    midline: frozenset[str]
    countable: frozenset[str]
    neither: tuple[tuple[str, ...], ...]
    not_with: dict[str, frozenset[str]]
    joins: frozenset[str]
    misspelled: frozenset[str]
    correct: frozenset[str]
    not_degrees: frozenset[str]
    destroying: frozenset[str]
    fillers: dict[str, frozenset[str]]
    sizes: frozenset[str]
    prepositions: frozenset[str]
    linkers: frozenset[str]
    clause_breaks: frozenset[str]
    separators: frozenset[str]
    equates: frozenset[str]
    continuations: frozenset[str]


@cache
def load_vocabulary() -> Vocabulary:
    """The packaged vocabulary."""
    zones = load_zones()
    of_zones = {
        "zones": {name: zone.words for name, zone in zones.items()},
        "zone_nouns": {name: zone.nouns for name, zone in zones.items()},
        "both_sides": {word for zone in zones.values() for word in zone.both_sides},
    }
    return Vocabulary.model_validate(load_yaml(_PACKAGED) | of_zones)


@cache
def target_names() -> frozenset[str]:
    """Every name in the vocabulary that may be a target's, words that are none included."""
    found: set[str] = set()
    waiting: list[object] = [load_yaml(_PACKAGED)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        else:
            found.add(str(item))
    return frozenset(found)


def vocabulary_digest() -> str:
    """SHA-256 of the content of the vocabulary, the zones' words and the word rules."""
    zones = zones_digest("words", "nouns", "both_sides")
    content = json.dumps([load_yaml(_PACKAGED), zones, load_yaml(WORD_RULES)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Term:
    """What a phrase of the vocabulary is.

    `value` is the target, side, zone, number or word. `structure` is what it names for the
    tables of predicates, `said` the state or noun that it says of one. `unless` and `only` name
    groups of places.
    """

    kind: Kind
    value: str = ""
    number: int = 0
    structure: str | None = None
    said: str | None = None
    unless: Literal["elsewhere", "hardware"] | None = None
    only: Literal["lung", "inside"] | None = None
    instead: tuple[tuple[str, str], ...] = ()
    inside: tuple[tuple[str, str], ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    besides: tuple[str, ...] = ()


def base_of(name: str, taxonomy: Taxonomy) -> tuple[str, Laterality | None]:
    """A target's side, and its name without it where that is a target too: ("lung", "left").

    The left hemidiaphragm is the left of the diaphragm.
    """
    words = name.split()
    side: Laterality | None = "left" if "left" in words else "right" if "right" in words else None
    rest = " ".join(words[1:])
    if side != words[0]:
        return name, side
    return next((base for base in (rest, rest.removeprefix(HALF)) if base in taxonomy), name), side


def sided(base: str, side: Laterality | None, taxonomy: Taxonomy) -> str:
    """The target of one side of a structure or finding; its own name if it has none."""
    names = (f"{side} {base}", f"{side} {HALF}{base}") if side else ()
    return next((name for name in names if name in taxonomy), base)


Phrases = Mapping[tuple[str, ...], tuple[str, Term]]
"""Every phrase of the vocabulary with its term, by the words that it is found by."""


def compile_terms(vocabulary: Vocabulary, taxonomy: Taxonomy) -> Phrases:
    """All phrases; one with several roles gets one term with all of them."""
    terms: dict[tuple[str, ...], tuple[str, Term]] = {}
    for phrase, term in _terms(vocabulary, taxonomy):
        key = phrase_key(phrase)
        known = terms.get(key)
        terms[key] = (phrase, _merge(known[1], term) if known else term)
    return terms


def known_words(vocabulary: Vocabulary, phrases: Phrases) -> Iterator[str]:
    """Words in their normal form that are no misspelled ones."""
    yield from (form(word).word for word in vocabulary.correct)
    yield from (word for key in phrases for word in key)
    for words in (*vocabulary.places.values(), *vocabulary.fillers.values()):
        yield from words


def _merge(known: Term, new: Term) -> Term:
    return replace(known, structure=new.structure or known.structure, said=known.said or new.said)


def _terms(vocabulary: Vocabulary, taxonomy: Taxonomy) -> Iterator[tuple[str, Term]]:
    """Every phrase with its role; where two roles clash, the first one listed is the kind."""
    for general in vocabulary.findings:
        term = Term(
            "finding",
            general.target,
            unless=general.unless,
            only=general.only,
            instead=tuple(general.instead.items()),
            inside=tuple(general.inside.items()),
            also=tuple(general.also.items()),
            besides=general.besides,
        )
        yield from ((phrase, term) for phrase in general.words)
    yield from _target_terms(vocabulary, taxonomy)
    yield from _places_and_numbers(vocabulary)
    for structure, phrases in vocabulary.structures.items():
        yield from ((phrase, Term("structure", structure=structure)) for phrase in phrases)
    said = {word for p in vocabulary.predicates for word in (*p.states, *p.nouns)}
    said |= {word for r in vocabulary.refinements for word in r.words}
    yield from ((word, Term("said", said=word)) for word in sorted(said))
    yield from ((phrase, Term("neither")) for row in vocabulary.neither for phrase in row)


def _target_terms(vocabulary: Vocabulary, taxonomy: Taxonomy) -> Iterator[tuple[str, Term]]:
    """The taxonomy's phrases without those that the grammar composes from smaller ones."""
    composed = {phrase_key(phrase) for phrase in vocabulary.composed}
    for target in taxonomy.targets.values():
        if RIB in taxonomy.ancestors(target.name):
            continue
        base = base_of(target.name, taxonomy)[0]
        term = Term("finding", target.name)
        if target.category == "anatomy":
            term = Term("anatomy", target.name, structure=base)
        for phrase in _own_phrases(target, taxonomy):
            if phrase_key(phrase) not in composed:
                yield phrase, term


def _own_phrases(target: Target, taxonomy: Taxonomy) -> Iterator[str]:
    """A target's phrases without those that side, number and a broader target's phrase compose."""
    base = base_of(target.name, taxonomy)[0]
    known = {base, *taxonomy[base].synonyms} if base != target.name else set()
    for phrase in (target.name, *target.synonyms):
        side, _, rest = phrase.partition(" ")
        if rest not in known or side not in ("left", "right"):
            yield phrase


def _places_and_numbers(vocabulary: Vocabulary) -> Iterator[tuple[str, Term]]:
    by_kind: dict[Kind, Mapping[str, tuple[str, ...]]] = {
        "side": vocabulary.sides,
        "zone": vocabulary.zones,
        "zone noun": vocabulary.zone_nouns,
        "place noun": {"": vocabulary.place_nouns},
    }
    for kind, phrases_by_value in by_kind.items():
        for value, phrases in phrases_by_value.items():
            yield from ((phrase, Term(kind, value)) for phrase in phrases)
    for number, words in vocabulary.numbers.items():
        yield from ((str(word), Term("number", number=number)) for word in words)
    for number, word in enumerate(vocabulary.ordinals, start=1):
        yield word, Term("ordinal", number=number)
        yield ordinal(number), Term("ordinal", number=number)
