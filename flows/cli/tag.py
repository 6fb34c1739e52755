"""`vividmed tag`: what the text steps find in any text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, out

if TYPE_CHECKING:
    from tasks.pipeline.one_report import AnnotatedPhrase


def tag(
    text: Annotated[str, typer.Argument(help="Any report text, or - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Show what the text steps find in any text: phrases, targets, assertions."""
    from flows.cli.json_output import print_json
    from flows.cli.streams import as_text

    piped = text == "-"
    result = _tag_text(sys.stdin.buffer.read().decode(errors="replace") if piped else as_text(text))
    if as_json:
        print_json(result)
    else:
        _print_tagged(result)


def _tag_text(text: str) -> dict[str, Any]:
    """Clean, extract and classify a text with the embedded engines.

    Offsets are code points into `text`, which is the cleaned text.
    """
    from tasks.pipeline.one_report import annotate_text
    from tasks.pipeline.settings import BuildSettings

    found = annotate_text(text, BuildSettings(dataset="openi"))
    result: dict[str, Any] = {
        "text": found.text,
        "removed": list(found.removed),
        "phrases": [_phrase(phrase) for phrase in found.phrases],
    }
    if found.rejected:
        result["rejected"] = {"reason": found.rejected.reason, "detail": found.rejected.detail}
    return result


def _phrase(phrase: AnnotatedPhrase) -> dict[str, Any]:
    names = ("start", "end", "phrase", "target", "category", "assertion")
    return {name: getattr(phrase, name) for name in names} | phrase.modifiers.to_row()


def _print_tagged(result: dict[str, Any]) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.tables import ASSERTION_STYLES, highlighted, phrase_table

    if why := result.get("rejected"):
        out.print(f"not read: {why['detail']} ({why['reason']})", highlight=False, markup=False)
        return
    for passage in result["removed"]:
        out.print(f"removed or rewritten: {passage}", style="dim", highlight=False, markup=False)
    spans = [(p["start"], p["end"], ASSERTION_STYLES[p["assertion"]]) for p in result["phrases"]]
    out.print(highlighted(result["text"], spans))
    if result["phrases"]:
        print_table(phrase_table(result["phrases"]), out)
    else:
        out.print("no target of the taxonomy is named")
