"""Says in the fewest words what a sentence finds, where the rules leave no sound sentence of it.

"The infiltrates in both lungs are worse than on the film of last night" becomes "Infiltrates in
both lungs.": the words before the finding that describe it, the finding, and its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from storage.records import Assertion

_DESCRIPTION = (
    r"(?:moderately|mildly|slightly|markedly|very|left|right|both|bilateral|upper|lower|mid|middle"
    r"|mild|severe|small|large|tiny|trace|dense|faint|patchy|hazy|extensive|subtle|diffuse|multiple"
    r"|multifocal|scattered|few|several|old|subcutaneous|loculated|layering|confluent|calcified"
    r"|healed|rounded|nodular|cavitary|lung|lobe|lobes|chest|wall|hilar|rib|aortic"
    r"|\d+(?:\.\d+)?(?: ?x ?\d+(?:\.\d+)?)* ?-?(?:mm|cm)|[\w-]+-sided?|[\w-]+-sized|\w+-to-\w+"
    r"|(?!(?:al|sever|actual|prior|interval|residual|additional|similar|particular|further|other)\b)"
    r"[\w-]{3,}(?:al|ar|ic|ous|ary|tory|ate|tial))"
)
_BEFORE = re.compile(rf"(?:\b{_DESCRIPTION}(?:(?:,| and|/| to)? |-)){{0,8}}\Z", re.IGNORECASE)
_BEFORE_READ = 120
"""Characters before a finding that are looked at; eight words are rarely longer."""

_DENIED = re.compile(
    r"\b(?:no|without)(?: (?:any|an?|definite|visible|apparent|evidence of|signs? of))* \Z",
    re.IGNORECASE,
)
_DOUBTED = re.compile(r"\b(?:possible|probable|likely|questionable|suspected) \Z", re.IGNORECASE)
"""What must stand right before a finding that is denied or doubted for it to be noted so."""

_STATE_ALONE = re.compile(r"\w+(?:ed|ous)", re.IGNORECASE)
"""A note that does not say of what: "Tortuous"."""

_PLACE = re.compile(
    r" (?:in|of|at|within|along|throughout|involving) (?:(?:the|both|all|a) )?(?:[\w-]+ ){0,4}?"
    r"(?:lungs?|lobes?|bases?|apex|apices|hemithorax|hil[au]m?|zones?|chest|thorax|wall|fields?"
    r"|spine|ribs?|aorta|stomach|svc|atrium|heart|lingula|diaphragm|hemidiaphragms?|clavicle"
    r"|trachea|carina|mediastinum)\b| on the (?:left|right)\b"
    r"| (?:(?:thoracic|descending|ascending) )?(?:aorta|heart|hil[ai]|silhouette|vasculature)\b"
)


def notes(sentence: str, findings: Iterable[tuple[int, int, Assertion]], ending: str) -> str:
    """One note for each finding; "" without one.

    Args:
        sentence: as it stood.
        findings: half-open spans of it, and how it asserts each. One that is denied or doubted
            from afar is left out.
        ending: of the sentence; a full stop unless given.
    """
    return " ".join(dict.fromkeys(_notes(sentence, findings, ending or ".")))


def _notes(
    sentence: str, findings: Iterable[tuple[int, int, Assertion]], ending: str
) -> Iterator[str]:
    last = 0
    for start, end, answer in sorted(findings):
        if start < last:
            continue
        read_from = max(last, start - _BEFORE_READ)
        before = _BEFORE.search(sentence, read_from, start)
        begin = before.start() if before else start
        prefix = ""
        if answer != "present":
            said = _DENIED if answer == "absent" else _DOUBTED
            found = said.search(sentence, read_from, begin)
            if not found:
                continue
            prefix = "No " if answer == "absent" else found[0]
        place = _PLACE.match(sentence, end)
        last = place.end() if place else end
        words = prefix + sentence[begin:last].strip(" ,-/")
        if _STATE_ALONE.fullmatch(words):
            continue
        yield words[0].upper() + words[1:] + ending
