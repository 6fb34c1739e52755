"""The authors' released adapters: LoRA on the language model and the vision transformer.

A PEFT adapter folder holds low-rank updates of linear layers (rsLoRA) and modules that were trained
in full (embeddings, norms, the patch kernel, and the localizers if the stage trained them). Tensors
that an adapter does not hold stay unchanged: an adapter of the second stage leaves the localizers
alone.
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
# The module's path in the model is between PEFT's prefix and the name of the parameter.
KEY = re.compile(r"base_model\.model\.(?P<module>.+?)(\.lora_[AB])?\.[^.]+")


def is_adapter(path: Path) -> bool:
    """Whether a folder holds a PEFT adapter."""
    return (path / CONFIG_NAME).is_file()


def check_adapter(folder: Path, targets: Mapping[str, Tensor]) -> CheckReport:
    """Compare an adapter with the tensors of a model on the meta device.

    Raises:
        CheckpointError: if the folder is no LoRA adapter or is damaged.
    """
    layout = adapter_layout(_scale(folder))
    return transfer(Weights(folder, headers=True), layout, targets)


def merge_adapter(model: PreTrainedModel, folder: Path) -> CheckReport:
    """Merge an adapter into the weights of a model, in place, for inference.

    Raises:
        CheckpointError: if the folder is no LoRA adapter, is damaged or does not fit the model; the
            model is then unchanged.
    """
    targets = model.state_dict()
    _check_fit(folder, targets)
    return transfer(Weights(folder), adapter_layout(_scale(folder)), targets)


def load_adapter(model: PreTrainedModel, folder: Path) -> tuple[PeftModel, CheckReport]:
    """Wrap a model with an adapter whose weights stay separate and trainable, for training.

    Only modules with weights in the adapter's file are wrapped: the lists in its configuration also
    name modules that its stage did not train.

    Raises:
        CheckpointError: as `merge_adapter`.
    """
    report = _check_fit(folder, model.state_dict())
    weights = Weights(folder)
    unknown = {_module(key) for key in report.unexpected}
    tensors = {key: weights[key] for key in weights if _module(key) not in unknown}
    config = _read_config(folder)
    config.target_modules = layers = sorted(_module(key) for key in tensors if ".lora_A." in key)
    config.modules_to_save = sorted({_module(key) for key in tensors} - set(layers))
    config.inference_mode = False
    # As in the released code, an adapter is trained in the dtype of the weights that it adapts.
    adapted = PeftModel(model, config, autocast_adapter_dtype=False)
    set_peft_model_state_dict(adapted, tensors)
    return adapted, report


def _check_fit(folder: Path, targets: Mapping[str, Tensor]) -> CheckReport:
    blank = {key: tensor.to("meta") for key, tensor in targets.items()}
    report = check_adapter(folder, blank)
    report.require_complete()
    if len(report.unexpected) + sum(map(len, report.ignored.values())) == report.tensors:
        raise CheckpointError(f"no tensor of the adapter {folder} belongs to this model")
    return report


def _scale(folder: Path) -> float:
    config = _read_config(folder)
    if config.use_dora or config.rank_pattern or config.alpha_pattern:
        raise CheckpointError(f"{folder} is not plain LoRA with one rank: only that can be merged")
    root = sqrt(config.r) if config.use_rslora else config.r
    return config.lora_alpha / root


def _read_config(folder: Path) -> LoraConfig:
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / CONFIG_NAME} is no PEFT configuration") from error
    if not isinstance(config, LoraConfig):
        raise CheckpointError(f"{folder} is a PEFT adapter, but not LoRA")
    return config


def _module(key: str) -> str:
    match = KEY.fullmatch(key)
    return match["module"] if match else key
