"""A few slices show every mask."""

import numpy as np

from storage.images.volume_files import read_label_ids
from storage.imaging.slice_selection import MaskProfile, best_slice, choose_slices
from storage.imaging.windows import window_of, windows

SOFT = window_of(None)


def test_every_mask_has_a_slice_where_it_is_nearly_as_large_as_anywhere(real_input) -> None:
    mask = read_label_ids(real_input("totalsegmentator/heart_heart.nii.gz"))[0] > 0
    middle = int(np.median(np.nonzero(mask)[2]))
    low, high = mask.copy(), mask.copy()
    low[:, :, middle:] = False
    high[:, :, :middle] = False
    profiles = [
        MaskProfile.of(1, low, SOFT, comes_first=False),
        MaskProfile.of(2, high, windows()["lung"], comes_first=True),
        MaskProfile.of(3, mask, windows()["bone"], comes_first=False),
    ]
    slices = choose_slices(profiles, mask.shape)
    assert [shown.plane for shown in slices].count("coronal") == 1
    for profile in profiles:
        best = best_slice(profile, slices)
        assert best is not None
        assert slices[best].window == profile.window
        assert profile.area(slices[best]) >= 0.95 * profile.axial.max()


def test_many_masks_share_few_slices_and_the_first_keep_theirs() -> None:
    profiles = []
    for i in range(20):
        mask = np.zeros((4, 4, 40), bool)
        mask[1, 1, i] = True
        profiles.append(MaskProfile.of(i, mask, SOFT, comes_first=i == 19))
    slices = choose_slices(profiles, (4, 4, 40))
    axial = [shown for shown in slices if shown.plane == "axial"]
    assert len(axial) == 8
    assert best_slice(profiles[19], axial) is not None


def test_a_volume_without_masks_still_has_slices() -> None:
    chosen = choose_slices([], (10, 20, 30))
    assert [(shown.plane, shown.index) for shown in chosen] == [("axial", 15), ("coronal", 10)]
