"""Begin from CogVLM: its published folder becomes a VividMed model without a trained localiser."""

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
    """Read a CogVLM folder's sizes; what CogVLM does not have is as in the paper.

    The sizes are read and never assumed: copies of the model differ in `rms_norm_eps`.

    Raises:
        CheckpointError: if there is no `config.json`, or it is not CogVLM's.
    """
    path = folder / "config.json"
    try:
        released: dict[str, Any] = json.loads(path.read_text("utf-8"))
        language = {name: released[name] for name in LANGUAGE_FIELDS}
        vision = {name: released["vision_config"][name] for name in VISION_FIELDS}
        words = int(released["vocab_size"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no config.json, which tells CogVLM's sizes") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not CogVLM's ({error!r}): fetch it again") from error
    ids = {f"{name}_token_id": words + i for i, name in enumerate(SPECIAL_TOKENS)}
    return VividMedConfig(
        vocab_size=words + len(SPECIAL_TOKENS), vision_config=vision, **language, **ids
    )


def load_cogvlm(
    folder: Path, config: VividMedConfig | None = None, *, dtype: torch.dtype = torch.bfloat16
) -> tuple[VividMedForCausalLM, CheckReport]:
    """Make a model of CogVLM's weights; the localiser and the projection to it are untrained.

    Args:
        folder: CogVLM's, with `config.json` and one or several files of weights.
        config: None: the sizes of the folder, and the paper's for the localiser.
        dtype: of the language model and the vision transformer; what localises stays float32.

    Returns:
        the model, and what became of every tensor.

    Raises:
        CheckpointError: if the folder is no CogVLM, damaged, incomplete or of other sizes.
    """
    with no_init_weights():
        model = VividMedForCausalLM._from_config(config or cogvlm_config(folder), dtype=dtype)
    for name in VividMedForCausalLM._keep_in_fp32_modules_strict:
        if part := getattr(model, name):
            part.float()
            part.apply(_draw)
    return model, load_into(model, folder, (COGVLM,))


def _draw(module: nn.Module) -> None:
    """Give a module without a checkpoint the weights that PyTorch begins with."""
    if reset := getattr(module, "reset_parameters", None):
        reset()
