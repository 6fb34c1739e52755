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
    """An answer as shown to the reader.

    text: without brackets and other special tokens, stripped of surrounding white space.
    spans: the phrases in complete brackets, in code points, half-open, in reading order: one for
        each phrase that `VividMedForCausalLM.localize` finds in the tokens. A span may begin or end
        with white space, or hold nothing else.
    """

    text: str
    spans: tuple[tuple[int, int], ...]


def read_answer(
    tokens: Tensor, tokenizer: PreTrainedTokenizerBase, config: VividMedConfig
) -> Answer:
    """Decode the tokens of an answer.

    Phrases are found in the tokens, not in the text: only the special tokens are brackets, not the
    same characters spelled out in ordinary tokens.

    Args:
        tokens: (tokens,), the answer without its end token.
        tokenizer: tokenizer of the model.
        config: configuration of the model.
    """
    ids: list[int] = tokens.tolist()
    special = set(tokenizer.all_special_ids)

    def decoded(part: Sequence[int]) -> str:
        ordinary = [token for token in part if token not in special]
        return str(tokenizer.decode(ordinary, clean_up_tokenization_spaces=False))

    whole = decoded(ids)
    text = whole.strip()
    leading = len(whole) - len(whole.lstrip())

    def offset(token: int) -> int:
        # Tokens may hold parts of a character, so that the text before each is decoded as a whole.
        return min(max(len(decoded(ids[:token])) - leading, 0), len(text))

    opened = (tokens == config.bop_token_id).nonzero().flatten()
    spans = []
    for close in phrase_ends(tokens, config).tolist():
        start = int(opened[opened < close][-1])
        spans.append((offset(start), offset(close)))
    return Answer(text, tuple(spans))


def finished(generated: Tensor, config: VividMedConfig) -> Tensor:
    """Truncate generated tokens (tokens,) before the end token, and so the padding after it."""
    ends = torch.isin(generated, torch.tensor(_ends(config), device=generated.device))
    return generated[: int(ends.float().argmax()) if ends.any() else len(generated)]


def _ends(config: VividMedConfig) -> list[int]:
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])
