"""What `audit sentences` prints: the embedded text steps against the gold sentences."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flows.cli.fitting import print_table
from flows.cli.json_output import print_json
from tasks.audit.gold import load_gold
from tasks.audit.gold_scores import GoldScore, GroupScore, Miss, read_sentences, score_sentences
from tasks.audit.scores import Score
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy


def audit_sentences(out: Console, *, as_json: bool) -> None:
    """Print the scores by kind and half, and every difference of the development half."""
    taxonomy = load_taxonomy()
    gold = load_gold(taxonomy)
    settings = BuildSettings(dataset="openi")
    engines = choose_engines(settings, taxonomy)
    readings = read_sentences(
        gold.sentences,
        engines.cleaner,
        engines.extractor,
        engines.filter,
        taxonomy,
        settings.positive,
    )
    result = score_sentences(gold, readings, taxonomy, settings.positive)
    if as_json:
        print_json(result.as_json())
        return
    print_table(_table(result), out)
    out.print("Where the development half differs:")
    for miss in result.misses:
        out.print(_line(miss), highlight=False, markup=False)


def _table(result: GoldScore) -> Table:
    """A row per kind of the development half, then both halves as a whole."""
    title = (
        "Text steps against the gold sentences: phrases (n) and F1\n"
        "graded: mean of present, probable, possible, absent; present: findings kept\n"
        "known: without the targets that the taxonomy lacks"
    )
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("kind")
    for name in (
        "n", "spans", "exact", "target", "graded", "absent", "sides", "present",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for kind, score in result.kinds.items():
        table.add_row(kind, *_cells(score))
    table.add_section()
    for half, score in result.halves.items():
        table.add_row(half, *_cells(score))
        table.add_row(f"{half}, known", *_cells(result.known[half]))
    return table


def _cells(score: GroupScore) -> list[str]:
    graded = sum(s.support for s in score.assertions.values())
    rates = (
        (score.spans.f1, _counted(score.spans)),
        (score.exact.f1, _counted(score.exact)),
        (score.targets.f1, _counted(score.targets)),
        (score.assertion_f1, graded),
        (score.negation.f1, _counted(score.negation)),
        (score.sides.f1, score.sides.support),
        (score.presence.f1, _counted(score.presence)),
    )
    return [str(score.phrases), *(f"{rate:.3f}" if count else "–" for rate, count in rates)]


def _counted(score: Score) -> int:
    """Zero where there is nothing to score: neither in the gold nor found."""
    return score.support + score.predicted


def _line(miss: Miss) -> str:
    line = f"{miss.sentence} {miss.difference}: “{miss.words}” {miss.target}"
    if miss.difference in ("assertion", "side"):
        return f"{line}, {miss.expected} read as {miss.found or 'none'}"
    return f"{line}, {miss.expected or miss.found}"
