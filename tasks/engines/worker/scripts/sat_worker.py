"""SAT (Zhao et al. 2023, https://github.com/zhaoziheng/SAT), commit 5676be5a.

Its own program needs torchrun, NCCL and CUDA, and saves masks on a grid of its own without their
place. This script uses its networks alone; windows and resampling are MONAI's, on a GPU or the CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vividmed_worker import Found, Missing, Volume, Worker, serve

SPACING_MM = (1.0, 1.0, 3.0)
"""What SAT was trained on, along x, y, z."""

CT_HU = (-500.0, 1000.0)
"""Hounsfield units are cut to this; other modalities to their percentiles .5 and 99.5."""

MODALITIES = {"CT": 0, "MR": 1, "US": 2, "PT": 3}
"""The rows of the embedding of modalities, by DICOM's name."""

NOT_OF_THE_TEXT_ENCODER = ("atlas_tower", "temperature")
"""Parts of the knowledge encoder's training that its checkpoint still has."""


class Sat(Worker):
    def load(self, settings: Mapping[str, Any]) -> None:
        source = Path(settings["source"])
        # SAT's own variant of the package, which returns features too; the public one does not fit.
        sys.path[:0] = [
            str(source / "model" / "dynamic-network-architectures-main"),
            str(source),
        ]
        os.environ.setdefault("RANK", "0")  # read by its modules
        # By name: SAT's package is called as one of VividMed's.
        encoder = import_module("model.knowledge_encoder").Knowledge_Encoder
        maskformer = import_module("model.maskformer").Maskformer

        self.device = torch.device(settings["device"])
        self.window = tuple(settings["window"])
        self.queries = settings["queries"]
        # The table of positions is no parameter: a checkpoint loads into a window of any size.
        self.network = maskformer(settings["backbone"], list(self.window), [32, 32, 32], False)
        load_weights(self.network, Path(settings["weights"]))
        self.text = encoder(settings["text_model"])
        load_weights(self.text, Path(settings["text_encoder"]), NOT_OF_THE_TEXT_ENCODER)
        self.network.to(self.device).eval()
        self.text.to(self.device).eval()
        self.known: dict[tuple[str, int], torch.Tensor] = {}

    @torch.inference_mode()
    def segment(self, volume: Volume, prompts: Sequence[str]) -> Iterator[Found | Missing]:
        if volume.modality not in MODALITIES:
            for _ in prompts:
                yield Missing("unknown", f"SAT knows no modality {volume.modality}")
            return
        image = prepared(volume)
        embedded = self._embedded(prompts, MODALITIES[volume.modality])
        for start in range(0, len(prompts), self.queries):
            chances = self._chances(image, embedded[start : start + self.queries])
            for channel in chances:
                yield on_grid_of(volume, channel, image)

    def _chances(self, image: Any, queries: torch.Tensor) -> torch.Tensor:
        """Probability of each query, (N, x, y, z) on the grid of the image, on the CPU."""
        from monai.inferers import sliding_window_inference

        def of_windows(windows: torch.Tensor) -> torch.Tensor:
            three = windows.expand(-1, 3, -1, -1, -1)
            with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
                logits = self.network(queries=[queries], image_input=three)
            return logits.float().sigmoid()

        found = sliding_window_inference(
            torch.as_tensor(image)[None],
            self.window,
            sw_batch_size=1,
            predictor=of_windows,
            overlap=0.5,
            mode="gaussian",
            sw_device=self.device,
            device="cpu",
        )
        return found[0]

    def _embedded(self, prompts: Sequence[str], modality: int) -> torch.Tensor:
        """(N, 768) of the prompts in small letters; each is computed once."""
        names = [prompt.lower() for prompt in prompts]
        new = [name for name in dict.fromkeys(names) if (name, modality) not in self.known]
        if new:
            # What its own `forward` does, less its CUDA device.
            tower = self.text.text_tower
            tokens = {k: v.to(self.device) for k, v in tower.tokenizer.tokenize(new).items()}
            pooled = tower.mean_pooling(tower.biolord(**tokens), tokens["attention_mask"])
            code = torch.full((len(new),), modality, device=self.device)
            vectors = self.text.projection_layer(pooled) + self.text.modality_embed(code)
            self.known |= {
                (name, modality): vector for name, vector in zip(new, vectors, strict=True)
            }
        return torch.stack([self.known[name, modality] for name in names])


def load_weights(network: torch.nn.Module, file: Path, left_out: Sequence[str] = ()) -> None:
    """Load a checkpoint of SAT, whose keys may begin with `module.`; all must fit.

    Raises:
        ValueError: if keys or shapes differ, such as those of SAT's pretraining, which its own
            program loads in silence.
    """
    loaded = torch.load(file, map_location="cpu", weights_only=True)["model_state_dict"]
    given = {name.removeprefix("module."): value for name, value in loaded.items()}
    given = {k: v for k, v in given.items() if not any(part in k for part in left_out)}
    own = network.state_dict()
    # Older versions of transformers kept the positions in checkpoints.
    given = {k: v for k, v in given.items() if k in own or not k.endswith("position_ids")}
    missing = own.keys() - given.keys()
    foreign = given.keys() - own.keys()
    other = [k for k in own.keys() & given.keys() if own[k].shape != given[k].shape]
    if missing or foreign or other:
        raise ValueError(
            f"{file} is not of this network: {len(missing)} tensors are missing, {len(foreign)} "
            f"foreign, {len(other)} of another shape: use SAT_Pro.pth with UNET-L, and "
            "text_encoder.pth"
        )
    network.load_state_dict(given)


def prepared(volume: Volume) -> Any:
    """The volume as SAT's own loader gives it, (1, x, y, z) with the affine of that grid."""
    from monai.data import MetaTensor
    from monai.transforms import CropForeground, Orientation, Spacing

    voxels = torch.from_numpy(np.array(volume.voxels, np.float32))[None]
    image: Any = MetaTensor(voxels, affine=torch.from_numpy(volume.affine))
    image = Orientation("RAS")(image)
    image = Spacing(SPACING_MM, mode="bilinear")(image)
    image = CropForeground()(image)  # the box around what is above 0
    values = np.asarray(image)
    if volume.modality == "CT":
        low, high = CT_HU
    else:
        low, high = np.percentile(values, [0.5, 99.5])
    image = image.clamp(low, high)
    spread = float(image.std(unbiased=False))
    return (image - image.mean()) / (spread or 1.0)


def on_grid_of(volume: Volume, chance: torch.Tensor, image: Any) -> Found:
    """The mask of one query on the volume's own grid; its score is the mean probability in it."""
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    back: Any = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=None)(
        MetaTensor(chance[None], affine=image.affine),
        dst_affine=torch.from_numpy(volume.affine),
        spatial_size=volume.voxels.shape,
    )
    probability = np.asarray(back[0])
    mask = probability > 0.5
    return Found(mask, float(probability[mask].mean()) if mask.any() else None)


if __name__ == "__main__":
    serve(Sat())
