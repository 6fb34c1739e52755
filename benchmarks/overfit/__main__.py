"""`make overfit`: overfit the tiny model to a real CT and a radiograph projected from it.

    python -m benchmarks.overfit

writes to data/overfit: `model`, for `vividmed predict --model`, `radiograph.dcm`, a picture of
every grounded answer, and `metrics.json`. The exit code is 1 if the model, after saving and
loading, misses a target of `benchmarks.overfit.verdict`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.overfit.data import Case, load_recipe, make_cases, texts_of
from benchmarks.overfit.evaluate import evaluate
from benchmarks.overfit.reference import Reference
from benchmarks.overfit.train import Schedule, train
from benchmarks.overfit.verdict import Verdict
from model.config import VividMedConfig, preset
from model.data.processor import VividMedImageProcessor, VividMedProcessor
from model.data.tokenizer import train_tokenizer
from model.inference.loading import load
from model.inference.regions import Pointer
from model.network.vividmed import VividMedForCausalLM
from storage.inputs import InputError, home
from taxonomy.targets import load_taxonomy

SEED = 0
REPORT_EVERY = 50  # steps between two printed losses

out = Console()


def main() -> int:
    """Prepare, train and evaluate; the exit code is 0 if all targets are met."""
    started = time.monotonic()
    folder = home() / "overfit"
    config = preset("tiny")
    try:
        reference = Reference.load(out.print)
    except InputError as error:
        Console(stderr=True).print(f"error: {error}", markup=False)
        return 1
    cases = make_cases(load_recipe(), reference, config, folder)
    prepared = time.monotonic()
    train_and_save(cases, config, folder / "model")
    trained = time.monotonic()
    results = list(evaluate(*load(folder / "model"), cases, Pointer(load_taxonomy(), "both")))
    ended = time.monotonic()
    for number, result in enumerate(results):
        if result.exchange.truths:
            result.picture().save(folder / f"{number}-{result.case.name}.png")
    seconds = {
        "data": prepared - started,
        "training": trained - prepared,
        "evaluation": ended - trained,
    }
    verdict = Verdict(results, seconds)
    verdict.print(out)
    (folder / "metrics.json").write_text(verdict.to_json(), encoding="utf-8")
    out.print(f"model, pictures and metrics are in {folder}", markup=False, soft_wrap=True)
    return 0 if verdict.passed else 1


def train_and_save(cases: Sequence[Case], config: VividMedConfig, folder: Path) -> None:
    """Train a new model on the cases and save it with its processor."""
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer(texts_of(cases), config.vocab_size)
    model = VividMedForCausalLM(config)
    samples = [sample for case in cases for sample in case.samples(tokenizer, config)]
    schedule = Schedule()

    def report(step: int, loss: float) -> None:
        if step % REPORT_EVERY == 0:
            out.print(f"step {step} of {schedule.steps}: loss {loss:.3f}")

    train(model, samples, schedule, report)
    model.save_pretrained(folder)
    VividMedProcessor(VividMedImageProcessor.of(config), tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
