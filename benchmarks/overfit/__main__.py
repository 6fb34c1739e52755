"""`make overfit`: the tiny model learns a real CT and a radiograph made from it, and is examined.

    python -m benchmarks.overfit

writes to data/overfit: `model`, as `vividmed predict --model` takes it, `radiograph.dcm`, a picture
of every answer that points at something, and `metrics.json`. The exit code is 1 if the model, when
loaded again, misses a target of `benchmarks.overfit.verdict`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.overfit.data import Case, load_recipe, make_cases, texts_of
from benchmarks.overfit.evaluate import examine
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
REPORT_EVERY = 50

out = Console()


def main() -> int:
    """Prepare, train, examine; the exit code tells whether the targets are met."""
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
    learn(cases, config, folder / "model")
    trained = time.monotonic()
    examined = list(examine(*load(folder / "model"), cases, Pointer(load_taxonomy(), "both")))
    ended = time.monotonic()
    for number, of in enumerate(examined):
        if of.exchange.truths:
            of.picture().save(folder / f"{number}-{of.case.name}.png")
    seconds = {
        "data": prepared - started,
        "training": trained - prepared,
        "examination": ended - trained,
    }
    verdict = Verdict(examined, seconds)
    verdict.print(out)
    (folder / "metrics.json").write_text(verdict.to_json(), encoding="utf-8")
    out.print(f"model, pictures and metrics are in {folder}", markup=False, soft_wrap=True)
    return 0 if verdict.good else 1


def learn(cases: Sequence[Case], config: VividMedConfig, folder: Path) -> None:
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
