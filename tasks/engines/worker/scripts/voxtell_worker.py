"""VoxTell (https://github.com/MIC-DKFZ/VoxTell), package voxtell 0.1.2: masks of free text.

Not confirmed: how far it works with the trained weights; only its interface is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from vividmed_worker import Found, Missing, Volume, Worker, is_out_of_memory, serve


class VoxTell(Worker):
    def load(self, settings: Mapping[str, Any]) -> None:
        from voxtell.inference.predictor import VoxTellPredictor

        self.prompts_at_a_time = settings["prompts_at_a_time"]
        self.predictor = VoxTellPredictor(
            model_dir=settings["weights"],
            device=torch.device(settings["device"]),
            text_encoding_model=settings.get("text_model", "no text model was named"),
            embedding_bank=settings.get("embedding_bank"),
            use_precomputed_embeddings="embedding_bank" in settings,
        )

    def segment(self, volume: Volume, prompts: Sequence[str]) -> Iterator[Found | Missing]:
        # As nnU-Net's reader gives it: (1, z, y, x), reoriented to RAS, on its own spacing.
        image = np.ascontiguousarray(volume.voxels.transpose(2, 1, 0), np.float32)[None]
        for start in range(0, len(prompts), self.prompts_at_a_time):
            for mask in self._masks(image, prompts[start : start + self.prompts_at_a_time]):
                yield Found(mask.transpose(2, 1, 0).astype(bool))

    def _masks(self, image: Any, prompts: Sequence[str]) -> Any:
        """(N, z, y, x); prompts that do not fit into the GPU's memory are asked one by one."""
        predict = self.predictor.predict_single_image
        try:
            return predict(image, list(prompts))
        except RuntimeError as error:
            if not is_out_of_memory(error.__cause__ or error) or len(prompts) == 1:
                raise
            torch.cuda.empty_cache()
        self.predictor.perform_everything_on_device = False
        return np.concatenate([predict(image, [prompt]) for prompt in prompts])


if __name__ == "__main__":
    serve(VoxTell())
