"""`vividmed tag`: what the text steps find in any text."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import JsonOption, out

if TYPE_CHECKING:
    from tasks.annotate import Annotation


def tag(
    text: Annotated[str, typer.Argument(help="Any report text, or - for standard input.")],
    as_json: JsonOption = False,
) -> None:
    """Show what the text steps find in any text: phrases, targets, assertions."""
    piped = text == "-"
    result = _tag_text(sys.stdin.buffer.read().decode(errors="replace") if piped else text)
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        _print_tagged(result)


def _tag_text(text: str) -> dict[str, Any]:
    """Clean, extract and classify a text with the embedded engines.

    Offsets are code points into `text`, which is the cleaned text.
    """
    from tasks.annotate import annotate_texts
    from tasks.pipeline.engine_choice import choose_engines
    from tasks.pipeline.settings import BuildSettings
    from taxonomy.targets import load_taxonomy

    taxonomy = load_taxonomy()
    engines = choose_engines(BuildSettings(dataset="openi"), taxonomy)
    found = annotate_texts([text], engines, taxonomy)
    if why := _why_not_read(found):
        return {"text": "", "removed": [], "phrases": [], "rejected": why}
    [report] = found.reports.to_pylist() or [{"findings": "", "removed": [text] if text else []}]
    names = ("start", "end", "phrase", "target", "category", "assertion")
    return {
        "text": report["findings"],
        "removed": report["removed"],
        "phrases": [
            {name: row[name] for name in names} | row["modifiers"]
            for row in found.positives.to_pylist()
        ],
    }


def _why_not_read(found: Annotation) -> dict[str, str] | None:
    """The reason for which the text was set aside; none where cleaning just left nothing of it."""
    rejects = [r for r in found.clean.rejects if r.reason not in ("no_text", "report_emptied")]
    return {"reason": rejects[0].reason, "detail": rejects[0].detail} if rejects else None


def _print_tagged(result: dict[str, Any]) -> None:
    from flows.cli.tables import ASSERTION_STYLES, highlighted, phrase_table

    if why := result.get("rejected"):
        out.print(f"not read: {why['detail']} ({why['reason']})", highlight=False, markup=False)
        return
    for passage in result["removed"]:
        out.print(f"removed or rewritten: {passage}", style="dim", highlight=False, markup=False)
    spans = [(p["start"], p["end"], ASSERTION_STYLES[p["assertion"]]) for p in result["phrases"]]
    out.print(highlighted(result["text"], spans))
    if result["phrases"]:
        out.print(phrase_table(result["phrases"]))
    else:
        out.print("no target of the taxonomy is named")
