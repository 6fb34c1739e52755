"""Initialize a VividMed model, except its localizer, from the published CogVLM folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from model.checkpoints.layouts import COGVLM
from model.checkpoints.loading import load_into
from model.checkpoints.report import CheckReport
from model.checkpoints.weights import CheckpointError
from model.config import VividMedConfig
from model.network.vividmed import VividMedForCausalLM

SPECIAL_TOKENS = ("sys", "usr", "grd", "ngrd", "bop", "eop", "bonp", "eonp")
"""The tokens that VividMed appends to CogVLM's vocabulary, in the order of their ids."""

LANGUAGE_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)
VISION_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_heads",
    "layer_norm_eps",
)


def cogvlm_config(folder: Path) -> VividMedConfig:
    """Read the sizes of a CogVLM folder; parts that CogVLM lacks have the sizes of the paper.

    Copies of the model differ in `rms_norm_eps`, so that no size is assumed.

    Raises:
        CheckpointError: if there is no `config.json`, or it is not CogVLM's.
    """
    path = folder / "config.json"
    try:
        released: dict[str, Any] = json.loads(path.read_text("utf-8"))
        language = {name: released[name] for name in LANGUAGE_FIELDS}
        vision = {name: released["vision_config"][name] for name in VISION_FIELDS}
        vocab_size = int(released["vocab_size"])
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no config.json, which defines CogVLM's sizes"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not CogVLM's ({error!r}): fetch it again") from error
    # The added tokens follow those of CogVLM's vocabulary.
    ids = {f"{name}_token_id": vocab_size + i for i, name in enumerate(SPECIAL_TOKENS)}
    return VividMedConfig(
        vocab_size=vocab_size + len(SPECIAL_TOKENS), vision_config=vision, **language, **ids
    )


def load_cogvlm(
    folder: Path, config: VividMedConfig | None = None, *, dtype: torch.dtype = torch.bfloat16
) -> tuple[VividMedForCausalLM, CheckReport]:
    """Make a model with CogVLM's weights and an untrained localizer and projection to it.

    Args:
        folder: CogVLM's folder, with `config.json` and one or several weight files.
        config: None: the sizes of the folder, and the paper's for the localizer.
        dtype: dtype of the language model and the vision transformer; the localizer is float32.

    Returns:
        the model and a report on every tensor.

    Raises:
        CheckpointError: if the folder is not CogVLM, is damaged or incomplete, or differs in size.
    """
    with no_init_weights():
        model = VividMedForCausalLM._from_config(config or cogvlm_config(folder), dtype=dtype)
    # `no_init_weights` left the modules that CogVLM lacks without values.
    for name in VividMedForCausalLM._keep_in_fp32_modules_strict:
        if part := getattr(model, name):
            part.float()
            part.apply(_initialize)
    return model, load_into(model, folder, (COGVLM,))


def _initialize(module: nn.Module) -> None:
    """Initialize a module that the checkpoint lacks, in PyTorch's default way."""
    if reset := getattr(module, "reset_parameters", None):
        reset()
