"""Tokens and requests of the LLM protocols on all OpenI reports, before any model has run.

A dry run: the output of the embedded engines is returned as the answers of a model, in the format
of each protocol (`tasks.engines.llm.protocols.dry_run`), so that all protocols carry the same
result. The answers pass the real prompts, parsers, checks and alignment, and the result is compared
with that of the embedded engines. All tokens are counted with one tokenizer: Llama 3's, or the
built-in approximation if the package index is unreachable.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.targets import judge
from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.inputs import fetch, home, input_path
from storage.records import Phrase
from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.tokens import TokenCounter, approximate_tokens, token_counter
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from tasks.engines.llm.protocols.inline import with_tags
from tasks.engines.llm.protocols.spans_filter import by_sentence, marked_unit
from tasks.engines.llm.protocols.units import sentence_places
from tasks.engines.llm.settings import ProtocolName
from tasks.engines.metering import metered
from tasks.engines.protocols import CleanedText, Failure, TextEngines
from tasks.engines.text.assertion import ContextClassifier
from tasks.engines.text.cleaning import RulesCleaner
from tasks.engines.text.lexicon import LexiconExtractor
from taxonomy.targets import Taxonomy, load_taxonomy

TOKENIZER = "llama-models==0.3.0"
PROTOCOLS: tuple[ProtocolName, ...] = ("inline", "spans", "joint", "cascade")
STEPS = ("clean", "extract", "filter")
DRY_RUN = {"name": "dry-run", "version": "1"}

_WITHOUT_HEDGES = {"probable": "present", "possible": "absent"}
"""What a protocol that has no hedges answers in their place."""


@dataclass
class Cost:
    """Requests and tokens of one protocol by step, and its agreement with the embedded engines."""

    requests: list[int] = field(default_factory=list)
    tokens_in: list[int] = field(default_factory=list)
    tokens_shared: list[int] = field(default_factory=list)
    tokens_out: list[int] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    phrases: int = 0
    equal: int = 0

    def add(self, usage: dict[str, int]) -> None:
        """Add a step."""
        for name in ("requests", "tokens_in", "tokens_shared", "tokens_out"):
            getattr(self, name).append(usage.get(name, 0))


def main() -> int:
    """Replay all protocols and print the tables; 1 if a target is missed."""
    reports, texts = _reports()
    taxonomy = load_taxonomy()
    count, tokenizer = _counter()
    _print_sentences(texts)
    baseline = _asked_every_time("inline", texts, taxonomy, count)
    spans_uncached = _asked_every_time("spans", texts, taxonomy, count)
    table = Table(
        title=f"LLM protocols replayed on {reports} OpenI reports ({len(texts)} sections), "
        f"tokens of {tokenizer}",
        title_justify="left",
    )
    table.add_column("protocol")
    for name in ("requests", "of 1/report/step", "in", "in, prefix cached", "out: clean"):
        table.add_column(name, justify="right")
    for name in ("extract", "filter", "out: all", "of inline", "phrases", "as embedded"):
        table.add_column(name, justify="right")
    _row(table, "inline, without cache", baseline, baseline, reports)
    _row(table, "spans, without cache", spans_uncached, baseline, reports)
    costs = {protocol: _replay(protocol, texts, taxonomy, count) for protocol in PROTOCOLS}
    for protocol, cost in costs.items():
        _row(table, protocol, cost, baseline, reports)
    Console(width=180).print(table)
    inline_out = sum(costs["inline"].tokens_out)
    for protocol in PROTOCOLS[1:]:
        share = sum(costs[protocol].tokens_out) / inline_out
        print(f"{protocol}: {share:.1%} of the output tokens of inline with equal texts asked once")
    for refused in costs["spans"].refused:
        print(f"refused, as expected: {refused.reason}: {refused.detail}")
    if count is not approximate_tokens:
        _print_calibration(texts, count)
    return judge("llm_tokens", _figures(costs, baseline, reports))


def _figures(costs: Mapping[ProtocolName, Cost], baseline: Cost, reports: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    names: tuple[ProtocolName, ...] = ("spans", "joint")
    for name in names:
        written, asked = sum(costs[name].tokens_out), sum(costs[name].requests)
        figures[f"{name}, share of the output tokens of inline"] = written / sum(
            baseline.tokens_out
        )
        figures[f"{name}, share of the requests"] = asked / (len(STEPS) * reports)
    return figures


def _reports() -> tuple[int, list[str]]:
    fetch(["openi"])
    reader = find_declaration("openi").open(input_path("openi/NLMCXR_reports.tgz").parent)
    studies = [s for s in reader.read(reader.records()) if isinstance(s, Study)]
    sections = [[t for t in (s.findings, s.impression) if t] for s in studies]
    return sum(map(bool, sections)), [text for texts in sections for text in texts]


def _print_sentences(texts: Sequence[str]) -> None:
    units = [place.unit for text in texts for place in sentence_places(text)]
    alone = [unit for unit in units if not unit.before]
    print(
        f"{len(units)} sentences, {len(units) - len(alone)} of them not understood alone; asked "
        f"about once each: {len(set(units))}, of which {len(set(units)) - len(set(alone))} with "
        "what stands before them"
    )


def _asked_every_time(
    protocol: ProtocolName, texts: Sequence[str], taxonomy: Taxonomy, count: TokenCounter
) -> Cost:
    """One request for each section and step, also for repeated sentences and texts."""
    chat = DryRunEngine(taxonomy, "openi", count, DRY_RUN)
    caches = ResponseCaches(Store("."), writes=False)
    engines = text_engines(protocol, chat, caches, taxonomy, "openi")
    answers = RulesCleaner(taxonomy).clean(texts)
    cleaned = [text.text for text in answers if isinstance(text, CleanedText) and text.text]
    found = LexiconExtractor(taxonomy).extract(cleaned)
    pairs = [(text, own) for text, own in zip(cleaned, found, strict=True) if own]
    units: list[list[Any]]
    if protocol == "inline":
        tagged = [[with_tags(text, own)] for text, own in pairs]
        units = [[[t] for t in texts], [[t] for t in cleaned], tagged]
    else:
        marked = [
            [marked_unit(t, place, [own[i] for i in m]) for place, m in by_sentence(t, own)]
            for t, own in pairs
        ]
        units = [
            [[place.unit for place in sentence_places(t)] for t in texts],
            [[place.unit for place in sentence_places(t)] for t in cleaned],
            marked,
        ]
    cost = Cost()
    steps: list[Any] = [engines.cleaner, engines.extractor, engines.filter]
    for engine, requested in zip(steps, units, strict=True):
        with metered() as usage:
            chat.complete([engine.step.request(together) for together in requested])
        cost.add(usage)
    return cost


def _replay(
    protocol: ProtocolName, texts: Sequence[str], taxonomy: Taxonomy, count: TokenCounter
) -> Cost:
    """Run the three steps, each on the output of the one before."""
    cost = Cost()
    with tempfile.TemporaryDirectory() as folder:
        caches = ResponseCaches(Store(folder), writes=False)
        dry_run = DryRunEngine(taxonomy, "openi", count, DRY_RUN)
        chat = CachedEngine(dry_run, caches)
        engines = text_engines(protocol, chat, caches, taxonomy, "openi", on_failure="reject")
        _carry_out(engines, texts, taxonomy, cost, hedges=protocol != "inline")
    return cost


def _carry_out(
    engines: TextEngines, texts: Sequence[str], taxonomy: Taxonomy, cost: Cost, *, hedges: bool
) -> None:
    cleaned = _metered(cost, lambda: engines.cleaner.clean(texts))
    expected = RulesCleaner(taxonomy).clean(texts)
    cost.refused += [text for text in cleaned if isinstance(text, Failure)]
    pairs = [
        (got.text, want.text)
        for got, want in zip(cleaned, expected, strict=True)
        if isinstance(got, CleanedText) and isinstance(want, CleanedText)
    ]
    assert all(got == want for got, want in pairs), "cleaned texts differ from the embedded ones"
    kept = [got for got, _ in pairs if got]

    found = _metered(cost, lambda: engines.extractor.extract(kept))
    cost.refused += [answer for answer in found if isinstance(answer, Failure)]
    answers = [() if isinstance(answer, Failure) else answer for answer in found]
    cost.refused += [item for own in answers for item in own if isinstance(item, Failure)]
    phrases = [[item for item in own if isinstance(item, Phrase)] for own in answers]
    said = _metered(cost, lambda: engines.filter.classify(kept, phrases))

    wanted = LexiconExtractor(taxonomy).extract(kept)
    stated = ContextClassifier(taxonomy).classify(kept, wanted)
    for own, assertions, want, statements in zip(phrases, said, wanted, stated, strict=True):
        truth = dict(zip(want, statements, strict=True))
        cost.phrases += len(want)
        cost.equal += sum(
            truth.get(phrase) == assertion
            or (not hedges and assertion == _WITHOUT_HEDGES.get(truth.get(phrase) or ""))
            for phrase, assertion in zip(own, assertions, strict=True)
        )


def _metered(cost: Cost, run: Callable[[], Any]) -> Any:
    with metered() as usage:
        result = run()
    cost.add(usage)
    return result


def _row(table: Table, name: str, cost: Cost, baseline: Cost, reports: int) -> None:
    requests, out = sum(cost.requests), sum(cost.tokens_out)
    tokens_in = sum(cost.tokens_in)
    table.add_row(
        name,
        f"{requests:,}",
        f"{requests / (len(STEPS) * reports):.1%}",
        f"{tokens_in:,}",
        f"{tokens_in - sum(cost.tokens_shared):,}",
        *(f"{tokens:,}" for tokens in cost.tokens_out),
        f"{out:,}",
        f"{out / sum(baseline.tokens_out):.1%}",
        f"{cost.phrases:,}" if cost.phrases else "",
        f"{cost.equal:,}" if cost.phrases else "",
    )


def _counter() -> tuple[TokenCounter, str]:
    try:
        python = _environment()
    except subprocess.CalledProcessError as error:
        print(f"{TOKENIZER} cannot be installed: {error.stderr.strip().splitlines()[-1]}")
        return token_counter(), "the built-in approximation"
    script = Path(__file__).with_name("llama_tokens.py")
    process = subprocess.Popen(
        [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    requests, answers = process.stdin, process.stdout
    assert requests is not None
    assert answers is not None

    # Prompts repeat in every request: each text is counted once.
    @lru_cache(maxsize=1 << 17)
    def count(text: str) -> int:
        requests.write(json.dumps(text) + "\n")
        requests.flush()
        return int(answers.readline())

    return count, "Llama 3"


def _environment() -> Path:
    folder = home() / "bench" / "llama_tokens"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", TOKENIZER],
        ):
            subprocess.run(command, capture_output=True, text=True, check=True)
        (folder / "ready").touch()
    return python


def _print_calibration(texts: Sequence[str], count: TokenCounter) -> None:
    """Print the error of the built-in approximation, on report text and on JSON of it."""
    sample = [json.dumps({str(i): t}) for i, t in enumerate(texts[::10])]
    for name, strings in (("report text", texts[::10]), ("JSON", sample)):
        true = sum(map(count, strings))
        ratio = sum(map(approximate_tokens, strings)) / true
        print(f"approximation against the tokenizer on {name}: {ratio:.3f} ({true:,} tokens)")


if __name__ == "__main__":
    sys.exit(main())
