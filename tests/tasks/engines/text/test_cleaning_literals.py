"""The look-up of words that a pattern needs: never hides a match, and spares most searches."""

from pathlib import Path

import pytest

from tasks.engines.text.cleaning.literals import WordIndex, needs_of
from tasks.engines.text.cleaning.rules import load_rules
from taxonomy.targets import load_taxonomy
from taxonomy.words import load_yaml

CASES = load_yaml(Path(__file__).with_name("cleaning_cases.yaml"))
EVERY = 8
"""Of the texts of the cases, one in so many is tried on all patterns; there are hundreds."""


def _texts(node):
    if isinstance(node, str):
        return {node}
    parts = [*node, *node.values()] if isinstance(node, dict) else node
    return set().union(*map(_texts, parts)) if isinstance(parts, list) else set()


def test_no_rule_is_hidden_from_a_sentence_that_it_matches():
    rules = load_rules(load_taxonomy())
    tried = found = 0
    texts = sorted(_texts(CASES))[::EVERY]
    for text in texts:
        missing = rules.missing(text)
        for sought in rules.every_sought:
            may_match = not sought.needs & missing
            may_match &= any(not way & missing for way in sought.ways)
            tried += may_match
            if sought.pattern.search(text):
                found += 1
                assert may_match, (text, sought.pattern.pattern)
    assert found > len(texts)
    assert tried < 0.1 * len(texts) * len(rules.every_sought)


@pytest.mark.parametrize(
    ("pattern", "text", "may_match"),
    [
        (r"\bnew (?:effusions?|mass)\b", "a new effusion", True),
        (r"\bnew (?:effusions?|mass)\b", "a new nodule", False),
        (r"(?:^|, )is (?:\w+ly )?stable", "is stable", True),
        (r"(?:^|, )is (?:\w+ly )?stable", "this stable", False),
        (r"compared? (?=to|with)", "compare with", True),
        (r"(?:seen on|by) ct|no longer", "seen by ct", True),
        (r"(?:seen on|by) ct|no longer", "seen by no one", False),
        (r"(?<!not )(?:clear)?", "anything", True),
        (r"\W*$|x-?rays?", "", True),
        (r"(?:a{2,3}|b)+c", "aac", True),
        (r"no\s\{lesion\}", "no mass", True),
        (r"no\s\{lesion\}", "no lung", False),
    ],
)
def test_needs_of_a_pattern(pattern, text, may_match):
    index = WordIndex()
    words = {"lesion": frozenset({"mass", "nodule"})}
    ways = [index.add(way) for way in needs_of(pattern, words)]
    assert any(not way & index.missing(text) for way in ways) == may_match
