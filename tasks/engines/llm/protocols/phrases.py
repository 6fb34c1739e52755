"""Turns the proposals of a model for a sentence into phrases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.records import Modifiers, Phrase
from tasks.engines.llm.protocols.alignment import Aligned, Proposal, align, bare_words
from tasks.engines.llm.protocols.embedded import embedded_steps
from tasks.engines.llm.protocols.names import SAME, TargetNames
from tasks.engines.llm.protocols.units import SentencePlace
from tasks.engines.metering import consume
from tasks.engines.protocols import Failure
from taxonomy.targets import Taxonomy
from taxonomy.words import phrase_key


class Outcome(NamedTuple):
    """A phrase or why there is none, and the number of the proposal that it comes from."""

    phrase: Phrase | Failure
    proposal: int


class PhraseBuilder:
    """Aligns proposals, names their targets, and reads side, zone and number beside them.

    Sides, zones and counts are those that the lexicon finds at the same words: grammar decides
    them, so no tokens are spent on them.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._names = TargetNames(taxonomy)
        self._lexicon = embedded_steps(taxonomy).extractor
        targets = taxonomy.targets.values()
        self._findings = {t.name for t in targets if t.category == "abnormality"}

    def build(
        self, text: str, place: SentencePlace, proposals: Sequence[Proposal]
    ) -> list[Outcome]:
        """Phrases of one sentence in order of start, then the failures; offsets into the text.

        Codes of failures: `unknown_target`, and those of `alignment.align`. Counted are the
        `proposals`, those that are `proposals_accepted`, and the `fuzzy_phrases` among them.
        """
        sentence = text[place.start : place.end]
        targets = [self.target(bare_words(p.words), p.target) for p in proposals]
        known = [i for i, target in enumerate(targets) if target is not None]
        aligned, unaligned = align(sentence, [proposals[i] for i in known])
        consume(
            proposals=len(proposals),
            proposals_accepted=len({a.proposal for a in aligned}),
            fuzzy_phrases=sum(a.match == "fuzzy" for a in aligned),
        )
        outcomes = [
            Outcome(self._phrase(sentence, place.start, a, str(targets[known[a.proposal]])), i)
            for a in aligned
            for i in [known[a.proposal]]
        ]
        outcomes += [Outcome(failure, known[i]) for i, failure in unaligned]
        return outcomes + [
            Outcome(_unknown(proposal), i)
            for i, proposal in enumerate(proposals)
            if targets[i] is None
        ]

    def target(self, words: str, name: str) -> str | None:
        """The target that a model means by a name at some words; None if there is none.

        Where it means the words themselves, and they are the name of none, the lexicon reads them:
        "mildly hyperexpanded lungs" is hyperinflation. Counted as `targets_by_lexicon`.
        """
        if (target := self._names.meant(words, name)) is not None:
            return target
        if name != SAME and phrase_key(name) != phrase_key(words):
            return None
        if (target := self._read(words)) is not None:
            consume(targets_by_lexicon=1)
        return target

    def _read(self, words: str) -> str | None:
        """The one target of some words: their one finding, or their one structure."""
        named = {phrase.target for phrase in self._lexicon.extract([words])[0]}
        findings = named & self._findings
        candidates = findings or named
        return next(iter(candidates)) if len(candidates) == 1 else None

    def _phrase(self, sentence: str, offset: int, aligned: Aligned, target: str) -> Phrase:
        said = self.modifiers(sentence, aligned.start, aligned.end, target)
        return Phrase(offset + aligned.start, offset + aligned.end, target, said, aligned.match)

    def modifiers(self, sentence: str, start: int, end: int, target: str) -> Modifiers:
        """What a sentence says of side, zone and number of the target at `sentence[start:end]`."""
        at_same_words = [
            phrase
            for phrase in self._lexicon.extract([sentence])[0]
            if phrase.start < end and start < phrase.end
        ]
        same_target = [phrase for phrase in at_same_words if phrase.target == target]
        return next((p.modifiers for p in same_target + at_same_words), Modifiers())


def _unknown(proposal: Proposal) -> Failure:
    return Failure("unknown_target", f"“{proposal.target}” of “{proposal.words}” is no target")
