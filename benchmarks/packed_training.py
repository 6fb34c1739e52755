"""A training step on a packed batch against the same samples padded to one size.

    python -m benchmarks.packed_training

The samples are a realistic mix: radiographs and CTs of different sizes, answers from a few words to
a report (`MIX`). Packed, they are concatenated, each image with its own number of tokens. Padded to
one tensor, every text is as long as the longest, every image as deep, high and wide as the largest.
In between: texts padded, images not.

Each row is one process: median seconds of forward, backward and AdamW, and peak memory.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from benchmarks.targets import judge
from model.config import VividMedConfig, preset
from model.data.inputs import IGNORED, ModelImage, PhraseTarget, Sample, TokenSequence, pack
from model.data.sequence import position_ids
from model.data.token_grid import TokenGrid, plan
from model.network.vividmed import VividMedForCausalLM

PRESETS = ("tiny", "mid")
RUNS = 3  # after a warm-up step

BUDGET = 36
"""Image tokens; with the 144 of training, padding would need more memory than a laptop has."""


class SampleSize(NamedTuple):
    """One sample: voxels of the image, tokens of the text, phrases to localize."""

    shape_dhw: tuple[int, int, int]
    text: int
    phrases: int


MIX = (
    SampleSize((1, 2544, 3056), text=110, phrases=2),  # a radiograph and its report
    SampleSize((1, 2500, 2048), text=24, phrases=0),  # a question about a radiograph
    SampleSize((1, 480, 640), text=40, phrases=1),  # a figure and its caption
    SampleSize((300, 512, 512), text=360, phrases=2),  # a CT and its report
    SampleSize((40, 512, 512), text=30, phrases=1),  # a question about a few slices
)

Arguments = dict[str, Any]


def packed(samples: Sequence[Sample], _: VividMedConfig) -> Arguments:
    """Samples concatenated in one row."""
    return vars(pack(samples))


def texts_padded(samples: Sequence[Sample], config: VividMedConfig) -> Arguments:
    """One padded row for each sample; images keep their size."""
    texts = [sample.text for sample in samples]

    def rows(tensors: list[Tensor], value: float) -> Tensor:
        return pad_sequence(tensors, batch_first=True, padding_value=value)

    assert config.pad_token_id is not None
    ids = [text.input_ids for text in texts]
    return {
        "input_ids": rows(ids, config.pad_token_id),
        "attention_mask": rows([torch.ones_like(row) for row in ids], 0),
        "token_type_ids": rows([text.token_types for text in texts], 0),
        "labels": rows([text.labels for text in texts], IGNORED),
        "label_weights": rows([text.weights for text in texts], 0),
        "images": tuple(sample.image for sample in samples),
        "targets": tuple(sample.targets for sample in samples),
    }


def all_padded(samples: Sequence[Sample], config: VividMedConfig) -> Arguments:
    """One padded row for each sample, and images padded to one size with the same patches."""
    grids = [sample.image.grid for sample in samples]
    patch, pool = (
        tuple(np.max([getattr(grid, key) for grid in grids], 0)) for key in ("patch", "pool")
    )
    stride = np.multiply(patch, pool)
    size = tuple((-(-np.max([grid.size for grid in grids], 0) // stride) * stride).tolist())
    padded = []
    for sample, sample_size in zip(samples, MIX, strict=True):
        grid = TokenGrid(sample.image.grid.content, size, patch, pool)
        pixels = _padded(sample.image.pixels[:1], size).expand(3, -1, -1, -1)
        targets = tuple(
            replace(target, mask=None if target.mask is None else _padded(target.mask, size))
            for target in sample.targets
        )
        text = make_text(sample_size, grid, config)
        padded.append(Sample(ModelImage(pixels, grid), text, targets))
    return texts_padded(padded, config)


WAYS: dict[str, Callable[[Sequence[Sample], VividMedConfig], Arguments]] = {
    "packed": packed,
    "texts padded": texts_padded,
    "texts and images padded": all_padded,
}


def make_sample(sample_size: SampleSize, config: VividMedConfig) -> Sample:
    """A sample of noise, with masks on a CT and boxes on a radiograph."""
    grid = plan(
        sample_size.shape_dhw,
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=BUDGET,
        max_depth_tokens=config.max_depth_tokens,
    )
    target = PhraseTarget(boxes=torch.tensor([[0.5, 0.5, 0.5, 1.0, 0.2, 0.2]]))
    if grid.size[0] > 1:
        target = PhraseTarget(mask=torch.rand(grid.size) > 0.9)
    image = ModelImage(torch.rand(1, *grid.size).expand(3, -1, -1, -1), grid)
    return Sample(image, make_text(sample_size, grid, config), (target,) * sample_size.phrases)


def make_text(sample_size: SampleSize, grid: TokenGrid, config: VividMedConfig) -> TokenSequence:
    """Random tokens, all with labels, with brackets around pairs of them."""
    words = torch.randint(20, 500, (sample_size.text,), generator=torch.Generator().manual_seed(0))
    for phrase in range(sample_size.phrases):
        start = 4 * phrase
        words[start], words[start + 3] = config.bop_token_id, config.eop_token_id
    assert config.pad_token_id is not None
    assert config.bos_token_id is not None
    start = grid.num_tokens + 3  # <s>, boi and eoi
    ids = torch.cat([torch.full((start,), config.pad_token_id), words])
    ids[0] = config.bos_token_id
    types = torch.zeros_like(ids)
    types[1:start] = 1
    labels = torch.where(types == 1, IGNORED, ids.roll(-1))
    return TokenSequence(
        ids,
        types,
        position_ids(ids, types, config),
        labels,
        torch.ones(len(ids)),
        sample_size.phrases,
    )


def _padded(grid: Tensor, size: Sequence[int]) -> Tensor:
    missing = [n - have for n, have in zip(size, grid.shape[-3:], strict=True)]
    return pad(grid, [edge for n in reversed(missing) for edge in (0, n)])


def measure(name: str, way: str) -> dict[str, float]:
    """Train a few steps in this process."""
    torch.manual_seed(0)
    config = preset(name)
    model = VividMedForCausalLM(config).train()
    arguments = WAYS[way]([make_sample(sample_size, config) for sample_size in MIX], config)
    optimizer = torch.optim.AdamW(model.parameters())
    seconds = []
    for _ in range(1 + RUNS):
        started = time.perf_counter()
        model(**arguments).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[1:]), "peak_mb": peak_mb}


def main() -> int:
    """Measure each kind of batch in its own process, and print the table."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
        return 0
    title = f"training step, {len(MIX)} samples, PyTorch {torch.__version__}"
    table = Table(title=f"{title}, {platform.processor() or platform.machine()}, CPU")
    for column in ("preset", "batch", "seconds", "peak memory", "packed is faster"):
        table.add_column(column, justify="left" if column in ("preset", "batch") else "right")
    figures = {}
    for name in PRESETS:
        measured = {way: _in_a_process(name, way) for way in WAYS}
        for way, cost in measured.items():
            gain = cost["seconds"] / measured["packed"]["seconds"]
            memory = f"{cost['peak_mb']:,.0f} MB"
            table.add_row(name, way, f"{cost['seconds']:.2f}", memory, f"{gain:.2f} ×")
        padded = measured["texts and images padded"]["seconds"]
        figures[f"{name}, times the speed of padding"] = padded / measured["packed"]["seconds"]
    Console().print(table)
    return judge("packed_training", figures)


def _in_a_process(name: str, way: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.packed_training", name, way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    sys.exit(main())
