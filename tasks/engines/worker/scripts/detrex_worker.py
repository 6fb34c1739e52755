"""DINO with EVA-02 and other detectors of detrex (https://github.com/IDEA-Research/detrex).

Tested with detrex e244e6c3 and detectron2 70f45430. The paper's detector is
`dino_eva_02_vitdet_l_8attn_1536_lrd0p8_4scale_12ep.py`, trained on the 21 classes of VinDr-CXR.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from vividmed_worker import FoundBox, Worker, serve

ONLY_ON_GPUS = ("detrex._C", "detectron2._C")
"""Compiled operators. On the CPU PyTorch alone computes the same, but the import must work."""

ONLY_IN_TRAINING = ("wandb", "fairscale", "fairscale.nn", "fairscale.nn.checkpoint")
"""Imported by modules of detrex that nothing here uses."""


class Detrex(Worker):
    def load(self, settings: Mapping[str, Any]) -> None:
        for name in (*(ONLY_ON_GPUS if settings["device"] == "cpu" else ()), *ONLY_IN_TRAINING):
            stand_in(name)
        from detectron2.config import LazyConfig, instantiate

        config = LazyConfig.load(settings["config"])
        config = LazyConfig.apply_overrides(config, list(settings["overrides"]))
        self.names = settings["classes"]
        config.model.device = settings["device"]
        config.model.num_classes = len(self.names)
        self.model = instantiate(config.model).to(settings["device"]).eval()
        load_weights(self.model, Path(settings["weights"]))
        self.side = settings["side"]
        self.equalize = settings["equalize"]

    @torch.inference_mode()
    def detect(self, films: Sequence[Any], names: Sequence[str]) -> list[list[FoundBox]]:
        inputs = [
            {"image": self._prepared(film), "height": film.shape[0], "width": film.shape[1]}
            for film in films
        ]
        wanted = set(names)
        return [self._boxes(output["instances"], wanted) for output in self.model(inputs)]

    def _prepared(self, film: Any) -> torch.Tensor:
        """(3, rows, columns), 0 to 255, its longer side `side`; equalized when resized.

        In this order in the paper's code: a film is resized by Pillow, then equalized.
        """
        image = Image.fromarray(np.rint(255 * np.clip(film, 0, 1)).astype(np.uint8))
        scale = self.side / max(image.size)
        size = [max(1, round(scale * length)) for length in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        if self.equalize:
            image = ImageOps.equalize(image)
        pixels = torch.from_numpy(np.array(image, np.float32))
        return pixels[None].expand(3, -1, -1).contiguous()

    def _boxes(self, found: Any, wanted: set[str]) -> list[FoundBox]:
        """Boxes in pixels of the film, which the model scales them to; best first."""
        found = found.to("cpu")
        boxes = found.pred_boxes.tensor.tolist()
        rows = zip(found.pred_classes.tolist(), boxes, found.scores.tolist(), strict=True)
        return [
            FoundBox(self.names[number], *corners, score)
            for number, corners, score in rows
            if self.names[number] in wanted
        ]


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Load a checkpoint of detectron2 (`model_final.pth`); all tensors must fit.

    Raises:
        ValueError: if keys or shapes differ; detectron2's own loader passes over that.
    """
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    given = loaded.get("model", loaded)
    given = {name.removeprefix("module."): torch.as_tensor(v) for name, v in given.items()}
    own = model.state_dict()
    missing, foreign = own.keys() - given.keys(), given.keys() - own.keys()
    other = [k for k in own.keys() & given.keys() if own[k].shape != given[k].shape]
    if missing or foreign or other:
        raise ValueError(
            f"{file} is not of this configuration: {len(missing)} tensors are missing, "
            f"{len(foreign)} foreign, {len(other)} of another shape, such as "
            f"{', '.join(sorted([*missing, *foreign, *other])[:3])}"
        )
    model.load_state_dict(given)


def stand_in(name: str) -> None:
    """Put an empty module in the place of one that is not installed.

    Nothing is imported to find out: `detrex` itself fails at once where `detrex._C` is missing.
    """
    if is_installed(name):
        return
    module = types.ModuleType(name)
    module.checkpoint_wrapper = lambda wrapped, *_, **__: wrapped  # type: ignore[attr-defined]
    module.__path__ = []
    sys.modules[name] = module


def is_installed(name: str) -> bool:
    """Whether there is a file for the module of this name."""
    top, _, inside = name.partition(".")
    if top in sys.modules and not getattr(sys.modules[top], "__file__", None):
        return False  # itself a stand-in
    spec = find_spec(top)
    if spec is None or not inside:
        return spec is not None
    pattern = inside.replace(".", "/") + "*"
    return any(any(Path(place).glob(pattern)) for place in spec.submodule_search_locations or ())


if __name__ == "__main__":
    serve(Detrex())
