"""The atlas detector on real and projected radiographs, and on pictures that are none."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data, transform

from storage.images.loading import load_radiograph, load_volume
from storage.images.types import Radiograph, Volume
from storage.imaging.projection import FrontalGrid, outline_box_xyxy_px, project, project_mask
from storage.overlap import box_iou
from storage.records import Box, Modifiers, Site
from tasks.engines.detection.atlas.engine import AtlasDetector
from tasks.engines.detection.atlas.lung_fields.search import find_lung_fields
from tasks.engines.detection.atlas.placement.table import load_placement
from tasks.engines.detection.atlas.radiograph import RegisteredRadiograph
from tasks.engines.detection.atlas.reference.build import load_atlas
from tasks.engines.protocols import Ungrounded
from taxonomy.zones import load_zones

TABLE = load_placement()
REASONS = {
    "target_not_supported",
    "zone_not_supported",
    "not_found",
    "outside_field_of_view",
    "side_mismatch",
}

SITES = [
    Site("left lung"),
    Site("right lung"),
    Site("heart"),
    Site("aorta"),
    Site("lung", Modifiers("bilateral", ("basal",))),
    Site("right rib 5"),
]


@pytest.fixture(scope="module")
def detector(real_input):
    real_input("chest_ct/cxr.nii.gz")
    return AtlasDetector()


@pytest.fixture(scope="module")
def thorax_ct(real_input):
    return load_volume(real_input("totalsegmentator/thorax_ct.nii.gz"))


@pytest.fixture(scope="module")
def thorax(thorax_ct):
    return project(thorax_ct)


@pytest.fixture(scope="module")
def film(real_input):
    return load_radiograph(real_input("radiograph/RG1_UNCR.dcm"))


@pytest.fixture(scope="module")
def thorax_boxes(detector, thorax):
    return detector.detect(thorax, SITES)


@pytest.fixture(scope="module")
def film_scene(detector, film):
    atlas = load_atlas()
    return RegisteredRadiograph(film.pixels, find_lung_fields(film.pixels, atlas.shape), atlas)


def plain(pixels):
    return Radiograph(np.ascontiguousarray(pixels, dtype=np.float32), None, None, "DX")


def corners(box):
    return np.array([box.x_min, box.y_min, box.x_max, box.y_max])


def reasons(answers):
    return {answer.reason for answer in answers if isinstance(answer, Ungrounded)}


def test_lungs_and_aorta_of_a_ct_that_the_atlas_was_not_made_from(
    thorax_ct, thorax_boxes, real_input
):
    grid = FrontalGrid.of(thorax_ct)
    parts, _ = ndimage.label(thorax_ct.hu < -500)
    outside = np.unique(np.concatenate([parts[0].ravel(), parts[-1].ravel(), parts[:, 0].ravel()]))
    air = ndimage.binary_erosion((parts > 0) & ~np.isin(parts, outside), iterations=2)
    cores, _ = ndimage.label(air)
    boxes = []
    for core in np.argsort(np.bincount(cores.ravel())[1:])[-2:] + 1:
        lung = ndimage.binary_dilation(cores == core, iterations=2)
        boxes.append(np.array(outline_box_xyxy_px(project_mask(lung, thorax_ct.affine, grid))))
    right, left = sorted(boxes, key=lambda box: box[0])
    image = nib.as_closest_canonical(nib.load(real_input("totalsegmentator/thorax_aorta.nii.gz")))
    aorta = outline_box_xyxy_px(project_mask(np.asarray(image.dataobj), image.affine, grid))
    assert box_iou(corners(thorax_boxes[0][0]), left) >= 0.7
    assert box_iou(corners(thorax_boxes[1][0]), right) >= 0.7
    assert box_iou(corners(thorax_boxes[3][0]), np.array(aorta)) >= 0.6


def test_sides_are_the_patient_s(thorax_boxes, thorax):
    middle = thorax.pixels.shape[1] / 2
    left, right, heart, _, bases, rib = thorax_boxes
    assert left[0].x_max > middle > right[0].x_min
    assert (heart[0].x_min + heart[0].x_max) / 2 > middle
    assert sorted(box.x_min > middle for box in bases) == [False, True]
    assert rib[0].x_max < middle


def test_the_same_image_gives_the_same_boxes(detector, thorax, thorax_boxes):
    assert AtlasDetector().detect(thorax, SITES) == thorax_boxes


def test_half_the_size_gives_half_the_coordinates(detector, thorax, thorax_boxes):
    rows, columns = thorax.pixels.shape
    half = transform.resize(thorax.pixels, (rows // 2, columns // 2), anti_aliasing=True)
    for small, large in zip(detector.detect(plain(half), SITES), thorax_boxes, strict=True):
        for a, b in zip(small, large, strict=True):
            assert corners(a) * 2 == pytest.approx(corners(b), abs=0.03 * columns)


def test_a_black_frame_moves_the_boxes_and_nothing_else(detector, thorax, thorax_boxes):
    framed = plain(np.pad(thorax.pixels, 60))
    left, right, *_ = detector.detect(framed, SITES)
    for found, expected in ((left, thorax_boxes[0]), (right, thorax_boxes[1])):
        assert box_iou(corners(found[0]) - 60, corners(expected[0])) > 0.9


def test_a_mirrored_film_is_refused_not_read_with_swapped_sides(detector, thorax):
    answers = detector.detect(plain(thorax.pixels[:, ::-1]), SITES)
    assert reasons(answers) == {"registration_failed"}
    assert "mirrored" in answers[0].detail


def test_pictures_that_are_no_frontal_radiograph_are_refused(detector, thorax_ct):
    side_view = Volume(
        np.ascontiguousarray(thorax_ct.hu.transpose(1, 0, 2)),
        thorax_ct.affine[np.ix_([1, 0, 2, 3], [1, 0, 2, 3])],
    )
    noise = np.random.default_rng(0).random((400, 400))
    pictures = {
        "constant": np.full((300, 300), 0.5),
        "strip": noise[:40],
        "noise": noise,
        "photograph": data.camera() / 255,
        "lateral": project(side_view).pixels,
        "upside down": project(thorax_ct).pixels[::-1],
    }
    for name, pixels in pictures.items():
        answers = detector.detect(plain(pixels), [Site("heart"), Site("lung nodule")])
        assert len(answers) == 2, name
        assert reasons(answers) == {"registration_failed"}, name


def test_a_lateral_view_is_refused_by_its_header(detector, thorax):
    lateral = Radiograph(thorax.pixels, None, "LATERAL", "CR")
    answers = detector.detect(lateral, SITES)
    assert reasons(answers) == {"view_not_supported"}
    assert len(answers) == len(SITES)


def test_the_large_nodules_of_the_film_are_boxed(detector, film_scene):
    boxes = detector.boxes_at(film_scene, Site("lung nodule", Modifiers(count=2)))
    assert 4 <= len(boxes) <= 9
    # Read off the picture: right lower, left upper, left lower field.
    for x, y in ((500, 1135), (1330, 715), (1460, 1160)):
        assert any(b.x_min < x < b.x_max and b.y_min < y < b.y_max for b in boxes), (x, y)
    assert all(80 < b.x_max - b.x_min < 350 for b in boxes)


def test_nodules_follow_the_side_and_the_count(detector, film_scene):
    middle = film_scene.pixels.shape[1] / 2
    left = detector.boxes_at(film_scene, Site("lung nodule", Modifiers("left")))
    many = detector.boxes_at(film_scene, Site("lung nodule", Modifiers(count=9)))
    assert all(box.x_min > middle for box in left)
    sure = detector.boxes_at(film_scene, Site("lung nodule"))
    assert many[: len(sure)] == sure
    (one,) = detector.boxes_at(film_scene, Site("lung nodule", Modifiers("left", ("upper",))))
    assert one in many


def test_a_clean_lung_gets_no_nodule_and_a_ball_in_it_is_found(detector, thorax_ct, thorax):
    place = np.array([175, 90, 110])
    axes = np.ogrid[tuple(slice(size) for size in thorax_ct.hu.shape)]
    squares = sum(((axis - at) * 1.5) ** 2 for axis, at in zip(axes, place, strict=True))
    ball = squares <= 12**2
    with_ball = Volume(np.where(ball, np.int16(35), thorax_ct.hu), thorax_ct.affine)
    truth = outline_box_xyxy_px(project_mask(ball, thorax_ct.affine, FrontalGrid.of(thorax_ct)))
    site = Site("lung nodule")
    assert reasons(detector.detect(thorax, [site])) == {"not_found"}
    (boxes,) = detector.detect(project(with_ball), [site])
    assert max(box_iou(corners(box), np.array(truth)) for box in boxes) > 0.5
    assert len(boxes) == 1


def test_fluid_is_found_on_its_side_without_being_told_which(detector, thorax_ct):
    hu = thorax_ct.hu.copy()
    lower_left = hu[:110, :, :75]  # x grows to the right, z to the head
    lower_left[lower_left < -300] = 15
    (fluid,) = detector.detect(project(Volume(hu, thorax_ct.affine)), [Site("pleural effusion")])
    level = project(thorax_ct).pixels.shape[0] - 75 * 1.5 / 0.7
    assert len(fluid) == 1
    assert fluid[0].x_min > 0.5 * thorax_ct.hu.shape[0] * 1.5 / 0.7
    assert fluid[0].y_min == pytest.approx(level, abs=25)


def test_the_cardiothoracic_ratio_is_that_of_the_picture(film_scene):
    # Heart 300 to 590 and thorax 60 to 695, read off the film at 756 columns.
    assert film_scene.cardiothoracic_ratio == pytest.approx(290 / 635, abs=0.05)


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (Site("stroke lesion"), "target_not_supported"),
        (Site("left lung", Modifiers("right")), "side_mismatch"),
        (Site("lung middle lobe", Modifiers("left")), "side_mismatch"),
        (Site("pneumothorax"), "not_found"),
        (Site("pleural effusion"), "not_found"),
        (Site("rib fracture", Modifiers("left")), "not_found"),
        (Site("L2 vertebra"), "outside_field_of_view"),
    ],
)
def test_what_cannot_be_placed_says_why(detector, film_scene, site, reason):
    answer = detector.boxes_at(film_scene, site)
    assert isinstance(answer, Ungrounded)
    assert answer.reason == reason
    assert len(answer.detail) > 15


def test_findings_go_where_the_words_say(detector, film_scene):
    middle = film_scene.pixels.shape[1] / 2
    words = Modifiers("left", ("lower",))
    (lower,) = detector.boxes_at(film_scene, Site("pulmonary opacification", words))
    (fluid,) = detector.boxes_at(film_scene, Site("pleural effusion", Modifiers("right")))
    (air,) = detector.boxes_at(film_scene, Site("pneumothorax", Modifiers("right")))
    assert lower.x_min > middle - 0.1 * middle
    assert fluid.x_max < middle
    assert air.y_max < fluid.y_min
    (named,) = detector.boxes_at(film_scene, Site("atelectasis", Modifiers("left", ("basal",))))
    (presumed,) = detector.boxes_at(film_scene, Site("pneumothorax", Modifiers("left")))
    assert named.score > presumed.score


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    target=st.sampled_from(sorted(TABLE.rules)),
    laterality=st.sampled_from([None, "left", "right", "bilateral"]),
    zones=st.lists(st.sampled_from(sorted(load_zones())), max_size=3, unique=True),
    count=st.sampled_from([None, 1, 3]),
)
def test_boxes_are_half_open_inside_the_image(
    detector, film_scene, target, laterality, zones, count
):
    answer = detector.boxes_at(film_scene, Site(target, Modifiers(laterality, tuple(zones), count)))
    if isinstance(answer, Ungrounded):
        assert answer.reason in REASONS
        return
    rows, columns = film_scene.pixels.shape
    assert answer
    for box in answer:
        assert isinstance(box, Box)
        assert 0 <= box.x_min < box.x_max <= columns
        assert 0 <= box.y_min < box.y_max <= rows
        assert 0 < box.score <= 1


def test_every_structure_of_the_table_is_in_the_atlas(detector):
    named = {name for rule in TABLE.rules.values() for g in rule.structures for name in g}
    assert named <= set(load_atlas().structures)


def test_the_atlas_is_built_once_and_then_read(real_input, tmp_path, monkeypatch):
    source = real_input("chest_ct/cxr.nii.gz").parent.parent
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    (tmp_path / "inputs").symlink_to(source)
    built = load_atlas()
    (tmp_path / "inputs").unlink()
    again = load_atlas()
    assert [path.suffix for path in (tmp_path / "derived").iterdir()] == [".json"]
    assert all(np.array_equal(again.structures[n], p) for n, p in built.structures.items())


def test_the_fingerprint_tells_what_decides_the_boxes():
    fingerprint = AtlasDetector().fingerprint
    assert fingerprint["name"] == "atlas"
    assert set(fingerprint) == {"name", "version", "atlas", "placement", "zones"}
