"""TotalSegmentator (https://github.com/wasserth/TotalSegmentator), version 2.18.

A prompt is a class of the task `total`, or `<task>/<class>`. Each task is one call, which reads its
models from disk again: TotalSegmentator offers no way to keep them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from vividmed_worker import Found, Missing, Volume, Worker, is_out_of_memory, serve

TOTAL = "total"

ROUGH = (298, 297)
"""The models of 6 and 3 mm of `total`: one of them finds the region that other tasks work in."""

ALWAYS_THERE = {
    "lung_nodules": "lung",
    "pleural_pericard_effusion": "lung_pleural",
    "lung_vessels": "lung_airways",
}
"""The class that every chest CT has: where it is empty, the task failed, such as at a volume of
another region or without Hounsfield units, and the emptiness of the others says nothing."""


class TotalSegmentator(Worker):
    """Keeps no model; `load` only finds out that the package and the weights are there."""

    def load(self, settings: Mapping[str, Any]) -> None:
        # The folder for its own configuration: no usage statistics are sent, no notice is shown.
        home = Path(tempfile.mkdtemp(prefix="totalsegmentator-"))
        own = {
            "totalseg_id": "vividmed",
            "send_usage_stats": False,
            "prediction_counter": 0,
            "statistics_disclaimer_shown": True,
        }
        (home / "config.json").write_text(json.dumps(own))
        self.weights = Path(settings["weights"])
        os.environ["TOTALSEG_HOME_DIR"] = str(home)
        os.environ["TOTALSEG_WEIGHTS_PATH"] = str(self.weights)
        import totalsegmentator.nnunet  # noqa: F401 what cannot be imported is told before any work
        from totalsegmentator.map_to_binary import class_map

        self.classes: Mapping[str, Mapping[int, str]] = class_map
        self.device = "gpu" if settings["device"] == "cuda" else "cpu"
        self.fast = settings["fast"]

    def segment(self, volume: Volume, prompts: Sequence[str]) -> Iterator[Found | Missing]:
        import nibabel

        image = nibabel.Nifti1Image(np.asarray(volume.voxels), volume.affine)
        asked = [_task_and_class(prompt) for prompt in prompts]
        maps: dict[str, Any] = {}
        for task, name in asked:
            ids = {known: number for number, known in self.classes.get(task, {}).items()}
            if name not in ids:
                yield Missing("unknown", f"the task {task} has no class {name}")
                continue
            if task not in maps:
                wanted = [other for of_task, other in asked if of_task == task and other in ids]
                maps[task] = self._labels(image, task, wanted)
            labels = maps[task]
            anchor = ALWAYS_THERE.get(task)
            if isinstance(labels, Missing):
                yield labels
            elif anchor and not (labels == ids[anchor]).any():
                yield Missing("failed", f"{task} found no {anchor}: is this a chest CT in HU?")
            else:
                yield Found(labels == ids[name])

    def _labels(self, image: Any, task: str, names: Sequence[str]) -> Any:
        """The label map of a task on the grid of the image, (x, y, z); or why there is none."""
        from totalsegmentator.python_api import totalsegmentator

        if absent := self._absent_weights(task):
            return Missing("unknown", f"{task} needs {absent}, which is not in {self.weights}")
        options: dict[str, Any] = {}
        if task == TOTAL:  # only the models that hold these classes run; other tasks have one
            options["roi_subset"] = list(dict.fromkeys(names))
            options["fast"] = self.fast
        try:
            found = totalsegmentator(
                image, None, task=task, ml=True, quiet=True, device=self.device, **options
            )
        # One task that fails, or ends its caller for want of a licence, leaves the others.
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            return Missing("failed", f"{task}: {type(error).__name__}: {error}")
        return np.asarray(found.dataobj)

    def _absent_weights(self, task: str) -> str | None:
        """A folder that the task would download; nothing is fetched behind the user's back."""
        from totalsegmentator.map_tasks_config import TASK_CONFIGS, TASK_ID_WEIGHTS_CONFIGS

        config = TASK_CONFIGS.get(task, {})
        if "sub_modes" in config:
            modes = config["sub_modes"]
            config = modes["fast"] if self.fast and "fast" in modes else modes["default"]
        ids = config.get("task_id", [])
        needed = [*(ids if isinstance(ids, list) else [ids])]
        if task == TOTAL and not self.fast:
            needed = []  # which of its five models run depends on the classes
        if task != TOTAL and TASK_CONFIGS.get(task, {}).get("crop"):
            needed.append(ROUGH[0])
        folders = [TASK_ID_WEIGHTS_CONFIGS[one]["foldername"] for one in needed]
        missing = [folder for folder in folders if not (self.weights / folder).is_dir()]
        return missing[0] if missing else None


def _task_and_class(prompt: str) -> tuple[str, str]:
    task, _, name = prompt.rpartition("/")
    return task or TOTAL, name


if __name__ == "__main__":  # its helper processes import this file again
    serve(TotalSegmentator())
