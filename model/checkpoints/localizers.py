"""Initialize a localizer from SegVol, SAM's image encoder or an aligned localizer."""

from __future__ import annotations

import re
from pathlib import Path

from model.checkpoints.layouts import ALIGNED, SAM, SEGVOL
from model.checkpoints.loading import load_into
from model.checkpoints.report import CheckReport
from model.checkpoints.weights import CheckpointError, Weights
from model.config import LocalizerConfig
from model.network.localization.localizer import Localizer

SAM_EPS = 1e-6
"""Epsilon of the layer norms of SAM's image encoder, which its checkpoints do not hold."""

BLOCK = r"image_encoder\.blocks\.(\d+)\.norm1\.weight"


def load_localizer(localizer: Localizer, path: Path) -> CheckReport:
    """Load a published checkpoint into a localizer, in place.

    Tensors that the checkpoint lacks (`absent` in the report: box heads, and for SAM all but the
    encoder) stay unchanged.

    Raises:
        CheckpointError: if the file is damaged, unsafe, of an unknown layout or of other sizes; the
            localizer is then unchanged.
    """
    return load_into(localizer, path, (SEGVOL, ALIGNED, SAM))


def sam_localizer_config(weights: Weights) -> LocalizerConfig:
    """Return the configuration of a localizer with the encoder sizes of a SAM checkpoint.

    Args:
        weights: a checkpoint in Meta's layout; its headers are enough.

    Raises:
        CheckpointError: if tensors that define the sizes are missing.
    """
    try:
        hidden = weights[SAM.signature].shape[0]
        head = weights["image_encoder.blocks.0.attn.rel_pos_h"].shape[1]
        intermediate = weights["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(
            f"{weights.path} is an incomplete SAM checkpoint: it lacks {error}"
        ) from error
    return LocalizerConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=sum(bool(re.fullmatch(BLOCK, key)) for key in weights),
        num_heads=hidden // head,
        qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in weights,
        layer_norm_eps=SAM_EPS,
    )
