"""The registration segmenter on CTs of patients that its atlas was not made from.

    python -m benchmarks.registration

Second chest CT: heart, aorta and T12 with the references of the TotalSegmentator project; the lungs
as in `benchmarks.atlas`, by threshold. Abdominal CT: the 30 uppermost slices with their reference.
The baseline is the atlas moved and enlarged as a whole, by the start of the registration, with
nothing deformed. The settings of the registration were chosen on these two patients: expect less
on others.

Then the volumes that must be refused: mirrored and upside down, the pelvis, and the atlas's own CT.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.atlas import lungs
from benchmarks.targets import judge
from storage.datasets import chest_ct
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.images.volume_files import read_label_ids
from storage.inputs import input_path
from storage.overlap import dice
from storage.records import Site
from tasks.engines.protocols import Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.registration.alignment import find_start, warped_labels
from tasks.engines.segmentation.registration.atlas import load_atlas
from tasks.engines.segmentation.registration.engine import RegistrationSegmenter, offered_targets
from tasks.engines.segmentation.registration.matching import matching_image

THORAX = {
    "heart": "heart_heart.nii.gz",
    "aorta": "thorax_aorta.nii.gz",
    "T12 vertebra": "thorax_vertebrae_T12.nii.gz",
}
"""References of the second chest CT; they lie on its grid or on a part of it."""

ABDOMEN = (
    "liver",
    "spleen",
    "spinal cord",
    "left autochthon",
    "right autochthon",
    "T12 vertebra",
    "L1 vertebra",
    "L2 vertebra",
    "left lung lower lobe",
    "right lung lower lobe",
)
"""The offered targets that the abdominal crop holds whole or in part."""

PELVIS_SLICES = 60
"""The lower slices of the abdominal CT, of 3 mm: from the femora to the iliac crests."""

Voxels = NDArray[np.bool_]


def main() -> int:
    """Print the tables; 1 if a target is missed."""
    started = time.perf_counter()
    load_atlas()
    print(f"atlas made in {time.perf_counter() - started:.0f} s, once in a process")
    thorax = load_volume(input_path("totalsegmentator/thorax_ct.nii.gz"))
    truth = {name: _on_grid(file, thorax) for name, file in THORAX.items()} | lungs(thorax)
    figures, seconds = _measured("second chest CT", thorax, truth)
    crop = load_volume(input_path("totalsegmentator/abdomen_crop_ct.nii.gz"))
    found, _ = _measured("abdominal crop", crop, _abdomen())
    figures["liver, Dice"] = found["liver, Dice"]
    figures["seconds of the second chest CT"] = seconds
    figures["volumes refused that should be, share"] = _refused(thorax)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["MB at the peak, atlas and scans loaded"] = peak_mb
    return judge("registration", figures)


def _measured(
    title: str, volume: Volume, truth: dict[str, Voxels]
) -> tuple[dict[str, float], float]:
    """Print a table; the Dice of each target, 0 where it was refused, and the CPU seconds."""
    started = time.process_time()
    names = list(truth)
    answers = list(RegistrationSegmenter().segment(volume, [Site(name) for name in names]))
    seconds = time.process_time() - started
    baseline = _undeformed(volume, names)
    print(f"\n{title:<26}{'Dice':>8}{'baseline':>10}{'confidence':>12}   {seconds:.0f} CPU s")
    figures: dict[str, float] = {}
    for name, answer in zip(names, answers, strict=True):
        naive = dice(baseline[name], truth[name])
        if isinstance(answer, Ungrounded):
            figures[f"{name}, Dice"] = 0.0
            print(f"{name:<26}{'–':>8}{naive:>10.3f}   {answer.detail}")
        else:
            figures[f"{name}, Dice"] = ours = dice(answer.voxels, truth[name])
            print(f"{name:<26}{ours:>8.3f}{naive:>10.3f}{answer.score:>12.2f}")
    return figures, seconds


def _undeformed(volume: Volume, names: list[str]) -> dict[str, Voxels]:
    """The targets after the start of the registration alone."""
    atlas, chest = load_atlas(), Chest(volume)
    start = find_start(matching_image(chest.grid, chest.working_body), atlas.image)
    labels = warped_labels(atlas.labels, chest.grid, start.transform)
    masks = {}
    for name in names:
        ids = [atlas.id_by_name[part] for part in offered_targets()[name].structures]
        masks[name] = chest.grid.enlarge(np.isin(labels, ids))
    return masks


def _abdomen() -> dict[str, Voxels]:
    """The references of the abdominal crop."""
    ids, _ = read_label_ids(input_path("totalsegmentator/abdomen_crop_seg.nii.gz"))
    # The atlas's ids are those of TotalSegmentator v2, as the reference's are.
    number = load_atlas().id_by_name
    return {
        name: np.isin(ids, [number[part] for part in offered_targets()[name].structures])
        for name in ABDOMEN
    }


def _refused(thorax: Volume) -> float:
    abdomen = load_volume(input_path("totalsegmentator/abdomen_ct.nii.gz"))
    crop = load_volume(input_path("totalsegmentator/abdomen_crop_ct.nii.gz"))
    pelvis = abdomen.hu[:, :, :PELVIS_SLICES].copy()
    atlas = chest_ct.load_ct()
    cases = {
        "chest upside down": Volume(np.flip(thorax.hu, 2).copy(), thorax.affine),
        "chest mirrored": Volume(np.flip(thorax.hu, 0).copy(), thorax.affine),
        "chest back to front": Volume(np.flip(thorax.hu, 1).copy(), thorax.affine),
        "abdomen upside down": Volume(np.flip(crop.hu, 2).copy(), crop.affine),
        "abdomen mirrored": Volume(np.flip(crop.hu, 0).copy(), crop.affine),
        "pelvis": Volume(pelvis, abdomen.affine),
        "the atlas's own CT": atlas,
        "the same, cut and coarser": Volume(atlas.hu[::2, ::2, 20:].copy(), _halved(atlas.affine)),
    }
    print("\nvolumes to refuse")
    refused = []
    for name, volume in cases.items():
        [answer] = RegistrationSegmenter().segment(volume, [Site("liver")])
        refused.append(isinstance(answer, Ungrounded) and answer.reason != "not_found")
        print(f"{name:<26}{answer.detail if isinstance(answer, Ungrounded) else 'NOT REFUSED'}")
    return float(np.mean(refused))


def _halved(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return affine @ np.diag([2.0, 2.0, 1.0, 1.0])


def _on_grid(file: str, volume: Volume) -> Voxels:
    """A reference mask, on the whole grid of its volume."""
    ids, affine = read_label_ids(input_path(f"totalsegmentator/{file}"))
    start = np.round((np.linalg.inv(volume.affine) @ affine[:, 3])[:3]).astype(int)
    whole = np.zeros(volume.hu.shape, bool)
    whole[tuple(slice(s, s + n) for s, n in zip(start, ids.shape, strict=True))] = ids > 0
    return whole


if __name__ == "__main__":
    sys.exit(main())
