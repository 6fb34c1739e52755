"""Attention over samples of different lengths concatenated (packed) in one sequence.

Packing instead of padding: nothing is computed for padding, and no sample attends to another. The
implementation depends on the device and the precision:

- FlashAttention's variable-length kernel on a GPU in half precision (`torch.nn.attention.varlen`),
- FlexAttention with a block-diagonal mask on a GPU in single precision,
- otherwise (CPU) one call of PyTorch's scaled dot-product attention for all samples of one length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], *, causal: bool = False
) -> Tensor:
    """Let every token attend to the tokens of its own sample only.

    Args:
        query: (tokens, heads, head_dim), the samples concatenated.
        key: as query.
        value: as query.
        lengths: tokens of each sample; they add up to the number of tokens.
        causal: whether a token attends only to itself and the earlier tokens of its sample.

    Returns:
        (tokens, heads, head_dim).
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        return _flash(query, key, value, tuple(lengths), causal)
    if query.is_cuda:
        return flex(query, key, value, tuple(lengths), causal=causal)
    return by_length(query, key, value, lengths, causal=causal)


def by_length(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], *, causal: bool
) -> Tensor:
    """Attend with one batched call for all samples of one length; see `packed_attention`."""
    if len(set(lengths)) == 1:
        return _dense(query, key, value, len(lengths), causal)
    starts = list(accumulate(lengths, initial=0))
    parts: list[Tensor] = [query[:0]] * len(lengths)
    for length in sorted(set(lengths)):
        members = [i for i, sample_length in enumerate(lengths) if sample_length == length]
        ranges = [slice(starts[i], starts[i] + length) for i in members]
        q, k, v = (
            torch.cat([states[tokens] for tokens in ranges]) for states in (query, key, value)
        )
        attended = _dense(q, k, v, len(members), causal).split(length)
        for i, part in zip(members, attended, strict=True):
            parts[i] = part
    return torch.cat(parts)


def flex(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], *, causal: bool
) -> Tensor:
    """Attend with FlexAttention and a block-diagonal mask; see `packed_attention`."""
    mask = _block_mask(lengths, causal, query.device)
    attend = _compiled_flex() if query.is_cuda else _flex_attention()
    heads_first = [states.transpose(0, 1).unsqueeze(0) for states in (query, key, value)]
    attended: Tensor = attend(*heads_first, block_mask=mask)
    return attended.squeeze(0).transpose(0, 1)


def _dense(query: Tensor, key: Tensor, value: Tensor, samples: int, causal: bool) -> Tensor:
    q, k, v = (states.unflatten(0, (samples, -1)).transpose(1, 2) for states in (query, key, value))
    return scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(0, 1)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], causal: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    starts = _starts(lengths, query.device)
    longest = max(lengths)
    window = (-1, 0) if causal else (-1, -1)
    attended = varlen_attn(query, key, value, starts, starts, longest, longest, window_size=window)
    assert isinstance(attended, Tensor)  # noqa: S101 (a pair only if the log-sum-exp is requested)
    return attended


# Offsets and masks are equal for all layers of a model: the cache spares every layer but the first
# a synchronization with the GPU. They are made outside inference mode, because a later training
# step may reuse them.


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _block_mask(lengths: tuple[int, ...], causal: bool, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    sample = torch.repeat_interleave(
        torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
    )

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = sample[query] == sample[key]
        return same & (key <= query) if causal else same

    total = sum(lengths)
    return create_block_mask(visible, None, None, total, total, device=str(device))


def _flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    # Without compilation, FlexAttention materializes the whole score matrix.
    return torch.compile(_flex_attention(), dynamic=True)
