"""Hold a checkpoint against our model without loading it.

Our model is built on the meta device and of the checkpoint only the headers are read: 17 billion
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
from model.checkpoints.loading import recognise
from model.checkpoints.localizers import sam_localizer_config
from model.checkpoints.report import CheckReport
from model.checkpoints.transfer import Layout, transfer
from model.checkpoints.weights import CheckpointError, Weights
from model.config import VividMedConfig, preset
from model.network.localization.localizer import Localizer
from model.network.vividmed import VividMedForCausalLM


def check(path: Path | str, config: VividMedConfig | str | None = None) -> CheckReport:
    """Say what a checkpoint is, and what would become of its tensors if it were loaded.

    Args:
        path: a folder of CogVLM, of our own or of an adapter; a file of SegVol, of SAM or of a
            localiser that the released code aligned.
        config: our model: a configuration, a preset's name or a folder with `config.json`. None:
            the sizes that the checkpoint itself tells, and the paper's for what it does not.

    Raises:
        CheckpointError: if the checkpoint or the configuration is absent, damaged or foreign.
    """
    path = Path(path)
    given = _given_config(config)
    if is_adapter(path):
        model = blank_model(given or _config_of_adapter(path))
        return check_adapter(path, model.state_dict())
    weights = Weights(path, headers=True)
    layout = recognise(weights)
    return transfer(weights, layout, _blank_part(layout, weights, given).state_dict())


def blank_model(config: VividMedConfig) -> VividMedForCausalLM:
    """Build a model without weights, on the meta device: for its shapes."""
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
        config.localizers = "separate"
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
        raise CheckpointError(f"{folder} has no config.json, which tells the model's sizes") from (
            error
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    raise CheckpointError(f"{path} describes no VividMed model")
