"""`generate` with the key-value cache against without it.

    python -m benchmarks.generation_cache

A model with random weights generates a fixed number of tokens greedily, for a question about a
radiograph. Without the cache every step processes the whole sequence again, image tokens included.
Median of three runs after a warm-up run; the tokens must be equal.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.packed_training import SampleSize, make_sample
from benchmarks.targets import judge
from model.config import preset
from model.data.inputs import Sample
from model.network.vividmed import VividMedForCausalLM

PRESETS = ("tiny", "mid")
QUESTION = SampleSize((1, 2544, 3056), text=24, phrases=0)
NEW_TOKENS = 64
RUNS = 3  # after a warm-up run


def main() -> int:
    """Print the table."""
    title = f"generate, PyTorch {torch.__version__}, {platform.processor() or platform.machine()}"
    table = Table(title=f"{title}, CPU, {NEW_TOKENS} new tokens")
    for column in ("preset", "prompt", "cache, tokens/s", "none, tokens/s", "faster"):
        table.add_column(column, justify="left" if column == "preset" else "right")
    figures = {}
    for name in PRESETS:
        torch.manual_seed(0)
        config = preset(name)
        model = VividMedForCausalLM(config).eval()
        question = make_sample(QUESTION, config)
        cached, text = _measure(model, question, use_cache=True)
        uncached, text_again = _measure(model, question, use_cache=False)
        assert torch.equal(text, text_again), f"{name}: the cache changes the generated tokens"
        speeds = (f"{NEW_TOKENS / seconds:.1f}" for seconds in (cached, uncached))
        prompt = str(len(question.text.input_ids))
        table.add_row(name, prompt, *speeds, f"{uncached / cached:.1f} ×")
        figures[f"{name}, times the speed without the cache"] = uncached / cached
    Console().print(table)
    return judge("generation_cache", figures)


def _measure(
    model: VividMedForCausalLM, question: Sample, *, use_cache: bool
) -> tuple[float, Tensor]:
    """Seconds for an answer of `NEW_TOKENS` tokens, and the answer."""
    seconds = []
    for _ in range(1 + RUNS):
        started = time.perf_counter()
        sequences = model.generate(
            question.text.input_ids[None],
            token_type_ids=question.text.token_types[None],
            images=[question.image],
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=use_cache,
        )
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]), sequences[0, -NEW_TOKENS:]


if __name__ == "__main__":
    sys.exit(main())
