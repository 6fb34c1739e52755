"""Makes a sentence again of what the rules have left: predicates, commas, capitals, full stops."""

from __future__ import annotations

import re

from tasks.engines.text.cleaning.rules import MARK

_FRAGMENT = 3
"""Words up to which what is left, all of it neutral, is no statement."""

_WORD = re.compile(r"[\w/-]+")
_SPACES = re.compile(r"\s+")

# Each pattern is shown by an example; ¤ is the mark.
_VERB = r"(?:is|are|was|were|appears?|seems?|looks?|(?:has|have|had)(?: been)?)"
_STATE = (
    r"(?:\w+ly )?(?:within|normal|enlarged|unremarkable|clear|intact|not|at|mild|tortuous"
    r"|upper limits|top normal|borderline|prominent)"
)
# "are ¤ and normal", "are normal and ¤"
_SHARED_PREDICATE = re.compile(
    rf"{MARK} ?,? ?(?:and|but) (?={_STATE}\b)| and {MARK}(?= *[,.;]|\s*$)"
)
# "opacity ¤, is compatible with"
_COMMA_BEFORE_VERB = re.compile(
    rf"(?:, )?{MARK}(?: ?{MARK})* ?, (?={_VERB} |(?:may|might|could|can) "
    r"|(?:likely|probably) (?!\w+ing)|(?:suggest|represent|reflect|measure)s?\b)",
    re.IGNORECASE,
)
# "normal and ¤ contours"
_SHARED_ATTRIBUTE = re.compile(
    rf"\b(normal|enlarged|prominent|mild|moderate|small|clear)(?: and| but) {MARK} (?=[a-z])",
    re.IGNORECASE,
)
# "is ¤ and is enlarged"
_SECOND_PREDICATE = re.compile(
    rf"(?:\b{_VERB}\s+(?:\w+ly\s+)*)?{MARK}\s*,?\s+(?:and|but)\s+(?=(?:{_VERB}"
    r"|may|might|could|likely|probably|suggests?|represents?|limits?|obscures?|extends?|involves?|causes?"
    r"|contains?|measures?|reaches|raises?|reflects?|projects?|overl(?:y|ies)|indicates?|accounts?"
    r"|abuts?|ends?|terminates?)\b)",
    re.IGNORECASE,
)
# "cardiomegaly is ¤ and there is an effusion"
_THERE_IS = re.compile(rf"(?<={MARK}) (?:and|but) there (?:is|are) ", re.IGNORECASE)
# "there is an opacity ¤ and is consistent with"
_THERE_IS_WITH_PREDICATE = re.compile(
    rf"^there (?:is|are) (?=[^,;.{MARK}]*{MARK}\s*,?\s+and\s+(?:is|are|may|might|could|likely)\b)",
    re.IGNORECASE,
)
# Where a clause may end: commas, "but", and what follows "is ¤".
_CLAUSE = re.compile(
    rf"([,;]\s+|\s+[-–—]{{1,2}}\s+|\s+but\s+|(?<=\b(?:is|as) {MARK})\s+(?:and|with)\s+"
    rf"|(?<=\bare {MARK})\s+(?:and|with)\s+)",
    re.IGNORECASE,
)
# "¤, likely reflecting improved ventilation": it goes with the statement that it explained.
_EXPLANATION = re.compile(
    r"(?:(?:and|but|now|thus|thereby|most|very|perhaps|possibly|probably|likely) )*"
    r"(?:(?:exaggerat|reflect|suggest|represent|indicat|accentuat|caus|mak|produc|crowd|obscur"
    r"|account|limit)ing|(?:consistent|compatible|in keeping) with|(?:due|related|secondary|owing)"
    r" to|(?:al)?though (?:it|this|that|difficult|evaluation|assessment)|including|such as|which"
    r"|given)\b",
    re.IGNORECASE,
)
# "there is ¤ cardiac silhouette": a structure is always there.
_STRUCTURE_THERE = re.compile(
    rf"\bthere (?:is|are|has been|have been) (?:(?:an?|the) )?{MARK} (?=(?:[\w-]+ )?(?:heart"
    r"|silhouette|mediastinum|hil[ai]|aorta|lungs?|volumes?|aeration|inspiration|position|contours?"
    r"|vasculature|size)\b)",
    re.IGNORECASE,
)
# "there has been ¤ edema"
_THERE_HAS_BEEN = re.compile(
    rf"\bthere (?:has|have) been (?=(?:(?:an?|the) )?{MARK} )", re.IGNORECASE
)
# "there is ¤ nodules in both lungs"
_THERE_IS_MANY = re.compile(
    rf"\b(there) is ({MARK} (?:(?!(?:of|in)\b)[\w-]+ ){{0,3}}?(?:opacities|nodules|effusions"
    r"|consolidations|infiltrates|masses|lesions|densities|areas|nodes|fractures|markings|changes|metastases"
    r"|pneumothoraces|deformities|calcifications|granulomas)\b)",
    re.IGNORECASE,
)
# "¤ opacities most likely reflects edema": the verb agreed with "worsening of the opacities".
_PLURAL_SUBJECT = re.compile(
    rf"^(\W*{MARK} (?:[\w-]+ ){{0,3}}?(?:opacities|nodules|effusions|consolidations|infiltrates"
    r"|masses|densities|nodes|fractures|changes|markings|volumes|pneumothoraces)"
    r"(?: (?:in|at|of) (?:the )?(?:[\w-]+ ){1,3}?)?,? ?(?:(?:most|very|likely|probably|also) )*)"
    r"(is|has|was|reflects|represents|suggests|indicates)\b",
    re.IGNORECASE,
)
_PLURAL_VERBS = {"is": "are", "has": "have", "was": "were"}
# "effusion, which is slightly ¤": the verb goes with what was said by it.
_LEFT_PREDICATE = re.compile(
    rf",?(?:\s+(?:which|that))?\s+{_VERB}(?:\s+(?:(?!\w*megaly)\w+ly|also|overall|to be))*\s*{MARK}"
    rf"(?=\s*(?:{MARK}\s*)*(?:[,.;]|$|(?:and|with|in|at|despite|after|following|along|over|throughout"
    r"|accompanied|suggesting|reflecting|representing|indicating|causing|producing)\b))",
    re.IGNORECASE,
)
# "… and the effusion is ¤": what is left of the clause is a note beside the sentence.
_LEFT_SUBJECT = re.compile(
    rf",?\s+and\s+(?:the|his|her|its|their|this|these)\s+(?=(?:[\w-]+\s+){{1,5}}?(?:{_VERB}"
    rf"(?:\s+\w+ly)*\s*)?{MARK}\W*$)",
    re.IGNORECASE,
)
# Links that have lost what they linked, at either end.
_LEADING = re.compile(
    r"^[\s,;:.)]*(?:(?:and|but|with|or|that|which|is|are|however|though|although|to|of)\b[\s,]*)*",
    re.IGNORECASE,
)
_TRAILING = re.compile(
    r"(?:[\s,;:(-]|\b(?:and|with|but|or|which|that|the|a|an|of|in|from|to|by|at|than|as"
    r"|since|for|on|is|are|was|were|however|though|although)\b)*$",
    re.IGNORECASE,
)
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;.]*\s*\)")
_BEFORE_POINT = re.compile(r"\s+(?=[.,;:)])|(?<=\()\s+")
# "no Right effusion", "a opacity", "an nodule"
_NO_BEFORE_CAPITAL = re.compile(r"^no [A-Z](?=[a-z])")
_A_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=[aeio](?!ne?\b|nce\b|u))")
_AN_BEFORE_CONSONANT = re.compile(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwz])")
# A sentence that has lost its verb is a note, without the article: "Right effusion."
_FINITE = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|do|does|may|might|could|can|cannot|will|appears?|seems?"
    r"|shows?|demonstrates?|reveals?|suggests?|represents?|reflects?|obscures?|measures?|extends?"
    r"|overl(?:y|ies)|terminates?|projects?|ends?|lies?|involves?|contains?|raises?|indicates?"
    r"|exclude[sd]?|persists?|consists?|seen|noted|identified|limits?|(?<!-)\w+ed)\b",
    re.IGNORECASE,
)
# "The drain ¤ without pneumothorax"
_WITHOUT = re.compile(r"^without (?:any )?", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|this|these|those|that|his|her)\s+", re.IGNORECASE)
# "The size of the effusion."
_MEASURED = re.compile(
    r"^(?:overall )?(?:the )?(?:overall )?(?:size|degree|extent|amount|severity|volume|number"
    r"|appearance|position|location)(?: (?:and|or) \w+)? of (?:the )?",
    re.IGNORECASE,
)
# "On the right, the effusion."
_ARTICLE_WITHIN = re.compile(r"^((?:on|in|at) [\w ]{1,30}, )the ", re.IGNORECASE)
# "The heart are normal": one of two subjects was lost.
_ONE_SUBJECT = re.compile(
    r"^((?:the )?(?:[\w-]+ )?(?:heart|heart size|mediastinum|aorta|trachea|silhouette|size"
    r"|diaphragm|spine|vasculature|contour))(?:,)? are\b",
    re.IGNORECASE,
)
# A device named by two words that tell nothing each alone.
_DEVICE = re.compile(r"\bchest (?:tube|drain)s?\b", re.IGNORECASE)
_DOUBLE_POINT = re.compile(r"[,;](?:\s*[,;])+")


def mended(marked: str, original: str, neutral: frozenset[str]) -> str:
    """A sentence again, or "" where nothing is told any more.

    Args:
        marked: the sentence with a mark wherever a rule took something out.
        original: the sentence before, for its capital and its full stop.
        neutral: words that tell nothing by themselves; a marked clause of these alone goes.
    """
    text = _THERE_IS_WITH_PREDICATE.sub("", _SPACES.sub(" ", marked).lstrip())
    text = _SHARED_PREDICATE.sub("", text)
    text = _THERE_IS.sub(
        " and ",
        _SECOND_PREDICATE.sub(
            "", _SHARED_ATTRIBUTE.sub(r"\1 ", _COMMA_BEFORE_VERB.sub(f"{MARK} ", text))
        ),
    )
    text = _THERE_HAS_BEEN.sub("", _STRUCTURE_THERE.sub(f"{MARK} ", text))
    text = _THERE_IS_MANY.sub(r"\1 are \2", text)
    text = _PLURAL_SUBJECT.sub(lambda m: m[1] + _PLURAL_VERBS.get(m[2].lower(), m[2][:-1]), text)
    pieces = _CLAUSE.split(text)
    kept = ""
    last_is_lost = False
    for i in range(0, len(pieces), 2):
        holds_more = i + 2 < len(pieces) and pieces[i + 2].lower().startswith("with its ")
        if MARK in pieces[i] and _is_neutral(pieces[i], neutral) and not holds_more:
            last_is_lost = True
            continue
        if last_is_lost and _EXPLANATION.match(pieces[i]):
            continue
        last_is_lost = False
        kept += (pieces[i - 1] if kept else "") + pieces[i]
    if MARK in kept:
        kept = _LEFT_SUBJECT.sub("; ", kept)
    kept = _LEFT_PREDICATE.sub("", kept).replace(MARK, " ")
    words = _WORD.findall(kept)
    if len(words) <= _FRAGMENT and _is_neutral(kept, neutral):
        return ""  # "Overall.", "Left."
    return _punctuated(kept, original)


def ending_of(sentence: str) -> str:
    """The full stop, question or exclamation mark of a sentence, or ""."""
    return sentence[len(sentence.rstrip(".?! ")) :].strip()[:1]


def _is_neutral(clause: str, neutral: frozenset[str]) -> bool:
    return not _DEVICE.search(clause) and all(
        word.lower() in neutral for word in _WORD.findall(clause)
    )


def _punctuated(text: str, original: str) -> str:
    ending = ending_of(original)
    body = _EMPTY_BRACKETS.sub("", _SPACES.sub(" ", text)).strip().rstrip(".?! ")
    body = _TRAILING.sub("", _LEADING.sub("", body))
    body = _DOUBLE_POINT.sub(",", _BEFORE_POINT.sub("", _SPACES.sub(" ", body)))
    if not any(map(str.isalpha, body)):
        return ""
    if not original.lower().startswith("without"):
        body = _WITHOUT.sub("no ", body)
    body = _ONE_SUBJECT.sub(r"\1 is", body)
    if not _FINITE.search(body):
        body = _MEASURED.sub("", body)
        body = _ARTICLE.sub("", _ARTICLE_WITHIN.sub(r"\1", body))
    body = _NO_BEFORE_CAPITAL.sub(lambda match: match[0].lower(), body)
    body = _A_BEFORE_VOWEL.sub(r"\1n ", _AN_BEFORE_CONSONANT.sub(r"\1 ", body))
    if original.isupper():
        body = body.upper()
    elif not original[:1].islower():
        body = body[0].upper() + body[1:]
    return body + ending
