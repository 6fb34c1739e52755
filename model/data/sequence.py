"""Token sequences of conversations about an image, with positions, labels and weights.

    <s> [boi, image tokens, eoi] <grd> | <ngrd>  then, for each turn,  <usr> query<sys> answer

Format, positions and labels are those of the released code (MMMM's `prepare_vlm_inputs`), the same
for training and generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from model.config import VividMedConfig
from model.data.brackets import strip
from model.data.inputs import IGNORED, TokenSequence
from model.data.phrases import phrase_ends
from model.data.token_grid import TokenGrid


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    answer: with `<p> phrase</p>` around grounded phrases and `<np> phrase</np>` around phrases
        whose target is known to be absent; see `model.data.brackets`.
    """

    query: str
    answer: str


def build_sequence(
    turns: Sequence[Turn],
    *,
    grid: TokenGrid,
    tokenizer: PreTrainedTokenizerBase,
    config: VividMedConfig,
    grounded: bool,
    max_length: int = 1024,
    bop_weight: float = 5.0,
) -> TokenSequence:
    """Build a training sequence.

    Labels are the answers and `</s>` at the end of each, which is not in the input. `<np>` is `<p>`
    in the input, but never a label: the position before it predicts the token after it. `</np>` is
    `</p>` in the input and in the labels.

    Args:
        turns: the conversation.
        grid: token grid of the image.
        tokenizer: tokenizer of the model.
        config: configuration of the model.
        grounded: whether the answers keep their brackets; <grd> or <ngrd> tells the model.
        max_length: the longest sequence in tokens, image included; longer ones are cut off.
        bop_weight: weight in the loss of a position that is followed by `<p>`, 5 in the released
            code: the model is to start phrases, which are rare among tokens.

    Raises:
        ValueError: if the image leaves no token of `max_length` for text.
    """
    ids = _opening(grid, config, grounded)
    if len(ids) >= max_length:
        raise ValueError(
            f"the image takes {grid.num_tokens} tokens, which leaves no room for text within"
            f" max_length {max_length}"
        )
    labels = [IGNORED] * len(ids)
    for turn in turns:
        query = _query(turn.query, tokenizer, config)
        answer = _encode(turn.answer if grounded else strip(turn.answer), tokenizer)
        ids += [*query, *answer]
        labels += [IGNORED] * (len(query) - 1) + [*answer, _end(config)]
    return _sequence(
        torch.tensor(ids), torch.tensor(labels), grid, config, max_length, bop_weight=bop_weight
    )


def build_prompt(
    turns: Sequence[Turn],
    query: str,
    *,
    grid: TokenGrid,
    tokenizer: PreTrainedTokenizerBase,
    config: VividMedConfig,
    grounded: bool,
) -> TokenSequence:
    """Build a sequence that ends where the answer to `query` begins, without labels.

    Args:
        turns: the earlier turns.
        query: the question to answer.
        grid: token grid of the image.
        tokenizer: tokenizer of the model.
        config: configuration of the model.
        grounded: whether the answer is to have brackets.
    """
    ids = _opening(grid, config, grounded)
    for turn in turns:
        ids += _query(turn.query, tokenizer, config)
        ids += _encode(turn.answer if grounded else strip(turn.answer), tokenizer)
    ids += _query(query, tokenizer, config)
    return _sequence(torch.tensor(ids), torch.full((len(ids),), IGNORED), grid, config, len(ids))


def position_ids(
    input_ids: Tensor,
    token_types: Tensor,
    config: VividMedConfig,
    attention_mask: Tensor | None = None,
) -> Tensor:
    """Compute positions of whole sequences: <s> 0, boi 1, image tokens 2, eoi 3, text from 4.

    All image tokens share one position. Brackets take none, so that a text has the same positions
    with and without them: the token after `<p>` has the position of `<p>`, and `</p>` that of the
    token before it.

    Args:
        input_ids: (…, tokens), from the first token on: in generation, prompt and answer so far.
        token_types: as `input_ids`; 1 at boi, image tokens and eoi.
        config: has the ids of the brackets.
        attention_mask: as `input_ids`; 0 at padding; padding on the left has position 0.

    Returns:
        (…, tokens), int64.
    """
    in_image = token_types.bool()
    # Without boi and eoi, which have positions of their own.
    image_tokens = in_image & _shift(in_image, 1) & _shift(in_image, -1)
    # Tokens with the position of the one before them.
    repeated = image_tokens & _shift(image_tokens, 1)
    repeated |= _shift(input_ids == config.bop_token_id, 1) | (input_ids == config.eop_token_id)
    real = torch.ones_like(in_image) if attention_mask is None else attention_mask.bool()
    return (_shift(real, 1) & ~repeated).cumsum(-1)


def _shift(flags: Tensor, by: int) -> Tensor:
    """Give each position the flag of the one before (1) or after it (-1); False at the edge."""
    shifted = flags.roll(by, -1)
    shifted[..., 0 if by > 0 else -1] = False
    return shifted


def _opening(grid: TokenGrid, config: VividMedConfig, grounded: bool) -> list[int]:
    assert config.bos_token_id is not None and config.pad_token_id is not None  # noqa: S101, PT018
    image = [config.pad_token_id] * (grid.num_tokens + 2)
    return [config.bos_token_id, *image, config.grd_token_id if grounded else config.ngrd_token_id]


def _query(text: str, tokenizer: PreTrainedTokenizerBase, config: VividMedConfig) -> list[int]:
    # Special tokens that a user spells out are split, so that they are neither brackets nor ends.
    words = tokenizer(f" {text}", add_special_tokens=False, split_special_tokens=True)
    return [config.usr_token_id, *words.input_ids, config.sys_token_id]


def _encode(answer: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(answer, add_special_tokens=False).input_ids
    return ids


def _end(config: VividMedConfig) -> int:
    assert isinstance(config.eos_token_id, int)  # noqa: S101
    return config.eos_token_id


def _sequence(
    ids: Tensor,
    labels: Tensor,
    grid: TokenGrid,
    config: VividMedConfig,
    max_length: int,
    *,
    bop_weight: float = 1.0,
) -> TokenSequence:
    """Replace <np> brackets, set the weights, and cut to `max_length`."""
    # The last label is the end of an answer, never <np>, so that `roll` never wraps a value around.
    labels = torch.where(labels == config.bonp_token_id, labels.roll(-1), labels)
    labels = torch.where(labels == config.eonp_token_id, config.eop_token_id, labels)
    ids = torch.where(ids == config.bonp_token_id, config.bop_token_id, ids)
    ids = torch.where(ids == config.eonp_token_id, config.eop_token_id, ids)
    weights = torch.ones(len(ids))
    weights[:-1][ids[1:] == config.bop_token_id] = bop_weight
    types = torch.zeros_like(ids)
    types[1 : 1 + grid.num_tokens + 2] = 1
    all_phrases = len(phrase_ends(ids, config))
    ids, types = ids[:max_length], types[:max_length]
    kept_phrases = len(phrase_ends(ids, config))
    return TokenSequence(
        input_ids=ids,
        token_types=types,
        position_ids=position_ids(ids, types, config),
        labels=labels[:max_length],
        weights=weights[:max_length],
        num_phrases=kept_phrases,
        num_cut=all_phrases - kept_phrases,
    )
