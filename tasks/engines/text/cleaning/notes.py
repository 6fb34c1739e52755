"""Says in the fewest words what a sentence finds, where the rules leave no sound sentence of it.

"The infiltrates in both lungs are worse than on the film of last night" becomes "Infiltrates in
both lungs.": the words before the finding that describe it, the finding, and its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_DESCRIPTION = (
    r"(?:moderately|mildly|slightly|markedly|very|left|right|both|bilateral|upper|lower|mid|middle"
    r"|mild|severe|small|large|tiny|trace|dense|faint|patchy|hazy|extensive|subtle|diffuse|multiple"
    r"|multifocal|scattered|few|several|old|subcutaneous|loculated|layering|confluent|calcified"
    r"|healed|rounded|nodular|cavitary|lung|lobe|lobes|chest|wall|hilar|rib|aortic"
    r"|\d+(?:\.\d+)?(?: ?x ?\d+(?:\.\d+)?)* ?-?(?:mm|cm)|[\w-]+-sided"
    r"|(?!(?:al|sever|actual|prior|interval|residual|additional|similar|particular|further|other)\b)"
    r"[\w-]{3,}(?:al|ar|ic|ous|ary|tory|ate|tial))"
)
_BEFORE = re.compile(rf"(?:\b{_DESCRIPTION}(?:(?:,| and|/| to)? |-)){{0,8}}\Z", re.IGNORECASE)
_BEFORE_READ = 120
"""Characters before a finding that are looked at; eight words are rarely longer."""

_PLACE = re.compile(
    r" (?:in|of|at|within|along|throughout|involving) (?:(?:the|both|all|a) )?(?:[\w-]+ ){0,4}?"
    r"(?:lungs?|lobes?|bases?|apex|apices|hemithorax|hil[au]m?|zones?|chest|thorax|wall|fields?"
    r"|spine|ribs?|aorta|stomach|svc|atrium|heart|lingula|diaphragm|hemidiaphragms?|clavicle"
    r"|trachea|carina|mediastinum)\b"
)


def notes(sentence: str, findings: Iterable[tuple[int, int]], ending: str) -> str:
    """One note for each finding, a half-open span of the sentence; "" without one."""
    return " ".join(_notes(sentence, findings, ending or "."))


def _notes(sentence: str, findings: Iterable[tuple[int, int]], ending: str) -> Iterator[str]:
    last = 0
    for start, end in sorted(findings):
        if start < last:
            continue
        before = _BEFORE.search(sentence, max(last, start - _BEFORE_READ), start)
        begin = before.start() if before else start
        place = _PLACE.match(sentence, end)
        last = place.end() if place else end
        words = sentence[begin:last].strip(" ,-/")
        yield words[0].upper() + words[1:] + ending
