"""Configuration of a VividMed model: sizes, token ids and choices that the paper leaves open.

Field names follow CogVLM's `config.json` where it has them. The presets are in `presets.yaml`.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

import yaml
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class VisionConfig(PreTrainedConfig):
    """The vision transformer (EVA2-CLIP) with its depth-adaptive patch embedding.

    patch_size: edge of the cubic patch kernel in voxels; its depth is reduced to suit each image.
    position_grid: size of the learned position grid along depth, height and width.
    pool: in-plane factor of the max-pooling of the features before the adapter.
    """

    model_type = "vividmed_vision"
    base_config_key = "vision_config"

    # EVA2-CLIP-E as in CogVLM, without its last layer, which is specific to CLIP's loss.
    hidden_size: int = 1792
    intermediate_size: int = 15360
    num_hidden_layers: int = 63
    num_heads: int = 16
    layer_norm_eps: float = 1e-6
    patch_size: int = 16
    position_grid: list[int] | tuple[int, ...] = (8, 32, 32)
    pool: int = 2


@strict
class LocalizerConfig(PreTrainedConfig):
    """The localization network: image encoder, prompt encoder and two-way decoder.

    qkv_bias: False for SegVol's encoder, True for SAM's.
    num_instances: query tokens of the instance branch (K in the paper).
    """

    model_type = "vividmed_localizer"
    base_config_key = "localizer_config"

    # The image encoder of SegVol, a ViT-B.
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_heads: int = 12
    qkv_bias: bool = False
    layer_norm_eps: float = 1e-5
    patch_size: int = 16
    position_grid: list[int] | tuple[int, ...] = (8, 32, 32)
    # SAM's mask decoder, except for its width, which is that of the image encoder.
    decoder_layers: int = 2
    decoder_heads: int = 8
    decoder_intermediate_size: int = 2048
    decoder_downsample: int = 2
    num_instances: int = 6


@strict
class VividMedConfig(PreTrainedConfig):
    """The whole model; fields outside the sub-configurations belong to the language model.

    localizers: "shared" is one network with a mask and an instance branch, as in the paper;
        "separate" is two networks, `sam` for masks and `isam_model` for boxes, as in the released
        code and weights.
    prompt_state: the hidden state that prompts the localizer: "close" is the one of `</p>`, as in
        the paper; "before_close" the one that predicts it, as in the released code.
    max_vision_tokens, max_depth_tokens: the largest number of image tokens of one image, in total
        and along depth; the paper evaluates with 256 and trains with 144.
    """

    model_type = "vividmed"
    sub_configs = {"vision_config": VisionConfig, "localizer_config": LocalizerConfig}  # noqa: RUF012
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    localizer_config: dict[str, Any] | PreTrainedConfig | None = None

    # Vicuna-7B as in CogVLM; its vocabulary of 32000 and the eight added tokens.
    vocab_size: int = 32008
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False

    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    sys_token_id: int = 32000
    usr_token_id: int = 32001
    grd_token_id: int = 32002
    ngrd_token_id: int = 32003
    bop_token_id: int = 32004
    eop_token_id: int = 32005
    bonp_token_id: int = 32006
    eonp_token_id: int = 32007

    localizers: Literal["shared", "separate"] = "shared"
    prompt_state: Literal["close", "before_close"] = "close"
    max_vision_tokens: int = 256
    max_depth_tokens: int = 4

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn nested dictionaries into their configurations."""
        if not isinstance(self.vision_config, VisionConfig):
            self.vision_config = VisionConfig(**(self.vision_config or {}))
        if not isinstance(self.localizer_config, LocalizerConfig):
            self.localizer_config = LocalizerConfig(**(self.localizer_config or {}))
        super().__post_init__(**kwargs)

    @property
    def vision(self) -> VisionConfig:
        """The configuration of the vision transformer."""
        assert isinstance(self.vision_config, VisionConfig)  # noqa: S101
        return self.vision_config

    @property
    def localizer(self) -> LocalizerConfig:
        """The configuration of the localization network."""
        assert isinstance(self.localizer_config, LocalizerConfig)  # noqa: S101
        return self.localizer_config


def preset(name: str) -> VividMedConfig:
    """Return a named configuration: `paper` (17B), `tiny` (trains on a laptop) or `mid`.

    Raises:
        KeyError: if `presets.yaml` has no such name; the message lists the names it has.
    """
    presets = yaml.safe_load(files(__package__).joinpath("presets.yaml").read_text("utf-8"))
    if name not in presets:
        raise KeyError(f"no preset {name!r}: choose one of {', '.join(presets)}")
    return VividMedConfig(**presets[name])
