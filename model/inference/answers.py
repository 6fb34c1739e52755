"""From generated tokens to the text of an answer and the phrases in its brackets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.config import VividMedConfig
from model.data.phrases import phrase_ends


@dataclass(frozen=True)
class Answer:
    """An answer as people read it.

    text: without brackets and other special tokens, and without space around it.
    spans: where the phrases in whole brackets are, in code points, half-open, in reading order:
        one for each phrase that `VividMedForCausalLM.localize` finds in the tokens. A span may hold
        space at its ends, or nothing else.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def read_answer(
    tokens: Tensor, tokenizer: PreTrainedTokenizerBase, config: VividMedConfig
) -> Answer:
    """Read the tokens of an answer.

    The phrases are found among the tokens, not in the text: what a model spells out letter by
    letter is no bracket, even if it looks like one.

    Args:
        tokens: (tokens,), the answer alone, up to its end token.
        tokenizer: of the model.
        config: of the model.
    """
    ids: list[int] = tokens.tolist()
    special = set(tokenizer.all_special_ids)

    def decoded(part: Sequence[int]) -> str:
        words = [number for number in part if number not in special]
        return str(tokenizer.decode(words, clean_up_tokenization_spaces=False))

    whole = decoded(ids)
    text = whole.strip()
    leading = len(whole) - len(whole.lstrip())

    def place(token: int) -> int:
        return min(max(len(decoded(ids[:token])) - leading, 0), len(text))

    opened = (tokens == config.bop_token_id).nonzero().flatten()
    spans = []
    for close in phrase_ends(tokens, config).tolist():
        start = int(opened[opened < close][-1])
        spans.append((place(start), place(close)))
    return Answer(text, tuple(spans))


def finished(generated: Tensor, config: VividMedConfig) -> Tensor:
    """Cut a row of generated tokens, (tokens,), before its end token and the padding behind it."""
    ends = torch.isin(generated, torch.tensor(_ends(config), device=generated.device))
    return generated[: int(ends.float().argmax()) if ends.any() else len(generated)]


def _ends(config: VividMedConfig) -> list[int]:
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])
