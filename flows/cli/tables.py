"""Tables and highlighted text for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli.fitting import print_table
from storage.funnel import FOUND, KEPT, added, step_of
from storage.records import MaskKey
from tasks.engines.metering import gpu_s, is_latency, latency_s

if TYPE_CHECKING:
    from storage.datasets.comparison import Funnels
    from tasks.audit.disagreements import Disagreement
    from tasks.audit.grounding import GroundingAudit, GroundingScore
    from tasks.audit.scores import Audit, ReportScores, Score
    from tasks.audit.shipped_labels import LabelAudit
    from tasks.pipeline.run_summary import DatasetSummary

ASSERTION_STYLES = {
    "present": "bold green",
    "probable": "green",
    "possible": "yellow",
    "absent": "red",
}

_MODEL_COUNTS = {
    "units": "sentences or texts",
    "units_cached": "distinct, in the cache",
    "units_asked": "distinct, asked about",
    "requests": "requests",
    "cache_hits": "requests answered by the cache",
    "tokens_in": "tokens in",
    "tokens_out": "tokens out",
}
"""What a plan and a run both count, and its label in their table."""

_MODEL_TIMES: dict[str, Callable[[Mapping[str, int]], float | None]] = {
    "latency, median": lambda usage: latency_s(usage, 0.5),
    "latency, 95 % within": lambda usage: latency_s(usage, 0.95),
    "GPU time": gpu_s,
}


def summary_table(summary: DatasetSummary) -> Table:
    """Rows in, rows out and rejects of every stage of a dataset; shards skipped of all."""
    table = Table(title=summary.dataset, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("unit")
    for name in ("in", "out", "rejected", "rows", "seconds", "skipped"):
        table.add_column(name, justify="right")
    for stage in summary.stages:
        table.add_row(
            stage.stage,
            f"{stage.unit}s",
            f"{stage.rows_in:,}",
            f"{stage.rows_out:,}",
            f"{stage.rejects.total():,}",
            f"{stage.written:,}",
            f"{stage.seconds:.1f}",
            f"{stage.skipped}/{stage.shards}",
        )
    return table


def funnel_table(funnels: Funnels) -> Table:
    """What was found, what each rule took out, and what was kept, in studies and pairs by split."""
    title = "selection"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")
    for split in funnels:
        for unit in ("studies", "pairs"):
            table.add_column(f"{split}\n{unit}", justify="right")
    steps = added(step for funnel in funnels.values() for step in funnel)
    for name in (step.step for step in steps):
        sign = "" if name in (FOUND, KEPT) else "− "
        of_split = [step_of(funnel, name) for funnel in funnels.values()]
        counts = (count for step in of_split for count in (step.studies, step.pairs))
        table.add_row(name, *(f"{sign if count else ''}{count:,}" for count in counts))
    return table


def model_table(title: str, usage: Mapping[str, Mapping[str, int]]) -> Table:
    """Usage of a model by step, planned or measured, and of all steps together.

    A dash stands for what was not measured, as the latencies of a plan.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    total = Counter[str]()
    for counts in usage.values():
        total.update(counts)  # `+` would drop what was measured as 0
    columns = {**usage, "all": total}
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for count, label in _MODEL_COUNTS.items():
        table.add_row(label, *(f"{counts.get(count, 0):,}" for counts in columns.values()))
    for label, seconds in _MODEL_TIMES.items():
        table.add_row(label, *(_time(seconds(counts)) for counts in columns.values()))
    return table


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _is_tabled(name: str) -> bool:
    return name in _MODEL_COUNTS or name == "busy_us" or is_latency(name)


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would choose: "40 ms", "12.5 s", "8.1 min", "3.2 h"."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def summary_lines(summary: DatasetSummary) -> list[str]:
    """What each stage rejected, of records and of an engine's proposals, and further counts."""
    lines = []
    if summary.duplicates and summary.duplicates.studies:
        lines.append(f"  duplicates: {summary.duplicates.sentence()}")
    for stage in summary.stages:
        used = {n: c for n, c in stage.usage.items() if c and not _is_tabled(n)}
        counts = (
            ("rejected", stage.rejects),
            (
                "left out" if stage.stage == "ingest" else "rejected proposals of the engine",
                stage.discarded,
            ),
            ("also counted", Counter(used)),
        )
        for what, count in counts:
            if count:
                listed = ", ".join(f"{name} {n:,}" for name, n in count.most_common())
                lines.append(f"  {stage.stage} {what}: {listed}")
    return lines


def print_summaries(summaries: Iterable[DatasetSummary], out: Console) -> None:
    """The table of every dataset, and below it what the numbers are made of."""
    for summary in summaries:
        print_table(summary_table(summary), out)
        if summary.funnels:
            print_table(funnel_table(summary.funnels), out)
            for line in _compared(summary):
                out.print(f"  {line}", style="dim", highlight=False)
        if asking := {s.stage: s.usage for s in summary.stages if s.used_a_model}:
            title = "requests to the model for these shards, now or earlier"
            print_table(model_table(title, asking), out)
        for stage in summary.stages:
            if said := stage.in_the_models_place():
                out.print(said, style="bold yellow", highlight=False, soft_wrap=True)
        for line in summary_lines(summary):
            out.print(line, style="dim", highlight=False)


def _compared(summary: DatasetSummary) -> Iterable[str]:
    """What the paper kept, where the data set's declaration is known by its name."""
    from storage.datasets.comparison import compared_with_paper
    from storage.datasets.reader import DatasetError
    from storage.datasets.registry import find_declaration

    try:
        return list(compared_with_paper(find_declaration(summary.dataset), summary.funnels))
    except DatasetError:
        return ()


def highlighted(text: str, spans: Iterable[tuple[int, int, str]]) -> Text:
    """Text with `(start, end, style)` spans in colour."""
    result = Text(text)
    for start, end, style in spans:
        result.stylize(style, start, end)
    return result


def phrase_table(phrases: Sequence[Mapping[str, Any]]) -> Table:
    """What the text steps found: phrase, target, assertion and modifiers."""
    table = Table("phrase", "target", "assertion", "side, zone, number", box=SIMPLE_HEAD)
    for phrase in phrases:
        words = [phrase["laterality"], *phrase["zones"], phrase["count"] and f"≥ {phrase['count']}"]
        table.add_row(
            phrase["phrase"],
            phrase["target"],
            Text(phrase["assertion"], ASSERTION_STYLES[phrase["assertion"]]),
            ", ".join(word for word in words if word),
        )
    return table


def tag_table(
    tags: Sequence[Mapping[str, Any]], volumes_mm3: Mapping[MaskKey, float | None]
) -> Table:
    """The tags of a grounded report and what grounds them; volumes by the key of the mask."""
    table = Table("phrase", "target", "grounding", box=SIMPLE_HEAD)
    for tag in tags:
        table.add_row(tag["phrase"], tag["target"], _grounding(tag, volumes_mm3))
    return table


def _grounding(tag: Mapping[str, Any], volumes_mm3: Mapping[MaskKey, float | None]) -> Text:
    if tag["grounding"] == "box":
        return Text("box " + " ".join(map(_corners, tag["boxes"])), "green")
    if tag["grounding"] == "mask":
        volume = volumes_mm3[MaskKey.from_row(tag["mask"])]
        pixels = f"{tag['mask']['voxel_count']:,} pixels"
        size = pixels if volume is None else f"{volume / 1000:.1f} ml"
        return Text(f"mask {size}", "green")
    return Text(f"none: {tag['reason']}", "yellow")


def _corners(box: Mapping[str, Any]) -> str:
    """The lowest corner and the highest: x and y in pixels, or x, y and z in voxels."""
    axes = "xy" if box.get("z_min") is None else "xyz"
    ends = (f"{box[f'{axis}_{end}']:.0f}" for end in ("min", "max") for axis in axes)
    return f"[{' '.join(ends)}]"


def audit_table(result: Audit, reference: str) -> Table:
    """Support, precision, recall and F1 of every target, the two halves side by side."""
    from tasks.audit.scores import MINIMUM_SUPPORT

    title = f"Kept phrases against {reference}: reports (n), precision, recall, F1"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("target")
    for half in ("even", "odd"):
        for name in ("n", "P", "R", "F1"):
            table.add_column(f"{half}\n{name}", justify="right")
    halves = (result.even, result.odd)
    for target in sorted(result.even.targets, key=lambda t: -result.even.targets[t].support):
        table.add_row(target, *(c for half in halves for c in _score_cells(half.targets[target])))
    table.add_section()
    for name, least in (
        ("mean of all targets", 1),
        (f"mean, n ≥ {MINIMUM_SUPPORT}", MINIMUM_SUPPORT),
    ):
        means = (cell for half in halves for cell in ("", "", "", f"{half.mean_f1(least):.3f}"))
        table.add_row(name, *means)
    table.add_row("all (micro)", *(c for half in halves for c in _score_cells(half.overall)))
    coverage = ((f"{half.reports:,}", "", f"{half.coverage:.3f}", "") for half in halves)
    table.add_row("reports, share cleaned", *(cell for cells in coverage for cell in cells))
    return table


def label_audit_table(result: LabelAudit, reference: str) -> Table:
    """Scores of every target that labels name, and what they hold uncertain."""
    title = f"Kept phrases against labels: {reference}"
    table = _scores_table(title, "studies", "P", "R", "F1", "uncertain", "kept")
    scores = result.scores
    for target in sorted(scores.targets, key=lambda t: -scores.targets[t].support):
        doubted = (result.uncertain[target], result.uncertain_found[target])
        table.add_row(target, *_score_cells(scores.targets[target]), *(f"{n:,}" for n in doubted))
    _add_means(table, scores, "studies, share cleaned")
    return table


def phrase_audit_table(scores: ReportScores, unit: str, covered: str) -> Table:
    """Scores of every target that gold phrases name, by study or by sentence.

    `covered` says what the last row's share is of.
    """
    title = f"Kept phrases against gold phrases: {unit}"
    table = _scores_table(title, unit, "P", "R", "F1")
    for target in sorted(scores.targets, key=lambda t: -scores.targets[t].support):
        table.add_row(target, *_score_cells(scores.targets[target]))
    _add_means(table, scores, f"{unit}, {covered}")
    return table


def grounding_table(result: GroundingAudit, what: str) -> Table:
    """Overlap of every target's boxes or masks with the gold."""
    title = f"Our {what} against gold {what}"
    table = _scores_table(title, "n", "none", "IoU", "Dice", "hit", "center", "P")
    named = sorted(result.targets.items(), key=lambda item: -item[1].instances)
    for target, score in named:
        table.add_row(target, *_grounding_cells(score))
    table.add_section()
    table.add_row("all", *_grounding_cells(result.overall))
    return table


def _scores_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("target")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _add_means(table: Table, scores: ReportScores, covered: str) -> None:
    """Rows of all targets together."""
    table.add_section()
    table.add_row("mean of all targets", "", "", "", f"{scores.macro_f1:.3f}")
    table.add_row("all (micro)", *_score_cells(scores.overall))
    table.add_row(covered, f"{scores.reports:,}", "", f"{scores.coverage:.3f}")


def _grounding_cells(score: GroundingScore) -> list[str]:
    rates = score.rates()
    shown = ("iou", "dice", "hit_rate", "center_hit_rate", "precision")
    return [f"{score.instances:,}", f"{score.unanswered:,}", *(f"{rates[n]:.3f}" for n in shown)]


def _score_cells(score: Score) -> list[str]:
    rates = (score.precision, score.recall, score.f1)
    return [f"{score.support:,}", *(f"{rate:.3f}" for rate in rates)]


def disagreement_lines(differences: Iterable[Disagreement]) -> Iterator[str]:
    """The most frequent wordings on which the two sides differ, and which side is wrong."""
    for difference in differences:
        wrong, because = difference.judgment or ("not judged yet", difference.example)
        yield (
            f"{difference.count:3} {difference.kind} {difference.target}: "
            f"{difference.wording} – wrong: {wrong} ({because})"
        )


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Any rows, as they are; a column of numbers stands to the right."""
    held = list(rows)
    table = Table(box=SIMPLE_HEAD)
    for name, *values in zip(columns, *held, strict=True):
        table.add_column(name, justify="right" if _are_figures(values) else "left")
    for row in held:
        table.add_row(*map(_shown, row))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    return "" if value is None else str(value)


def _are_figures(values: Sequence[Any]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, int | float | Decimal) for value in given)
