"""`make overfit`: the tiny model learns a real CT and a radiograph made from it, and is examined.

    python -m model.overfit

writes to data/overfit: `model`, as `vividmed predict --model` takes it, `radiograph.dcm`, a picture
of every answer, and `metrics.json`. The exit code is 1 if a target is missed: every text to the
letter, a Dice score of 0.9 for every mask and a GIoU of 0.8 for every box, on the files' own grids,
after loading the model from where it was saved.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from model.config import VividMedConfig, preset
from model.inference.loading import load
from model.inference.overlays import draw
from model.inference.regions import Pointer
from model.overfit.data import Case, load_recipe, make_cases, texts_of
from model.overfit.evaluate import Examined, examine
from model.overfit.reference import Reference
from model.overfit.train import Schedule, train
from model.processor import VividMedImageProcessor, VividMedProcessor
from model.tokenizer import train_tokenizer
from model.vividmed import VividMedForCausalLM
from storage.inputs import InputError, home
from taxonomy.targets import load_taxonomy

DICE_TARGET = 0.9
GIOU_TARGET = 0.8
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
        picture = folder / f"{number}-{of.case.name}.png"
        draw(of.prediction.source, of.prediction.regions).save(picture)
    seconds = {
        "data": prepared - started,
        "training": trained - prepared,
        "examination": ended - trained,
    }
    return summarize(examined, seconds, folder)


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


def summarize(examined: Sequence[Examined], seconds: dict[str, float], folder: Path) -> int:
    """Print the scores, store them as `metrics.json`, and say whether the targets are met."""
    for of in examined:
        out.print(f"[bold]{of.case.name}[/]: {of.exchange.question.query}")
        out.print(f"  {of.prediction.text}", markup=False)
        if not of.says_it:
            out.print(f"  [red]to learn:[/] {of.exchange.answer}")
    out.print(_table(examined))
    scores = [score for of in examined for score in of.scores]
    dice = [score.dice for score in scores if score.dice is not None]
    giou = [value for score in scores for value in score.giou]
    summary = {
        "texts": f"{sum(of.says_it for of in examined)} of {len(examined)}",
        "dice": {"mean": fmean(dice), "lowest": min(dice)},
        "giou": {"mean": fmean(giou), "lowest": min(giou)},
        "false_boxes": sum(score.false_boxes for score in scores),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    met = (
        all(of.says_it for of in examined) and min(dice) >= DICE_TARGET and min(giou) >= GIOU_TARGET
    )
    phrases = [
        {"image": of.case.name, "task": of.exchange.question.query, **asdict(score)}
        for of in examined
        for score in of.scores
    ]
    text = json.dumps({"targets_met": met, **summary, "phrases": phrases}, indent=2)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    out.print_json(data=summary)
    out.print(f"model, pictures and metrics are in {folder}", markup=False)
    return 0 if met else 1


def _table(examined: Sequence[Examined]) -> Table:
    table = Table("image", "phrase", "Dice", "GIoU of each box", "false boxes")
    for of in examined:
        for score in of.scores:
            table.add_row(
                of.case.name,
                score.phrase,
                "" if score.dice is None else f"{score.dice:.3f}",
                "  ".join(f"{value:.3f}" for value in score.giou),
                str(score.false_boxes) if score.giou else "",
            )
    return table


if __name__ == "__main__":
    sys.exit(main())
