"""An enhanced CT is the volume of its frames, wherever they stand in the file."""

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage, generate_uid

from storage.images.loading import describe_image, is_volume, load_volume
from storage.images.types import ImageError
from tests.storage.images.dicom_files import decimals, write_ct_slice

FRAMES = np.arange(24, dtype=np.int16).reshape(4, 2, 3)
DEPTHS_MM = (0, 4, 2, 6)  # the second and the third frame are not in order


def item(**elements):
    made = Dataset()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return [made]


def shared(**elements):
    orientation = decimals(1, 0, 0, 0, 1, 0)
    groups = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=orientation),
        "PixelMeasuresSequence": item(PixelSpacing=decimals(0.5, 0.7), SliceThickness=2),
        "PixelValueTransformationSequence": item(RescaleSlope=2, RescaleIntercept=-1000),
    }
    return item(**{**groups, **elements})


def per_frame(**elements):
    return [
        item(PlanePositionSequence=item(ImagePositionPatient=decimals(0, 0, z)), **elements)[0]
        for z in DEPTHS_MM
    ]


def write_enhanced(path, **elements):
    """A file of four frames; functional groups take the place of a slice's own elements."""
    top = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    top |= dict.fromkeys(("RescaleSlope", "RescaleIntercept"))
    enhanced = {
        "SOPClassUID": EnhancedCTImageStorage,
        "NumberOfFrames": len(FRAMES),
        "SharedFunctionalGroupsSequence": shared(),
        "PerFrameFunctionalGroupsSequence": per_frame(),
    }
    write_ct_slice(path, FRAMES[0], **{**top, **enhanced, **elements})
    dataset = pydicom.dcmread(path)
    dataset.PixelData = FRAMES.tobytes()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(path)
    return path


def refused(path):
    with pytest.raises(ImageError) as caught:
        load_volume(path)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("uid", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
def test_one_file_and_a_folder_with_it_are_the_volume(tmp_path, uid):
    path = write_enhanced(tmp_path / "enhanced.dcm", SOPClassUID=uid)
    expected = FRAMES[[0, 2, 1, 3]][:, ::-1, ::-1].T * 2 - 1000
    for source in (path, tmp_path):
        assert is_volume(source)
        volume = load_volume(source)
        np.testing.assert_array_equal(volume.hu, expected)
        assert volume.spacing_xyz_mm == (0.7, 0.5, 2)
        assert describe_image(source).shape == volume.hu.shape


def test_a_file_that_is_there_twice_is_one(tmp_path):
    path = write_enhanced(tmp_path / "enhanced.dcm")
    (tmp_path / "copy.dcm").write_bytes(path.read_bytes())
    assert describe_image(tmp_path).left_out == ("enhanced.dcm is the same image as copy.dcm",)
    assert load_volume(tmp_path).hu.shape == (3, 2, 4)


def test_what_differs_between_frames_counts_before_what_they_share(tmp_path):
    own = item(RescaleSlope=1, RescaleIntercept=0)
    groups = per_frame(PixelValueTransformationSequence=own)
    path = write_enhanced(tmp_path / "a.dcm", PerFrameFunctionalGroupsSequence=groups)
    assert load_volume(path).hu.max() == 23


@pytest.mark.parametrize(
    ("elements", "reason", "words"),
    [
        (
            {"ConcatenationUID": generate_uid(), "InConcatenationTotalNumber": 2},
            "image_unsupported",
            "concatenation",
        ),
        ({"NumberOfFrames": 5}, "image_unreadable", "5 frames and describes 4"),
        ({"PerFrameFunctionalGroupsSequence": None}, "image_unreadable", "describes 0"),
        (
            {"SharedFunctionalGroupsSequence": shared(PixelMeasuresSequence=[])},
            "geometry_missing",
            "PixelSpacing",
        ),
        (
            {
                "SharedFunctionalGroupsSequence": shared(
                    CTImageFrameTypeSequence=item(
                        FrameType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]
                    )
                )
            },
            "image_unsupported",
            "PERFUSION",
        ),
        ({"NumberOfFrames": 40_000, "Rows": 9000, "Columns": 9000}, "too_large", "40000 voxels"),
    ],
)
def test_other_enhanced_files_are_refused(tmp_path, elements, reason, words):
    said = refused(write_enhanced(tmp_path / "a.dcm", **elements))
    assert said[0] == reason
    assert words in said[1]


def test_a_file_cut_short(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(path)[0] == "image_unreadable"
