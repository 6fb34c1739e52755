"""Begin a localiser from SegVol, from SAM's image encoder or from one the released code aligned."""

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
BLOCK = r"image_encoder\.blocks\.(\d+)\.norm1\.weight"


def load_localizer(localizer: Localizer, path: Path) -> CheckReport:
    """Load a published checkpoint into a localiser, in place.

    What the checkpoint does not have (`absent` in the report: box heads, all but the encoder for
    SAM) stays as it was.

    Raises:
        CheckpointError: if the file is damaged, unsafe, of no known layout or of other sizes; then
            the localiser is unchanged.
    """
    return load_into(localizer, path, (SEGVOL, ALIGNED, SAM))


def sam_localizer_config(weights: Weights) -> LocalizerConfig:
    """Return a localiser whose image encoder has the sizes of a SAM checkpoint.

    Args:
        weights: in Meta's layout; headers are enough.

    Raises:
        CheckpointError: if the tensors that tell the sizes are not there.
    """
    try:
        hidden = weights[SAM.signature].shape[0]
        head = weights["image_encoder.blocks.0.attn.rel_pos_h"].shape[1]
        intermediate = weights["image_encoder.blocks.0.mlp.lin1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{weights.path} is no whole SAM checkpoint: it lacks {error}") from (
            error
        )
    return LocalizerConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=sum(bool(re.fullmatch(BLOCK, key)) for key in weights),
        num_heads=hidden // head,
        qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in weights,
        layer_norm_eps=SAM_EPS,
    )
