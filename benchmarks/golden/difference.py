"""What differs between what was frozen and what a store holds now, for a person to judge."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from benchmarks.golden.freezing import KEYS, Frozen, Key, Row, Rows, Words

Kind = Literal["lost", "gained", "changed", "moved"]
KINDS: tuple[Kind, ...] = ("lost", "gained", "changed", "moved")

EXAMPLES = 10
CONTEXT = 30
"""Characters of the report on either side of a tag."""

RELATIVE, ABSOLUTE = 1e-6, 1e-3
"""How far floats may lie apart: pixels, mm³, scores and affines differ in their last bits between
processors. They are kept and compared, not rounded and hashed: two that differ by a bit may lie on
either side of where rounding turns. A thousandth of a pixel is far below what anybody would see,
and above a bit of single precision, 0.0003 at 3,000 pixels."""

FIGURES = {
    "reports": "reports lost, gained or changed",
    "tags": "tags lost, gained, changed or moved",
    "rejects": "reasons of rejects lost, gained or changed",
    "groundings": "boxes and masks lost, gained or changed",
    "counts": "counts of stages that differ",
}
"""The figure in targets.yaml for each part."""


class Change(NamedTuple):
    """A row that differs; `old` or `new` is None where there is none.

    A tag has moved when its report's text changed and the same tag is found at another place.
    """

    part: str
    kind: Kind
    key: Key
    old: Row | None
    new: Row | None


def compare(old: Frozen, new: Frozen) -> list[Change]:
    """Every row that differs, part by part, in the order of the keys."""
    changes: list[Change] = []
    for part, rows in old.parts().items():
        found = _compare_rows(part, rows, new.parts()[part])
        changes += _with_moves(found) if part == "tags" else found
    return changes


def alike(old: Any, new: Any) -> bool:
    """Whether two values are equal, floats as far as processors agree on them."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(alike(old[name], new[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(alike, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(old == new)


def figures(changes: Sequence[Change]) -> dict[str, float]:
    """How many rows of each part differ."""
    counted = Counter(change.part for change in changes)
    return {figure: float(counted[part]) for part, figure in FIGURES.items()}


def show(changes: Sequence[Change], words: Words, say: Callable[[str], None] = print) -> None:
    """Say what differs: how many rows of each kind, and examples in the words of the new store.

    Args:
        changes: from `compare`.
        words: of the new store. The old words are nowhere, so that of a text that changed only
            the new one can be shown.
        say: takes one line.
    """
    grouped: dict[tuple[str, Kind], list[Change]] = defaultdict(list)
    for change in changes:
        grouped[change.part, change.kind].append(change)
    for part in KEYS:
        for kind in KINDS:
            if not (of_kind := grouped[part, kind]):
                continue
            say(f"\n{len(of_kind):,} {part} {kind}")
            if part == "rejects":
                _say_sums(of_kind, say)
            shown = of_kind if part == "counts" else _examples(of_kind)
            for change in shown:
                for line in _LINES[part](change, words):
                    say(f"  {line}")
            if len(shown) < len(of_kind):
                say(f"  … and {len(of_kind) - len(shown):,} more")


def _compare_rows(part: str, old: Rows, new: Rows) -> list[Change]:
    changes = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if after is None:
            changes.append(Change(part, "lost", key, before, None))
        elif before is None:
            changes.append(Change(part, "gained", key, None, after))
        elif not alike(before, after):
            changes.append(Change(part, "changed", key, before, after))
    return sorted(changes, key=lambda change: [(part is not None, part) for part in change.key])


def _with_moves(changes: Sequence[Change]) -> list[Change]:
    """The same, a lost and a gained tag of one report that differ in their place alone as one."""
    lost: dict[Key, list[Change]] = defaultdict(list)
    others: list[Change] = []
    for change in changes:
        if change.kind == "lost":
            lost[change.key[:3]].append(change)
    for change in changes:
        candidates = lost[change.key[:3]] if change.kind == "gained" else []
        before = next((other for other in candidates if alike(other.old, change.new)), None)
        if before is not None:
            candidates.remove(before)
            others.append(Change("tags", "moved", change.key, _placed(before), change.new))
        elif change.kind != "lost":
            others.append(change)
    return [*(change for rest in lost.values() for change in rest), *others]


def _placed(change: Change) -> Row:
    return {**(change.old or {}), "start": change.key[3], "end": change.key[4]}


def _examples(changes: Sequence[Change]) -> list[Change]:
    """Some of them, of different studies as far as there are, from all over."""
    first = list({change.key[:2]: change for change in reversed(changes)}.values())[::-1]
    pool = first if len(first) >= EXAMPLES else list(changes)
    step = max(len(pool) / EXAMPLES, 1)
    return [pool[int(number * step)] for number in range(min(EXAMPLES, len(pool)))]


def _say_sums(changes: Sequence[Change], say: Callable[[str], None]) -> None:
    sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    for change in changes:
        dataset, _, stage, reason = change.key
        total = sums[dataset, stage, reason]
        total[0] += 1
        total[1] += (change.old or {}).get("count", 0)
        total[2] += (change.new or {}).get("count", 0)
    for (dataset, stage, reason), (studies, before, after) in sorted(sums.items()):
        say(f"  {dataset}, {stage}, {reason}: {before:,} → {after:,} in {studies:,} studies")


def _report_lines(change: Change, words: Words) -> list[str]:
    old, new = change.old or {}, change.new or {}
    name = _name(change.key)
    if change.kind != "changed":
        return [name]
    lines = [
        f"{name}: {field} {old[field]} → {new[field]}"
        for field in ("split", "provenance")
        if old[field] != new[field]
    ]
    if old["text"] != new["text"]:
        lines.append(f"{name}: text is now “{words.texts[change.key]}”".replace("\n", " "))
    return lines


def _tag_lines(change: Change, words: Words) -> list[str]:
    *report, start, end, _ = change.key
    text = words.texts.get(tuple(report))
    place = f"{_name(tuple(report))} {start}–{end}"
    if text is not None:
        before, after = text[max(0, start - CONTEXT) : start], text[end : end + CONTEXT]
        place += f" “…{before}[{text[start:end]}]{after}…”".replace("\n", " ")
    old, new = change.old or {}, change.new or {}
    if change.kind == "changed":
        return [f"{place}: {field} {a} → {b}" for field, a, b in _fields(old, new)]
    was = f", was at {old['start']}–{old['end']}" if change.kind == "moved" else ""
    tag = new or old
    return [f"{place}: {tag['target']}, {tag['reason'] or tag['grounding']}{was}"]


def _reject_lines(change: Change, words: Words) -> list[str]:
    dataset, study, stage, reason = change.key
    before, after = ((row or {}).get("count", 0) for row in (change.old, change.new))
    details = "; ".join(words.details.get(change.key, ())) or "none now"
    return [f"{dataset} {study}, {stage}, {reason}: {before} → {after}, now: {details}"]


def _other_lines(change: Change, _: Words) -> list[str]:
    name = _name(change.key)
    if change.kind != "changed":
        return [name]
    fields = _fields(change.old or {}, change.new or {})
    return [f"{name}: {field} {a} → {b}" for field, a, b in fields]


_LINES: dict[str, Callable[[Change, Words], list[str]]] = {
    "reports": _report_lines,
    "tags": _tag_lines,
    "rejects": _reject_lines,
    "groundings": _other_lines,
    "counts": _other_lines,
}


def _fields(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """The fields that differ, also within others: name, old value, new value."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [
            (f"{name}.{key}".lstrip("."), old.get(key), new.get(key)) for key in {**old, **new}
        ]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return [] if alike(old, new) else [(name, _readable(old), _readable(new))]
    return [field for key, before, after in pairs for field in _fields(before, after, key)]


def _readable(value: Any) -> Any:
    if isinstance(value, list):
        return "[" + ", ".join(str(_readable(element)) for element in value) + "]"
    if isinstance(value, dict):
        return (
            "(" + ", ".join(f"{name} {_readable(element)}" for name, element in value.items()) + ")"
        )
    return f"{value:.6g}" if isinstance(value, float) else value


def _name(key: Key) -> str:
    # The image of a showcase study has the study's own name.
    return " ".join(dict.fromkeys(str(part) for part in key if part not in (None, "")))
