"""Outputs of the model with fixed weights on a synthetic radiograph and a synthetic CT.

Weights, pixels and voxels are computed by formulas: the stream of a random generator may change
between releases. Figures are compared with a tolerance instead of digests, because the order of
floating-point sums differs between processors and releases of PyTorch.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.golden.freezing import FOLDER
from model.config import VividMedConfig, preset
from model.data.images import SourceImage, radiograph_image, volume_image
from model.data.inputs import ModelImage, PhraseTarget, Sample, pack
from model.data.processor import VividMedImageProcessor, VividMedProcessor
from model.data.sequence import Turn, build_sequence
from model.data.tokenizer import train_tokenizer
from model.network.vividmed import VividMedForCausalLM
from storage.images.types import Radiograph, Volume

FILE = "model.json"

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Tolerances. Single precision agrees to about 1e-6 between orders of summation; a wrong axis, bias
or norm changes figures by percents. The absolute tolerance is for means near 0."""

DIGITS = 7
"""Significant digits of stored figures: those of single precision."""

GAIN = 1.5
"""Gain of the weight matrices; with less, all positions have nearly equal outputs."""

NEW_TOKENS = 16

LAYOUTS: tuple[tuple[Literal["shared", "separate"], Literal["close", "before_close"]], ...] = (
    ("shared", "close"),  # as in the paper
    ("separate", "before_close"),  # as in the released code
)

QUESTION = "What is seen?"
ANSWERS = (
    "The<p> heart</p> is large. There is a<p> left pleural effusion</p>.",
    "There is a<p> nodule</p> in the<p> left lung</p>, no<np> effusion</np>.",
)

Figures = dict[str, Any]


def measure() -> Figures:
    """Run both layouts of the smallest model on the radiograph and the CT."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small, more threads are slower
    try:
        return {layout: _measure_layout(layout, state) for layout, state in LAYOUTS}
    finally:
        torch.set_num_threads(threads)


def write_figures(figures: Figures, folder: Path = FOLDER) -> None:
    """Write the figures to the folder of frozen outputs."""
    (folder / FILE).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def load_figures(folder: Path = FOLDER) -> Figures:
    """Read the frozen figures; empty before the first freeze."""
    file = folder / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def differing(old: Any, new: Any, name: str = "") -> list[str]:
    """A line for each figure that differs: its name, the frozen value and the new one."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in {**old, **new}
            for line in differing(old.get(key), new.get(key), f"{name} {key}".strip())
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differing(a, b, f"{name}[{i}]")]
    if isinstance(old, float) and isinstance(new, float):
        same = math.isclose(old, new, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    else:
        same = old == new
    return [] if same else [f"{name}: {old} → {new}"]


def fill(model: VividMedForCausalLM) -> None:
    """Set every tensor of the state dict by its name and the index of each value.

    The Fourier matrix of the localizer, which is not trained, is one of them.
    """
    with torch.no_grad():
        for name, values in model.state_dict().items():
            drawn = torch.from_numpy(_uniform(name, values.numel())).view_as(values)
            if values.dim() > 1:
                inputs = values[0].numel()
                drawn *= GAIN * math.sqrt(3 / inputs)  # a variance of GAIN² after a sum of inputs
            elif name.endswith("weight"):
                drawn = 1 + 0.1 * drawn  # the weight of a norm
            else:
                drawn *= 0.1
            values.copy_(drawn)


def _uniform(name: str, count: int) -> NDArray[np.float32]:
    """Pseudo-random values between -1 and 1: the finalizer of MurmurHash3 of their index.

    A sine of the index would give matrices of rank 2, which hide errors in the order of axes.
    """
    with np.errstate(over="ignore"):
        bits = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1)
        bits ^= np.uint32(zlib.crc32(name.encode()))
        bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        bits ^= bits >> np.uint32(16)
    return (bits / 2.0**31 - 1).astype(np.float32)


def radiograph() -> SourceImage:
    """A bright chest with two dark lungs and a heart between them, on a black edge."""
    y, x = np.mgrid[0:90, 0:70].astype(np.float32)
    pixels = 0.6 + 0.002 * y - 0.001 * x
    for center_x, brightness in ((20, 0.2), (50, 0.25)):
        pixels[((x - center_x) / 11) ** 2 + ((y - 42) / 28) ** 2 < 1] = brightness
    pixels[((x - 38) / 9) ** 2 + ((y - 55) / 11) ** 2 < 1] = 0.8
    pixels[:4] = pixels[-6:] = pixels[:, :3] = 0
    return radiograph_image(Radiograph(pixels.astype(np.float32), None, "PA", "DX"))


def ct() -> SourceImage:
    """A body of water with two lungs, a nodule in one, and a spine; 20 slices of 3 mm.

    The spine is denser towards the head, so that the clipping bounds change voxels.
    """
    x, y, z = np.mgrid[0:48, 0:40, 0:20]
    hu = np.full(x.shape, -1000, np.int16)
    hu[((x - 24) / 22) ** 2 + ((y - 20) / 17) ** 2 < 1] = 40
    for center_x in (14, 34):
        hu[((x - center_x) / 7) ** 2 + ((y - 20) / 11) ** 2 + ((z - 10) / 9) ** 2 < 1] = -850
    hu[(x - 14) ** 2 + (y - 18) ** 2 + (2 * (z - 11)) ** 2 < 9] = 30
    spine = (x - 24) ** 2 + (y - 7) ** 2 < 16
    hu[spine] = (200 + 40 * z[spine]).astype(np.int16)
    hu += ((7 * x + 5 * y + 3 * z) % 11).astype(np.int16)
    return volume_image(Volume(hu, np.diag([1.5, 1.5, 3.0, 1.0])))


def _measure_layout(layout: str, state: str) -> Figures:
    config = preset("tiny")
    config.localizers, config.prompt_state = layout, state  # type: ignore[assignment]
    model = VividMedForCausalLM(config).eval()
    fill(model)
    tokenizer = train_tokenizer([*ANSWERS, QUESTION], config.vocab_size)
    processor = VividMedProcessor(VividMedImageProcessor.of(config), tokenizer)
    asked = processor([radiograph(), ct()], [QUESTION] * 2)
    asked.pop("frames")
    samples = [
        _sample(image, answer, tokenizer, config)
        for image, answer in zip(asked["images"], ANSWERS, strict=True)
    ]
    return {
        "pixels": [_summary(image.pixels) for image in asked["images"]],
        **_generation(model, asked),
        **_localization(model, samples),
        **_training(model, samples),
    }


def _sample(image: ModelImage, answer: str, tokenizer: Any, config: VividMedConfig) -> Sample:
    text = build_sequence(
        [Turn(QUESTION, answer)], grid=image.grid, tokenizer=tokenizer, config=config, grounded=True
    )
    mask = image.pixels[0] > 0.5
    boxes = torch.tensor([[0.5, 0.4, 0.6, 1.0, 0.2, 0.3], [0.5, 0.7, 0.3, 0.8, 0.1, 0.2]])
    absent = PhraseTarget(torch.zeros_like(mask), boxes[:0])
    targets = [PhraseTarget(mask, boxes), PhraseTarget(mask.logical_not(), boxes[:1]), absent]
    return Sample.of(image, text, targets[: text.num_phrases])


@torch.no_grad()
def _generation(model: VividMedForCausalLM, asked: Any) -> Figures:
    logits = model(**asked).logits
    written = model.generate(
        **asked, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
    )[:, asked["input_ids"].shape[1] :]
    real = asked["attention_mask"].bool()
    return {
        "logits": [_summary(row[mask]) for row, mask in zip(logits, real, strict=True)],
        "last logits": [_rounded(row[-1, :8]) for row in logits],
        "tokens": written.tolist(),
    }


@torch.no_grad()
def _localization(model: VividMedForCausalLM, samples: list[Sample]) -> Figures:
    batch = pack(samples)
    found = model.localize(
        batch.input_ids,
        images=batch.images,
        token_type_ids=batch.token_type_ids,
        lengths=batch.lengths,
    )
    return {
        "boxes": [_rounded(localized.boxes) for localized in found],
        "presence logits": [_rounded(localized.presence_logits) for localized in found],
        "mask logits": [
            [_summary(mask) for mask in localized.mask_logits]
            for localized in found
            if localized.mask_logits is not None
        ],
    }


def _training(model: VividMedForCausalLM, samples: list[Sample]) -> Figures:
    batch = pack(samples)
    model.train()
    output = model(**{field.name: getattr(batch, field.name) for field in fields(batch)})
    output.loss.backward()
    grounding = {
        part.name: getattr(output.grounding, part.name) for part in fields(output.grounding)
    }
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = name.split(".")[0]
            squares[part] = squares.get(part, 0.0) + float(parameter.grad.double().square().sum())
    return {
        "loss": _number(output.loss),
        "language loss": _number(output.lm_loss),
        "localisation loss": {name: _number(part) for name, part in grounding.items()},
        "gradient norm": {name: _number(math.sqrt(total)) for name, total in squares.items()},
    }


def _summary(values: Tensor) -> Figures:
    """Shape, mean, deviation and extremes, and a weighted sum, which depends on the order."""
    flat = values.double().flatten()
    weights = torch.from_numpy(_uniform("summary", len(flat))).double()
    return {
        "shape": list(values.shape),
        "mean": _number(flat.mean()),
        "deviation": _number(flat.std()),
        "lowest": _number(flat.min()),
        "highest": _number(flat.max()),
        "weighted": _number((flat * weights).sum() / math.sqrt(len(flat))),
    }


def _rounded(values: Tensor | None) -> Any:
    return None if values is None else _nested(values.tolist())


def _nested(value: Any) -> Any:
    return [_nested(element) for element in value] if isinstance(value, list) else _number(value)


def _number(value: Tensor | float) -> float:
    value = value.item() if isinstance(value, Tensor) else value
    return float(f"{value:.{DIGITS}g}")
