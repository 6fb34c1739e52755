"""How a conversation about an image becomes one sequence, and what is learned at each position.

    <s> [boi, image tokens, eoi] <grd> | <ngrd>  then, for each turn,  <usr> query<sys> answer

Format, positions and labels are those of the released code (MMMM's `prepare_vlm_inputs`); training
and generation share them.
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

    answer: with `<p> phrase</p>` around what is localised and `<np> phrase</np>` around what is
        localised although it is known to be absent; see `model.data.brackets`.
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
    """Build a sequence to learn from.

    Learned are the answers and the end of each, which is `</s>` although the sequence itself has
    none. A `<np>` is read as `<p>`, but never asked for: the position before it shall predict the
    word that follows. Its `</np>` is read and asked for as `</p>`.

    Args:
        turns: the conversation.
        grid: of the image.
        tokenizer: of the model.
        config: of the model.
        grounded: whether the answers keep their brackets; it is said to the model in front.
        max_length: tokens, those of the image among them; the rest is cut off.
        bop_weight: the weight in the loss of a position that is followed by `<p>`.

    Raises:
        ValueError: if the image alone fills `max_length`.
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
    """Build a sequence that ends where the answer to `query` begins; nothing in it is learned.

    Args:
        turns: what was said before.
        query: the question to answer.
        grid: of the image.
        tokenizer: of the model.
        config: of the model.
        grounded: whether the answer shall have brackets.
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
    """Number the tokens of whole sequences: <s> 0, boi 1, the image's tokens 2, eoi 3, text from 4.

    Brackets take no position of their own, so that a text has the same positions with and without
    them: the token after `<p>` has that of `<p>`, and `</p>` has that of the token before it.

    Args:
        input_ids: (…, tokens), from the first token on: an answer in the making is numbered
            together with its prompt.
        token_types: as `input_ids`; 1 at the places of boi, the image's tokens and eoi.
        config: names the ids of the brackets.
        attention_mask: as `input_ids`; 0 at padding, which has position 0 on the left.

    Returns:
        (…, tokens), int64.
    """
    within = token_types.bool()
    inner = within & _shift(within, 1) & _shift(within, -1)
    shared = inner & _shift(inner, 1)
    shared |= _shift(input_ids == config.bop_token_id, 1) | (input_ids == config.eop_token_id)
    real = torch.ones_like(within) if attention_mask is None else attention_mask.bool()
    return (_shift(real, 1) & ~shared).cumsum(-1)


def _shift(flags: Tensor, by: int) -> Tensor:
    """Give each position the flag of the one before it (1) or behind it (-1); none is False."""
    shifted = flags.roll(by, -1)
    shifted[..., 0 if by > 0 else -1] = False
    return shifted


def _opening(grid: TokenGrid, config: VividMedConfig, grounded: bool) -> list[int]:
    assert config.bos_token_id is not None and config.pad_token_id is not None  # noqa: S101, PT018
    image = [config.pad_token_id] * (grid.num_tokens + 2)
    return [config.bos_token_id, *image, config.grd_token_id if grounded else config.ngrd_token_id]


def _query(text: str, tokenizer: PreTrainedTokenizerBase, config: VividMedConfig) -> list[int]:
    # Nothing that a user writes becomes a bracket or the end of the sequence.
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
    """Read the brackets of what is absent as ordinary ones, weigh, and cut to `max_length`."""
    # The last label is the end of an answer, never a <np>: nothing is taken from around the corner.
    labels = torch.where(labels == config.bonp_token_id, labels.roll(-1), labels)
    labels = torch.where(labels == config.eonp_token_id, config.eop_token_id, labels)
    ids = torch.where(ids == config.bonp_token_id, config.bop_token_id, ids)
    ids = torch.where(ids == config.eonp_token_id, config.eop_token_id, ids)
    weights = torch.ones(len(ids))
    weights[:-1][ids[1:] == config.bop_token_id] = bop_weight
    types = torch.zeros_like(ids)
    types[1 : 1 + grid.num_tokens + 2] = 1
    written = len(phrase_ends(ids, config))
    ids, types = ids[:max_length], types[:max_length]
    whole = len(phrase_ends(ids, config))
    return TokenSequence(
        input_ids=ids,
        token_types=types,
        position_ids=position_ids(ids, types, config),
        labels=labels[:max_length],
        weights=weights[:max_length],
        num_phrases=whole,
        num_cut=written - whole,
    )
