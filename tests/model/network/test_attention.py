"""Attention over packed samples: every back end against the formula, and against each other."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.network import attention
from model.network.attention import by_length, flex, packed_attention

HEADS, HEAD_DIM = 2, 16
LENGTHS = (5, 130, 1, 5, 64)

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a GPU")


def states(lengths: Sequence[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value."""
    torch.manual_seed(seed)
    query, key, value = torch.randn(3, sum(lengths), HEADS, HEAD_DIM)
    return query, key, value


def by_formula(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], causal: bool
) -> Tensor:
    """Softmax attention written out, with everything outside the sample masked."""
    sample = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
    visible = sample[:, None] == sample
    if causal:
        visible &= torch.ones_like(visible).tril()
    scores = torch.einsum("qhd,khd->hqk", query, key) / HEAD_DIM**0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.booleans())
def test_samples_attend_to_themselves(lengths: list[int], causal: bool) -> None:
    qkv = states(lengths)
    attended = packed_attention(*qkv, lengths, causal=causal)
    torch.testing.assert_close(attended, by_formula(*qkv, lengths, causal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_agrees(causal: bool) -> None:
    qkv = states(LENGTHS)
    attended = flex(*qkv, LENGTHS, causal=causal)
    expected = by_length(*qkv, LENGTHS, causal=causal)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)


@no_gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_gpu_agree(causal: bool, dtype: torch.dtype) -> None:
    """FlexAttention in single precision, FlashAttention's varlen kernel in half."""
    qkv = states(LENGTHS)
    query, key, value = (tensor.to("cuda", dtype).requires_grad_() for tensor in qkv)
    attended = packed_attention(query, key, value, LENGTHS, causal=causal)
    attended.sum().backward()
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-2  # TensorFloat-32 may be on
    expected = by_length(*qkv, LENGTHS, causal=causal)
    torch.testing.assert_close(
        attended.detach().float().cpu(), expected, atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_stay_in_their_sample(causal: bool) -> None:
    query, key, value = (tensor.detach().requires_grad_() for tensor in states(LENGTHS))
    attended = packed_attention(query, key, value, LENGTHS, causal=causal)
    attended[5:135].square().sum().backward()
    for tensor in (query, key, value):
        assert isinstance(tensor.grad, Tensor)
        assert tensor.grad[5:135].abs().sum() > 0
        assert tensor.grad[:5].abs().sum() == tensor.grad[135:].abs().sum() == 0


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_what_inference_leaves_behind_serves_training() -> None:
    """PyTorch refuses to save a tensor made in inference mode for the backward pass."""
    lengths = (3, 7)
    with torch.inference_mode():
        flex(*states(lengths), lengths, causal=False)
        starts = attention._starts(lengths, torch.device("cpu"))
    mask = attention._block_mask(lengths, False, torch.device("cpu"))
    assert not mask.kv_indices.is_inference()
    assert not starts.is_inference()
    assert starts.tolist() == [0, 3, 10]
