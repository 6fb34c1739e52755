"""CXAS (Seibold et al. 2023), package cxas 0.0.20: masks of 159 structures, given as boxes.

Its own loader of weights accepts any file in silence, deletes what it thinks damaged, and downloads
another. This script builds its network and loads the file itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from vividmed_worker import FoundBox, Worker, serve

NETWORK = "UNet_ResNet50_default"
CLASSES = 159
SIDE = 512
"""Pixels of the square that a film is resized to, whatever its shape, by the nearest pixel."""

MEAN = (0.485, 0.456, 0.406)
SPREAD = (0.229, 0.224, 0.225)
"""Of ImageNet's colors, which the network's films are normalized by."""

LEAST_PX = 16
"""Pixels of the square: less than a fingertip of a film is noise."""


class Cxas(Worker):
    def load(self, settings: Mapping[str, Any]) -> None:
        os.environ["CXAS_NO_WELCOME"] = "1"
        from cxas.models.UNet.backbone_unet import BackboneUNet

        self.device = torch.device(settings["device"])
        self.network = BackboneUNet(NETWORK, CLASSES)
        loaded = torch.load(settings["weights"], map_location="cpu", weights_only=True)["model"]
        given = {name.removeprefix("module."): value for name, value in loaded.items()}
        self.network.load_state_dict(given)  # all must fit
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def detect(self, films: Sequence[Any], names: Sequence[str]) -> list[list[FoundBox]]:
        wanted = [int(name) for name in names]
        batch = torch.stack([_prepared(film) for film in films]).to(self.device)
        chances = self.network({"data": batch})["logits"][:, wanted].sigmoid().cpu().numpy()
        return [
            list(_boxes(chance, names, film.shape))
            for chance, film in zip(chances, films, strict=True)
        ]


def _prepared(film: Any) -> torch.Tensor:
    """(3, 512, 512), normalized."""
    pixels = torch.from_numpy(np.array(film, np.float32)).clamp(0, 1)[None, None]
    square = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="nearest")[0]
    mean, spread = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, SPREAD))
    return (square.expand(3, -1, -1) - mean) / spread


def _boxes(chances: Any, names: Sequence[str], shape: tuple[int, ...]) -> Iterator[FoundBox]:
    """The box around the largest part of each mask; its score is the mean probability there."""
    rows, columns = shape
    for name, chance in zip(names, chances, strict=True):
        labels, count = ndimage.label(chance > 0.5)
        if not count:
            continue
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = labels == sizes.argmax()
        if largest.sum() < LEAST_PX:
            continue
        y, x = ndimage.find_objects(largest.astype(np.uint8))[0]
        yield FoundBox(
            name,
            x.start * columns / SIDE,
            y.start * rows / SIDE,
            x.stop * columns / SIDE,
            y.stop * rows / SIDE,
            float(chance[largest].mean()),
        )


if __name__ == "__main__":
    serve(Cxas())
