"""The authors' released adapters: LoRA on the language model and the vision transformer.

An adapter folder of PEFT holds low-rank updates of linear layers (rsLoRA) and whole modules that
were trained beside them (embeddings, norms, the patch kernel, and what localises, where a stage
trained it). What an adapter does not hold stays as it is: one of the second stage has nothing of
the localisers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path

from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from model.checkpoints.layouts import adapter_layout
from model.checkpoints.report import CheckReport
from model.checkpoints.transfer import transfer
from model.checkpoints.weights import CheckpointError, Weights

CONFIG_NAME = "adapter_config.json"
KEY = re.compile(r"base_model\.model\.(?P<module>.+?)(\.lora_[AB])?\.[^.]+")


def is_adapter(path: Path) -> bool:
    """Tell whether a folder holds an adapter of PEFT."""
    return (path / CONFIG_NAME).is_file()


def check_adapter(folder: Path, targets: Mapping[str, Tensor]) -> CheckReport:
    """Hold an adapter against a model's tensors on the meta device.

    Raises:
        CheckpointError: if the folder is no LoRA adapter, or damaged.
    """
    layout = adapter_layout(_scale(folder))
    return transfer(Weights(folder, headers=True), layout, targets)


def merge_adapter(model: PreTrainedModel, folder: Path) -> CheckReport:
    """Add an adapter's updates to a model's own weights, in place: the form for inference.

    Raises:
        CheckpointError: if the folder is no LoRA adapter, damaged, or does not fit the model; then
            the model is unchanged.
    """
    targets = model.state_dict()
    _check_fit(folder, targets)
    return transfer(Weights(folder), adapter_layout(_scale(folder)), targets)


def load_adapter(model: PreTrainedModel, folder: Path) -> tuple[PeftModel, CheckReport]:
    """Put an adapter on a model, its weights apart and trainable: the form to train on.

    Only modules that the adapter's file has weights for are wrapped: the lists in its
    configuration also name modules that its stage did not train.

    Raises:
        CheckpointError: as `merge_adapter`.
    """
    report = _check_fit(folder, model.state_dict())
    weights = Weights(folder)
    homeless = {_module(key) for key in report.unexpected}
    tensors = {key: weights[key] for key in weights if _module(key) not in homeless}
    config = _read_config(folder)
    config.target_modules = layers = sorted(_module(key) for key in tensors if ".lora_A." in key)
    config.modules_to_save = sorted({_module(key) for key in tensors} - set(layers))
    config.inference_mode = False
    # As released, an adapter is trained in the type of the weights that it adapts.
    adapted = PeftModel(model, config, autocast_adapter_dtype=False)
    set_peft_model_state_dict(adapted, tensors)
    return adapted, report


def _check_fit(folder: Path, ours: Mapping[str, Tensor]) -> CheckReport:
    blank = {key: tensor.to("meta") for key, tensor in ours.items()}
    report = check_adapter(folder, blank)
    report.require_complete()
    if len(report.unexpected) + sum(map(len, report.ignored.values())) == report.tensors:
        raise CheckpointError(f"nothing in the adapter {folder} has a place in this model")
    return report


def _scale(folder: Path) -> float:
    config = _read_config(folder)
    if config.use_dora or config.rank_pattern or config.alpha_pattern:
        raise CheckpointError(f"{folder} is not plain LoRA with one rank: it cannot be merged here")
    root = sqrt(config.r) if config.use_rslora else config.r
    return config.lora_alpha / root


def _read_config(folder: Path) -> LoraConfig:
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG_NAME} is no configuration of PEFT's") from error
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"{folder} is an adapter of another kind than LoRA")
    return config


def _module(key: str) -> str:
    match = KEY.fullmatch(key)
    return match["module"] if match else key
