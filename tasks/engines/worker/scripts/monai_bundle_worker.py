"""MONAI's bundle wholeBody_ct_segmentation 0.2.5: a SegResNet with 104 classes on CT."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vividmed_worker import Found, Missing, Volume, Worker, serve

SPACING_MM = {True: 1.5, False: 3.0}
"""Voxels of the model of high resolution, and of the other."""

WINDOW = (96, 96, 96)


class MonaiBundle(Worker):
    def load(self, settings: Mapping[str, Any]) -> None:
        from monai.bundle import ConfigParser

        root = Path(settings["bundle"])
        fine = settings["highres"]
        self.device = torch.device(settings["device"])
        self.spacing = SPACING_MM[fine]
        parser = ConfigParser()
        parser.read_config(root / "configs" / "inference.json")
        parser["bundle_root"] = str(root)
        self.network = parser.get_parsed_content("network_def")
        file = root / "models" / ("model.pt" if fine else "model_lowres.pt")
        self.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.network.to(self.device).eval()
        described = json.loads((root / "configs" / "metadata.json").read_text())
        channels = described["network_data_format"]["outputs"]["pred"]["channel_def"]
        self.numbers = {name: int(number) for number, name in channels.items()}

    @torch.inference_mode()
    def segment(self, volume: Volume, prompts: Sequence[str]) -> Iterator[Found | Missing]:
        labels = self._labels(volume) if set(prompts) & self.numbers.keys() else None
        for prompt in prompts:
            if labels is None or prompt not in self.numbers:
                yield Missing("unknown", f"the bundle has no class {prompt}")
            else:
                yield Found(labels == self.numbers[prompt])

    def _labels(self, volume: Volume) -> Any:
        """The number of the class of each voxel, on the volume's own grid."""
        from monai.data import MetaTensor
        from monai.inferers import sliding_window_inference
        from monai.transforms import (
            NormalizeIntensity,
            Orientation,
            ScaleIntensity,
            Spacing,
            SpatialResample,
        )

        voxels = torch.from_numpy(np.array(volume.voxels, np.float32))[None]
        affine = torch.from_numpy(volume.affine)
        image: Any = Orientation("RAS")(MetaTensor(voxels, affine=affine))
        image = Spacing([self.spacing] * 3, mode="bilinear")(image)
        image = ScaleIntensity(-1.0, 1.0)(NormalizeIntensity(nonzero=True)(image))
        logits = sliding_window_inference(
            torch.as_tensor(image)[None],
            WINDOW,
            sw_batch_size=1,
            predictor=self.network,
            overlap=0.25,
            mode="gaussian",
            padding_mode="replicate",
            sw_device=self.device,
            device="cpu",
        )
        numbers = logits[0].argmax(dim=0, keepdim=True).float()
        back: Any = SpatialResample(mode="nearest", padding_mode="zeros", dtype=None)(
            MetaTensor(numbers, affine=image.affine),
            dst_affine=affine,
            spatial_size=volume.voxels.shape,
        )
        return np.rint(np.asarray(back[0])).astype(np.uint8)


if __name__ == "__main__":
    serve(MonaiBundle())
