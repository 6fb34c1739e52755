"""What lies beside the slices is left out and named; what the headers miss is told."""

import shutil

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)

from storage.images.loading import describe_image, load_volume
from storage.images.types import ImageError
from tests.storage.images.dicom_files import decimals, write_ct_slice

SLICE = np.arange(6, dtype=np.int16).reshape(2, 3)
SAGITTAL = decimals(0, 1, 0, 0, 0, -1)
OTHER_SERIES = {"SeriesInstanceUID": generate_uid()}
NO_PIXELS = {"Rows": None, "Columns": None, "PixelData": None, **OTHER_SERIES}
SCOUT = {"ImageOrientationPatient": SAGITTAL, **OTHER_SERIES}


def write_stack(folder, count=5, **elements):
    for index in range(count):
        numbered = {"InstanceNumber": index + 1, "SOPInstanceUID": generate_uid(), **elements}
        write_ct_slice(folder / f"{index}.dcm", SLICE + index, (0, 0, index), **numbered)


def refused(folder):
    with pytest.raises(ImageError) as caught:
        describe_image(folder)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], **SCOUT}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        (SCOUT, "lies across the slices"),
        ({"Modality": "SR", "SOPClassUID": BasicTextSRStorage, **NO_PIXELS}, "modality SR"),
        ({"Modality": "SR", "SOPClassUID": XRayRadiationDoseSRStorage, **NO_PIXELS}, "SR"),
        ({"Modality": "CT", "SOPClassUID": XRayRadiationDoseSRStorage, **NO_PIXELS}, "Dose SR"),
        ({"Modality": "RTSTRUCT", "SOPClassUID": RTStructureSetStorage, **NO_PIXELS}, "RTSTRUCT"),
        ({"Modality": "PR", "SOPClassUID": GrayscaleSoftcopyPresentationStateStorage}, "PR"),
        ({"Modality": "SEG", "SOPClassUID": SegmentationStorage, "NumberOfFrames": 4}, "SEG"),
        ({"Modality": "OT", "SOPClassUID": EncapsulatedPDFStorage, **NO_PIXELS}, "modality OT"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, **OTHER_SERIES}, "Secondary Capture"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "RescaleSlope": None}, "Secondary Capture"),
        ({"Modality": "MR", **OTHER_SERIES}, "modality MR"),
    ],
)
def test_one_odd_object_does_not_cost_the_image(tmp_path, elements, words):
    write_stack(tmp_path)
    write_ct_slice(tmp_path / "odd", SLICE, **elements)
    (left_out,) = describe_image(tmp_path).left_out
    assert left_out.startswith("odd ")
    assert words in left_out
    assert load_volume(tmp_path).hu.shape == (3, 2, 5)


def test_a_slice_that_is_there_twice_is_one(tmp_path):
    write_stack(tmp_path)
    shutil.copy(tmp_path / "3.dcm", tmp_path / "3 (1).dcm")
    again = dcmread(tmp_path / "0.dcm")
    again.SOPInstanceUID = generate_uid()  # as an archive gives it when it imports a file again
    again.save_as(tmp_path / "again")
    assert len(describe_image(tmp_path).left_out) == 2
    assert load_volume(tmp_path).hu.shape == (3, 2, 5)


@pytest.mark.parametrize("elements", [{}, {"RescaleIntercept": -5}])
def test_another_image_in_the_same_place_is_no_duplicate(tmp_path, elements):
    write_stack(tmp_path)
    pixels = SLICE + 3 if elements else SLICE
    write_ct_slice(tmp_path / "other", pixels, (0, 0, 3), **elements)
    assert "two slices in one place" in refused(tmp_path)[1]


def test_two_series_stay_refused(tmp_path):
    write_stack(tmp_path)
    for index in range(4):
        write_ct_slice(tmp_path / f"b{index}", SLICE, (0, 0, index + 0.5), **OTHER_SERIES)
    assert "2 series (of 5, 4 images)" in refused(tmp_path)[1]


def test_a_ct_of_secondary_captures_alone_is_read(tmp_path):
    write_stack(tmp_path, SOPClassUID=SecondaryCaptureImageStorage)
    assert describe_image(tmp_path).left_out == ()


def test_a_folder_without_slices(tmp_path):
    write_stack(tmp_path, Modality="MR")
    assert "holds no CT slice: 0.dcm has the modality MR" in refused(tmp_path)[1]


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ImagesInAcquisition": 9}, "5 of the 9 images"),
        ({"ImagesInAcquisition": 9, "AcquisitionNumber": 2}, "5 of the 9 images"),
        ({"NumberOfSeriesRelatedInstances": 6}, "5 of the 6 images"),
        ({"NumberOfSeriesRelatedInstances": 6, "InstanceNumber": None}, "5 of the 6 images"),
    ],
)
def test_a_transfer_cut_short_is_told(tmp_path, elements, words):
    write_stack(tmp_path, **elements)
    reason, detail = refused(tmp_path)
    assert reason == "series_incomplete"
    assert words in detail


@pytest.mark.parametrize(
    "elements",
    [
        {"ImagesInAcquisition": 5},
        {"ImagesInAcquisition": 1},  # each image an acquisition, as step-and-shoot writes
        {"ImagesInAcquisition": 9, "InstanceNumber": None},
        {"ImagesInAcquisition": ""},
        {"NumberOfSeriesRelatedInstances": 5},
        {"NumberOfSeriesRelatedInstances": [9, 9]},
    ],
)
def test_counts_that_prove_nothing_cost_nothing(tmp_path, elements):
    write_stack(tmp_path, **elements)
    assert load_volume(tmp_path).hu.shape == (3, 2, 5)


def test_numbers_that_start_anywhere_prove_nothing(tmp_path):
    for index in range(4):
        write_ct_slice(tmp_path / f"{index}", SLICE, (0, 0, index), InstanceNumber=267 + index)
    assert load_volume(tmp_path).hu.shape == (3, 2, 4)


def test_numbers_that_lie_further_apart_than_the_count(tmp_path):
    """Every second image is of another reconstruction: the count is of something else."""
    for index in range(4):
        elements = {"InstanceNumber": 1 + 2 * index, "ImagesInAcquisition": 5}
        write_ct_slice(tmp_path / f"{index}", SLICE, (0, 0, index), **elements)
    assert load_volume(tmp_path).hu.shape == (3, 2, 4)
