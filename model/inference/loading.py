"""Loading of trained models."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from model.config import VividMedConfig
from model.data.processor import VividMedProcessor
from model.inference.errors import InferenceError
from model.network.vividmed import VividMedForCausalLM

_NEEDED = ("config.json", "processor_config.json", "tokenizer.json")


def load(folder: Path) -> tuple[VividMedForCausalLM, VividMedProcessor]:
    """Load a model and its processor from the folder of `save_pretrained`, for inference.

    Weights keep their saved dtype; a GPU is used if available.

    Raises:
        InferenceError: if the folder is missing or incomplete, or holds another model.
    """
    _check(folder)
    disable_progress_bar()
    try:
        processor = VividMedProcessor.from_pretrained(folder, local_files_only=True)
        model = VividMedForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    # transformers, tokenizers and safetensors raise exceptions of many types for damaged files.
    except Exception as error:
        detail = str(error).strip().split("\n")[0]
        raise InferenceError(
            f"the model in {folder} cannot be loaded, it may be damaged: {detail};"
            f" `vividmed model check {folder}` may tell more"
        ) from error
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model, processor


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise InferenceError(
            f"there is no model folder {folder}: `make overfit` trains a small model and writes it"
            " to data/overfit/model"
        )
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise InferenceError(
            f"{folder} is no saved VividMed model: it has no {missing[0]}"
            " (`vividmed model check` says what a folder of weights holds)"
        )
    try:
        model_type = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InferenceError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if model_type != VividMedConfig.model_type:
        raise InferenceError(
            f"{folder} holds a model of type {model_type}, not {VividMedConfig.model_type}"
        )
