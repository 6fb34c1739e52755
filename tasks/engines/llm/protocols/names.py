"""The names of targets in prompts, and the targets that a model's own names stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from taxonomy.matcher import Matcher
from taxonomy.targets import Taxonomy
from taxonomy.words import phrase_key

_UNLISTED = frozenset({"Head", "Muscles of back and hip"})
"""Groups that reports of chest and abdomen rarely name: accepted, but not listed in prompts."""

_SIDE = re.compile(r"^(left|right) (.+)$")
_NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")

SAME = "="
"""In an answer: the target is named by the words themselves, ignoring plural and capitals."""


class TargetNames:
    """The targets of a taxonomy by the names that a model may use."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._matcher = Matcher(taxonomy)
        self.all = tuple(sorted(taxonomy.targets))

    def resolve(self, name: str) -> str | None:
        """The target of a whole name or synonym; None if the name is longer or shorter."""
        if name in self._taxonomy:
            return name
        matches = self._matcher.find(name)
        is_whole = len(matches) == 1 and name.strip() == name[matches[0].start : matches[0].end]
        return matches[0].target if is_whole else None

    def meant(self, words: str, name: str) -> str | None:
        """The target that a model means by a name, or by `SAME`, at some words."""
        return self.resolve(words if name == SAME else name)

    def short(self, words: str, target: str) -> str:
        """The target of some words as a model writes it, in the fewest tokens."""
        return SAME if phrase_key(words) == phrase_key(target) else target

    def found_in(self, text: str) -> dict[str, str]:
        """The names and synonyms that occur in a text, with their targets."""
        return {text[m.start : m.end]: m.target for m in self._matcher.find(text)}

    def listing(self) -> str:
        """The names for a prompt: a line per group, sides and numbers combined."""
        groups: dict[str, list[str]] = {}
        for target in self._taxonomy.targets.values():
            if target.group not in _UNLISTED:
                groups.setdefault(f"{target.category}, {target.group}", []).append(target.name)
        return "\n".join(f"{group}: {'; '.join(_compressed(n))}" for group, n in groups.items())


def _compressed(names: Iterable[str]) -> list[str]:
    """`left rib 1`, `right rib 1`, `left rib 2` … as `left|right rib 1-12`."""
    sides: dict[str, list[str]] = {}
    for name in names:
        sided = _SIDE.match(name)
        sides.setdefault(sided[2] if sided else name, []).append(sided[1] if sided else "")
    series: dict[str, tuple[str, str, list[int]]] = {}
    for base, found in sides.items():
        both = "|".join(side for side in found if side)
        label = f"{'[' if '' in found else ''}{both}{']' if '' in found else ''} {base}"
        label = label if both else base
        counted = _NUMBERED.match(label)
        if counted:
            key = f"{counted[1]}#{counted[3]}"
            series.setdefault(key, (counted[1], counted[3], []))[2].append(int(counted[2]))
        else:
            series[label] = (label, "", [])
    return [
        f"{head}{numbers[0]}-{numbers[-1]}{tail}"
        if len(numbers) > 1
        else f"{head}{numbers[0]}{tail}"
        if numbers
        else head
        for head, tail, numbers in series.values()
    ]
