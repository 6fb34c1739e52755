import contextlib
import zlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from storage.masks import MaskError, decode_mask, encode_mask, mask_box

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
ANY_MASK = arrays.arrays(np.bool_, SHAPES)


@st.composite
def masks_of_runs(draw):
    """Masks made of boxes, as organs are, and of speckles of any density, as thresholds are."""
    shape = draw(st.tuples(*[st.integers(1, 40)] * 3))
    mask = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < draw(
        st.sampled_from([0, 0.001, 0.5, 0.999])
    )
    for _ in range(draw(st.integers(0, 3))):
        low = [draw(st.integers(0, size - 1)) for size in shape]
        high = [draw(st.integers(start + 1, size)) for start, size in zip(low, shape, strict=True)]
        mask[tuple(map(slice, low, high))] ^= True
    return mask


def assert_same(decoded, mask):
    assert decoded.dtype == np.bool_
    assert decoded.shape == mask.shape
    assert np.array_equal(decoded, mask)


@given(st.one_of(ANY_MASK, masks_of_runs()))
def test_round_trip_is_exact(mask):
    assert_same(decode_mask(encode_mask(mask)), mask)


@given(masks_of_runs(), st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1, 2])] * 3))
def test_memory_order_does_not_matter(mask, axes, steps):
    view = mask.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
    assert_same(decode_mask(encode_mask(view)), view)
    assert encode_mask(view) == encode_mask(view.copy(order="C"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 8, 9), (512, 512, 3), (0, 5, 5)])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks_are_small(shape, value):
    mask = np.full(shape, value)
    data = encode_mask(mask)
    assert_same(decode_mask(data), mask)
    assert len(data) < 200


def test_decoded_mask_can_be_written_to():
    mask = decode_mask(encode_mask(np.eye(3, dtype=bool)))
    mask[0, 1] = True
    assert mask.sum() == 4


@given(masks_of_runs(), st.data())
def test_changed_bytes_are_refused(mask, data):
    encoded = bytearray(encode_mask(mask))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MaskError):
        decode_mask(bytes(encoded))


@given(masks_of_runs(), st.data())
def test_cut_bytes_are_refused(mask, data):
    encoded = encode_mask(mask)
    with pytest.raises(MaskError):
        decode_mask(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data):
    with pytest.raises(MaskError):
        decode_mask(data)


def forged(mask, geometry=None, packed=None):
    """An encoded mask with other numbers or other voxels, and the checksum that goes with them."""
    encoded = encode_mask(mask)
    at = 10 + 12 * mask.ndim
    geometry = encoded[9:at] if geometry is None else geometry
    body = geometry + (encoded[at:] if packed is None else packed)
    return encoded[:5] + zlib.crc32(body).to_bytes(4, "little") + body


MASK = np.ones((2, 3, 4), bool)
LYING = {
    "huge": (3, [2**32 - 1] * 3, [0] * 3, [2, 3, 4]),
    "huge and empty": (3, [0, 2**32 - 1, 2**32 - 1], [0] * 3, [0, 2, 2]),
    "box beyond the mask": (3, [2, 3, 4], [1, 0, 0], [2, 3, 4]),
    "box larger than its voxels": (3, [2, 30, 4], [0] * 3, [2, 30, 4]),
    "box smaller than its voxels": (3, [2, 3, 4], [0] * 3, [1, 1, 1]),
    "more axes than numbers": (8, [], [], []),
    "more axes than arrays have": (255, [1] * 255, [0] * 255, [1] * 255),
}


@pytest.mark.parametrize(("axes", "shape", "starts", "extents"), LYING.values(), ids=LYING)
def test_sizes_that_cannot_be_true_are_refused(axes, shape, starts, extents):
    geometry = bytes([axes]) + np.array([*shape, *starts, *extents], "<u4").tobytes()
    with pytest.raises(MaskError, match="this encoded mask"):
        decode_mask(forged(MASK, geometry))


@pytest.mark.parametrize("packed", [b"", b"no zstd", encode_mask(MASK)[46:-1]])
def test_voxels_that_cannot_be_decompressed_are_refused(packed):
    with pytest.raises(MaskError, match="does not hold as many voxels"):
        decode_mask(forged(MASK, packed=packed))


@given(st.binary(max_size=60))
def test_any_body_with_a_right_checksum_is_a_mask_or_refused(body):
    data = b"VMMK\x01" + zlib.crc32(body).to_bytes(4, "little") + body
    with contextlib.suppress(MaskError):
        assert decode_mask(data).dtype == np.bool_


def test_later_version_says_what_to_do():
    encoded = bytearray(encode_mask(np.ones((2, 2, 2), bool)))
    encoded[4] = 2
    with pytest.raises(MaskError, match="version 2"):
        decode_mask(bytes(encoded))


@given(ANY_MASK.filter(lambda mask: mask.any()))
def test_box_is_the_smallest_that_holds_the_mask(mask):
    box = mask_box(mask)
    assert mask[box].sum() == mask.sum()
    for axis, occupied in enumerate(np.nonzero(mask) if mask.ndim else ()):
        assert (box[axis].start, box[axis].stop) == (occupied.min(), occupied.max() + 1)


def test_layout_of_version_1_stays():
    mask = np.zeros((3, 4, 20), bool)
    mask[1, 2:, 5:15] = True
    encoded = encode_mask(mask)
    assert encoded[:5] == b"VMMK\x01"
    assert int.from_bytes(encoded[5:9], "little") == zlib.crc32(encoded[9:])
    geometry = np.frombuffer(encoded[10:46], "<u4").reshape(3, 3)
    assert geometry.tolist() == [[3, 4, 20], [1, 2, 5], [1, 2, 10]]


@settings(deadline=None, max_examples=3)
@given(st.integers(1, 89))
def test_real_structures_come_back(real_input, value):
    path = real_input("chest_ct/mask.nii.gz")
    labels = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
    mask = labels == value
    assert_same(decode_mask(encode_mask(mask)), mask)
