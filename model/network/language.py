"""The language model: a Llama decoder with separate weights for image tokens.

CogVLM's visual expert: all tokens attend to each other, but the attention projections and the MLP
exist twice, one set for text and one for image tokens. Everything else is Llama: RMSNorm before
each sub-layer, rotary positions, SwiGLU. Samples are packed in one row (training) or padded in
several rows (generation, with a cache).

Module names are those of CogVLM's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from model.config import VividMedConfig
from model.data.inputs import ModelImage
from model.data.sequence import position_ids as compute_position_ids
from model.network.attention import packed_attention
from model.network.patches import GridPositions, LearnedRow
from model.network.vision import VisionTower


class Routing(NamedTuple):
    """Which expert each token, flattened over rows, goes to.

    order: (tokens,) token indices sorted by expert, those of the language expert first.
    inverse: (tokens,) the inverse permutation.
    language: number of tokens of the language expert.
    """

    order: Tensor
    inverse: Tensor
    language: int

    @classmethod
    def of(cls, token_types: Tensor) -> Routing | None:
        """Route (rows, tokens) by type; None if no token goes to the visual expert.

        The visual expert takes a token if it and the next one belong to the image: boi and the
        image tokens, but not eoi.
        """
        image = token_types.bool()
        vision = image.clone()
        vision[:, :-1] &= image[:, 1:]
        vision[:, -1] = False
        vision = vision.flatten()
        image_tokens = vision.nonzero().squeeze(1)
        if not len(image_tokens):
            return None
        order = torch.cat([(~vision).nonzero().squeeze(1), image_tokens])
        return cls(order, order.argsort(), len(order) - len(image_tokens))

    def apply(self, hidden: Tensor, language: nn.Module, vision: nn.Module) -> Tensor:
        """Apply to each token of (rows, tokens, hidden) its expert."""
        rows = hidden.shape[0]
        sorted_by_expert = hidden.flatten(0, 1).index_select(0, self.order)
        text, image = sorted_by_expert.tensor_split([self.language])
        out = torch.cat([language(text), vision(image)]).index_select(0, self.inverse)
        return out.unflatten(0, (rows, -1))


class Context(NamedTuple):
    """Inputs that all layers of one forward pass share.

    rotation: cosine and sine, each (rows, tokens, head_dim).
    routing: see `Routing`.
    lengths: tokens of each sample in a packed row; None for padded rows.
    mask: the attention mask of padded rows, in the form of transformers.
    cache: the keys and values of earlier passes.
    """

    rotation: tuple[Tensor, Tensor]
    routing: Routing | None
    lengths: tuple[int, ...] | None
    mask: Tensor | None
    cache: Cache | None

    def route(self, hidden: Tensor, language: nn.Module, vision: nn.Module) -> Tensor:
        """Apply to each token its expert."""
        if self.routing is None:
            return language(hidden)
        return self.routing.apply(hidden, language, vision)


class VisionExpertAttention(nn.Module):
    """Causal self-attention within a sample, with separate projections for image tokens."""

    is_causal = True

    def __init__(self, config: VividMedConfig, layer: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.language_expert_query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.vision_expert_query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.language_expert_dense = nn.Linear(hidden, hidden, bias=False)
        self.vision_expert_dense = nn.Linear(hidden, hidden, bias=False)

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """Attend within each sample; (rows, tokens, hidden) to the same."""
        mixed = context.route(
            hidden, self.language_expert_query_key_value, self.vision_expert_query_key_value
        )
        # CogVLM stores query, key and value in one matrix.
        query, key, value = mixed.unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        rotated = apply_rotary_pos_emb(query, key, *context.rotation, unsqueeze_dim=2)
        # Under autocast the rotation is float32 and would promote the half-precision states.
        query, key = (states.to(value.dtype) for states in rotated)
        if context.lengths is not None:
            attended = packed_attention(
                query[0], key[0], value[0], context.lengths, causal=True
            ).unsqueeze(0)
        else:
            attended = self._attend_rows(query, key, value, context)
        return context.route(
            attended.flatten(2), self.language_expert_dense, self.vision_expert_dense
        )

    def _attend_rows(self, query: Tensor, key: Tensor, value: Tensor, context: Context) -> Tensor:
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        if context.cache is not None:
            key, value = context.cache.update(key, value, self.layer)
        attended: Tensor = sdpa_attention_forward(self, query, key, value, context.mask)[0]
        return attended


class MLP(nn.Module):
    """Llama's MLP (SwiGLU)."""

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each token; (…, hidden) to the same."""
        return self.down_proj(silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class VisionExpertMLP(nn.Module):
    """One MLP for text tokens and one for image tokens."""

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__()
        self.language_mlp = MLP(config)
        self.vision_mlp = MLP(config)

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """Transform each token; (rows, tokens, hidden) to the same."""
        return context.route(hidden, self.language_mlp, self.vision_mlp)


class DecoderLayer(GradientCheckpointingLayer):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, config: VividMedConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = VisionExpertAttention(config, layer)
        self.mlp = VisionExpertMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """Transform the tokens; (rows, tokens, hidden) to the same."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), context)
        return hidden + self.mlp(self.post_attention_layernorm(hidden), context)


SELF_INITIALIZING = (GridPositions, LearnedRow, VisionTower)
"""Modules with bare parameters, which transformers cannot initialize by module type."""


class VividMedPreTrainedModel(PreTrainedModel):
    """The declarations that transformers reads, and weight initialization."""

    config_class = VividMedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("DecoderLayer", "TransformerLayer")
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": DecoderLayer}  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize one module, by its own `reset_parameters` where it is to keep that."""
        own = isinstance(module, SELF_INITIALIZING) or getattr(module, "keeps_own_init", False)
        if not own:
            super()._init_weights(module)
        elif reset := getattr(module, "reset_parameters", None):
            reset()


class VividMedModel(VividMedPreTrainedModel):
    """The vision tower and the decoder: from images and token ids to hidden states."""

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.vision = VisionTower(config)
        self.post_init()

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        images: Sequence[ModelImage] | None = None,
        lengths: Sequence[int] | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder.

        Args:
            input_ids: (rows, tokens); ids at image positions are ignored.
            attention_mask: (rows, cached and new tokens), 0 at padding.
            token_type_ids: (rows, tokens), 1 at boi, image tokens and eoi; None: all text.
            position_ids: (rows, tokens); None: computed here, which needs whole sequences.
            past_key_values: cache of the earlier tokens.
            images: the images at the image positions, in reading order, row after row.
            lengths: tokens of each sample, if one row holds packed samples.
            use_cache: whether to keep keys and values; ignored in training.

        Returns:
            `last_hidden_state` (rows, tokens, hidden) after the final norm.

        Raises:
            ValueError: if the images do not fill the image positions exactly, the lengths do not
                add up to the row, or positions are missing while the cache is in use.
        """
        if lengths is not None:
            _require_one_row(input_ids, sum(lengths))
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        if position_ids is None:
            if past_key_values is not None and past_key_values.get_seq_length():
                raise ValueError(
                    "position_ids are missing: they cannot be computed from a part of a sequence"
                )
            position_ids = self._position_ids(input_ids, token_type_ids, attention_mask, lengths)
        # Gradient checkpointing runs a layer twice, which would append its keys and values twice.
        if use_cache and past_key_values is None and lengths is None and not self.training:
            past_key_values = DynamicCache(config=self.config)
        hidden = self._embed(input_ids, token_type_ids, images or ())
        mask = None
        if lengths is None:
            mask = create_causal_mask(self.config, hidden, attention_mask, past_key_values)
        context = Context(
            rotation=_rotation(position_ids, hidden, self.config),
            routing=Routing.of(token_type_ids),
            lengths=None if lengths is None else tuple(lengths),
            mask=mask,
            cache=past_key_values,
        )
        for layer in self.layers:
            hidden = layer(hidden, context)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=past_key_values
        )

    def _position_ids(
        self,
        input_ids: Tensor,
        token_types: Tensor,
        attention_mask: Tensor | None,
        lengths: Sequence[int] | None,
    ) -> Tensor:
        if lengths is None:
            return compute_position_ids(input_ids, token_types, self.config, attention_mask)
        samples = zip(
            input_ids.split(list(lengths), -1), token_types.split(list(lengths), -1), strict=True
        )
        return torch.cat([compute_position_ids(*sample, self.config) for sample in samples], -1)

    def _embed(
        self, input_ids: Tensor, token_types: Tensor, images: Sequence[ModelImage]
    ) -> Tensor:
        embedded = self.embed_tokens(input_ids)
        is_image = token_types.bool()
        tokens = sum(image.grid.num_tokens + 2 for image in images)  # 2: boi and eoi
        if tokens != (positions := int(is_image.sum())):
            raise ValueError(
                f"the {len(images)} images take {tokens} tokens, the text has {positions} positions"
                " for them: build the text with the grid of its image"
            )
        if not images:
            return embedded
        # The beams of a search share their image, which is encoded once.
        distinct = {id(image): image for image in images}
        features = dict(zip(distinct, self.vision(list(distinct.values())), strict=True))
        image_tokens = torch.cat([features[id(image)] for image in images])
        return embedded.masked_scatter(is_image.unsqueeze(-1), image_tokens.to(embedded))


def _require_one_row(input_ids: Tensor, tokens: int) -> None:
    if input_ids.shape != (1, tokens):
        raise ValueError(
            f"lengths add up to {tokens} tokens, input_ids have the shape"
            f" {tuple(input_ids.shape)}: concatenate the samples in one row (1, {tokens})"
        )


def _rotation(positions: Tensor, hidden: Tensor, config: VividMedConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding, each (rows, tokens, head_dim).

    Both halves of the last axis are equal, as `apply_rotary_pos_emb` expects.
    """
    head_dim = config.hidden_size // config.num_attention_heads
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=hidden.device) / head_dim
    angles = positions.unsqueeze(-1).float() / config.rope_theta**steps
    angles = torch.cat([angles, angles], -1)
    return angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)
