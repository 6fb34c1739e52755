"""No text may hold up a text step: every pattern and every step on what repeats without end.

A pattern that tries ever more ways does not fail here, it never returns.
"""

import pytest

from storage.records import Phrase
from storage.sections import read_sections
from tasks.engines.protocols import CleanedText, Failure
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.assertion.cues import load_cues
from tasks.engines.text.cleaning import RulesCleaner
from tasks.engines.text.cleaning.clauses import split_clauses
from tasks.engines.text.cleaning.cleaner import LONGEST_TEXT
from tasks.engines.text.cleaning.debris import without_debris
from tasks.engines.text.cleaning.notes import notes
from tasks.engines.text.cleaning.rules import load_rules
from tasks.engines.text.lexicon import LexiconExtractor
from tasks.engines.text.normalization import normalize, words_of
from tasks.engines.text.sentences import split_sentences
from taxonomy.targets import load_taxonomy

REPEATED = """
XXXX |X|___ |_|[**Name**] |[**|xXxX|the |no |and |or |not |of |in the |to |is |was |a |, |; |. |- |
( |)| |/|'|: |1. |3 mm x |12/12/2012 |stable |left |chest |xray and |prior |effusion |effusion, |
new |interval |slightly |there is |compared to |pa and lateral |view |seen |resolution of |
size and |has been |has |with |more |no change |is unchanged and |than |1.5 cm, |NO FOCAL
|INDICATION: a
|---
""".replace("|\n", "|").split("|")
TAXONOMY = load_taxonomy()
RULES = load_rules(TAXONOMY)
PATTERNS = [
    *(sought.pattern for sought in RULES.every_sought),
    RULES.swept,
]


@pytest.mark.parametrize("token", REPEATED)
def test_every_rule_ends_on_two_hundred_repeats(token):
    for head in ("", "no effusion ", "the heart "):
        text = (head + token * 200)[:1000]
        assert all(len(pattern.sub("", text)) <= len(text) for pattern in PATTERNS)
        assert "".join(link + clause for link, clause in split_clauses(text)) == text
        assert (
            notes(text + "opacity", [(len(text), len(text) + 7, "present")], ".")
            .lower()
            .endswith("opacity.")
        )


def read_normalized(text):
    return normalize(text, words_of(TAXONOMY))


@pytest.mark.parametrize("token", REPEATED)
def test_every_reader_ends_on_a_text_of_a_million_characters(token):
    text = token * (1_000_000 // len(token))
    for read in (split_sentences, read_sections, read_normalized, without_debris):
        read(text)
    (failure,) = RulesCleaner(TAXONOMY).clean([text])
    assert isinstance(failure, Failure)
    assert failure.reason == "too_long_to_read"


@pytest.mark.parametrize("token", REPEATED)
def test_cleaning_ends_on_the_longest_text(token):
    text = token * (LONGEST_TEXT // len(token))
    [cleaned] = RulesCleaner(TAXONOMY).clean([text])
    assert isinstance(cleaned, CleanedText)
    assert len(cleaned.text.replace(" ", "")) <= len(text)


def test_every_cue_ends_on_two_hundred_repeats():
    classifier = ContextClassifier(TAXONOMY)
    for first in list(load_cues().tree._root.next):
        text = f"{first} " * 200 + "effusion"
        phrase = Phrase(len(text) - 8, len(text), "pleural effusion")
        assert len(classifier.classify([text], [[phrase]])[0]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "No pneumothorax.\n" + 78 * "_" + "\nFINAL REPORT",
        78 * "X",
        8 * "XXXX " + "opacity.",
        20 * "___ ",
        20 * "[**Name**] ",
        32 * "_",
        "effusion in the left lung and " * 800,
        "No " + ", ".join(["nodule"] * 4000) + ".",
    ],
    ids=lambda text: text[:20],
)
def test_the_steps_end(text):
    [cleaned] = RulesCleaner(TAXONOMY).clean([text])
    assert isinstance(cleaned, CleanedText)
    LexiconExtractor(TAXONOMY).extract([cleaned.text])
