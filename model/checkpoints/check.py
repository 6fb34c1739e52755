"""Compare a checkpoint with the model without loading it.

The model is built on the meta device and only the headers of the checkpoint are read: 17 billion
parameters take seconds and hardly any memory. `vividmed model check` prints the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers.initialization import no_init_weights

from model.checkpoints.adapters import check_adapter, is_adapter
from model.checkpoints.cogvlm import cogvlm_config
from model.checkpoints.layouts import COGVLM, SAM
from model.checkpoints.loading import recognize
from model.checkpoints.localizers import sam_localizer_config
from model.checkpoints.report import CheckReport
from model.checkpoints.transfer import Layout, transfer
from model.checkpoints.weights import CheckpointError, Weights
from model.config import VividMedConfig, preset
from model.network.localization.localizer import Localizer
from model.network.vividmed import VividMedForCausalLM


def check(path: Path | str, config: VividMedConfig | str | None = None) -> CheckReport:
    """Identify a checkpoint and report what loading would do with each of its tensors.

    Args:
        path: a folder of CogVLM, VividMed or an adapter; a file of SegVol, of SAM or of an aligned
            localizer of the released code.
        config: the model: a configuration, the name of a preset or a folder with `config.json`.
            None: the sizes of the checkpoint, and the paper's where it does not define them.

    Raises:
        CheckpointError: if the checkpoint or the configuration is missing, damaged or of an unknown
            layout.
    """
    path = Path(path)
    given = _given_config(config)
    if is_adapter(path):
        model = blank_model(given or _config_of_adapter(path))
        return check_adapter(path, model.state_dict())
    weights = Weights(path, headers=True)
    layout = recognize(weights)
    return transfer(weights, layout, _blank_part(layout, weights, given).state_dict())


def blank_model(config: VividMedConfig) -> VividMedForCausalLM:
    """Build a model without weights, on the meta device, for its tensor shapes."""
    with torch.device("meta"), no_init_weights():
        return VividMedForCausalLM(config)


def _blank_part(
    layout: Layout, weights: Weights, given: VividMedConfig | None
) -> VividMedForCausalLM | Localizer:
    if layout.part == "model":
        return blank_model(given or _config_of_folder(layout, weights.path))
    if given:
        config = given.localizer
    else:
        # SAM's sizes differ between its checkpoints; the other layouts have the paper's.
        config = sam_localizer_config(weights) if layout is SAM else preset("paper").localizer
    with torch.device("meta"):
        return Localizer(config, num_instances=config.num_instances, boxes=True)


def _config_of_folder(layout: Layout, path: Path) -> VividMedConfig:
    folder = path if path.is_dir() else path.parent
    return cogvlm_config(folder) if layout is COGVLM else _own_config(folder)


def _config_of_adapter(folder: Path) -> VividMedConfig:
    config = preset("paper")
    keys = Weights(folder, headers=True)
    if any(key.startswith("base_model.model.isam_model.") for key in keys):
        config.localizers = "separate"  # as in the released code
    return config


def _given_config(config: VividMedConfig | str | None) -> VividMedConfig | None:
    if not isinstance(config, str):
        return config
    if Path(config).is_dir():
        return _own_config(Path(config))
    try:
        return preset(config)
    except KeyError as error:
        raise CheckpointError(f"{error.args[0]}, or a folder with a config.json") from error


def _own_config(folder: Path) -> VividMedConfig:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if content.get("model_type") == VividMedConfig.model_type:
            return VividMedConfig.from_dict(content)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no config.json, which defines the sizes of the model"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    raise CheckpointError(f"{path} describes no VividMed model")
