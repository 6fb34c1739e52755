"""Checkpoints in the published layouts, written from the tables of `released.yaml`."""

from __future__ import annotations

import json
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

TABLES = yaml.safe_load(Path(__file__).with_name("released.yaml").read_text("utf-8"))

Sizes = dict[str, int]
Shapes = dict[str, tuple[int, ...]]


def shapes(sizes: Sizes, *tables: str) -> Shapes:
    """Spell out tables: every key with its shape."""
    lines = [line for table in tables for line in TABLES[table].items()]
    return {
        key: tuple(_number(term, sizes) for term in str(shape).split())
        for pattern, shape in lines
        for key in _keys(pattern, sizes)
    }


def tensors(of: Shapes, prefix: str = "") -> dict[str, Tensor]:
    """Random weights of these shapes."""
    return {prefix + key: torch.randn(shape) for key, shape in of.items()}


def _keys(pattern: str, sizes: Sizes) -> list[str]:
    parts = [part.split("]") for part in pattern.split("[")]
    names = [part[0] for part in parts[1:]]
    texts = [parts[0][0], *(part[1] for part in parts[1:])]
    choices = [TABLES["names"].get(name) or range(sizes[name]) for name in names]
    return [
        texts[0] + "".join(f"{value}{text}" for value, text in zip(values, texts[1:], strict=True))
        for values in product(*choices)
    ]


def _number(term: str, sizes: Sizes) -> int:
    return prod(sizes[factor] if factor in sizes else int(factor) for factor in term.split("*"))


def cogvlm_config(sizes: Sizes) -> dict[str, Any]:
    """CogVLM's config.json for these sizes."""
    return {
        "architectures": ["CogVLMForCausalLM"],
        "vocab_size": sizes["words"],
        "hidden_size": sizes["language"],
        "intermediate_size": sizes["language_mlp"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["language"] // (2 * sizes["half_head"]),
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 3e-5,
        "template_version": "chat",
        "vision_config": {
            "dropout_prob": 0.0,
            "hidden_act": "gelu",
            "hidden_size": sizes["vision"],
            "image_size": 490,
            "in_channels": 3,
            "intermediate_size": sizes["vision_mlp"],
            "layer_norm_eps": 2e-6,
            "num_heads": sizes["vision"] // 8,
            "num_hidden_layers": sizes["vision_layers"],
            "num_positions": 1226,
            "patch_size": 14,
        },
    }


def write_cogvlm(folder: Path, weights: dict[str, Tensor], shards: int = 3) -> None:
    """Write a CogVLM folder in several files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    config = cogvlm_config(TABLES["small"]["cogvlm"])
    (folder / "config.json").write_text(json.dumps(config))
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {key: weights[key] for key in list(weights)[number::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
