"""The vocabulary speaks of targets and structures that exist, in words that can be met."""

import pytest

from tasks.engines.text.lexicon import LexiconExtractor
from tasks.engines.text.lexicon.vocabulary import base_of, load_vocabulary
from taxonomy import load_taxonomy
from taxonomy.words import form, phrase_key

TAXONOMY = load_taxonomy()
VOCABULARY = load_vocabulary()


def test_targets_exist():
    named = {p.target for p in VOCABULARY.predicates}
    named |= {r.target for r in VOCABULARY.refinements}
    named |= {g.target for g in VOCABULARY.findings}
    named |= {t for g in VOCABULARY.findings for t in (*g.instead.values(), *g.also.values())}
    named |= {t for heads in VOCABULARY.shared_heads.values() for t in heads.values()}
    named |= {t for p in VOCABULARY.predicates for t in p.after}
    named |= {*VOCABULARY.midline, *VOCABULARY.lobes.values(), *VOCABULARY.not_with}
    assert named - set(TAXONOMY.targets) == set()


def test_structures_exist():
    bases = {base_of(name, TAXONOMY)[0] for name in TAXONOMY.targets}
    used = {structure for p in VOCABULARY.predicates for structure in p.structures}
    used |= {structure for r in VOCABULARY.refinements for structure in r.structures}
    used |= set(VOCABULARY.structure_zones)
    assert used - set(VOCABULARY.structures) - bases == set()


@pytest.mark.parametrize(
    "name",
    ["both_sides", "measures", "midline", "countable", "joins", "prepositions", "linkers",
     "clause_breaks", "separators", "equates", "continuations", "fillers", "places", "not_with"],
)  # fmt: skip
def test_words_compared_singly_are_in_normal_form(name):
    """A plural or British word in these lists would never be met."""
    value = getattr(VOCABULARY, name)
    lists = value.values() if isinstance(value, dict) else [value]
    words = [word for words in lists for word in words if name != "midline"]
    assert [word for word in words if form(word).word != word or " " in word] == []


def test_no_phrase_has_two_meanings():
    meanings: dict[tuple[str, ...], str] = {}
    for general in VOCABULARY.findings:
        for phrase in general.words:
            assert meanings.setdefault(phrase_key(phrase), general.target) == general.target
    for target in TAXONOMY.targets.values():
        for phrase in (target.name, *target.synonyms):
            assert meanings.setdefault(phrase_key(phrase), target.name) == target.name


def test_a_small_taxonomy_gives_its_own_targets_only(tmp_path):
    path = tmp_path / "targets.yaml"
    path.write_text("anatomy: {Chest: {lung: {}}}\nabnormality: {Chest: {pleural effusion: {}}}\n")
    extractor = LexiconExtractor(load_taxonomy(path))
    text = "Nodule in the left lung, enlarged heart, right rib fracture and a pleural effusion."
    found = extractor.extract([text])[0]
    assert [(text[p.start : p.end], p.target) for p in found] == [
        ("lung", "lung"),
        ("pleural effusion", "pleural effusion"),
    ]
