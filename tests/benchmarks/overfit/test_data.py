"""The cases made from the real chest CT: structures are where they look as they should."""

import nibabel as nib
import numpy as np
import pytest

from benchmarks.overfit.data import load_recipe, make_cases, phrases_of, texts_of
from benchmarks.overfit.reference import NODULE, Reference
from model.config import preset
from model.data.tokenizer import train_tokenizer
from storage.images.loading import load_radiograph
from taxonomy.matcher import Matcher
from taxonomy.targets import load_taxonomy


@pytest.fixture(scope="module")
def reference(real_input):
    real_input("chest_ct/cxr.nii.gz")
    return Reference.load()


@pytest.fixture(scope="module")
def cases(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overfit")
    made = make_cases(load_recipe(), reference, preset("tiny"), folder)
    return {case.name: case for case in made}


@pytest.fixture(scope="module")
def samples(cases):
    config = preset("tiny")
    tokenizer = train_tokenizer(texts_of(cases.values()), config.vocab_size)
    return tokenizer, {name: case.samples(tokenizer, config) for name, case in cases.items()}


def truths(case):
    return {truth.phrase: truth for exchange in case.exchanges for truth in exchange.truths}


def test_the_texts_name_targets_of_the_taxonomy_and_eight_structures_of_the_ct_have_masks():
    recipe = load_recipe()
    matcher = Matcher(load_taxonomy())
    for exchanges in recipe.images.values():
        for exchange in exchanges:
            for phrase in phrases_of(exchange.answer):
                assert [(match.start, match.end) for match in matcher.find(phrase)] == [
                    (0, len(phrase))
                ]
                assert recipe.instances(phrase)
    report = next(of for of in recipe.images["ct"] if of.task == "report")
    assert report.grounding == ["mask"]
    assert len(set(phrases_of(report.answer))) == 8


def test_masks_lie_on_the_voxels_of_the_file_that_have_their_density(cases):
    stored = np.asarray(nib.Nifti1Image.from_filename(cases["ct"].path).dataobj)
    found = truths(cases["ct"])
    for phrase, low, high in [
        ("right lung", -900, -600),
        ("left lung", -900, -600),
        ("liver", 60, 160),
        ("spleen", 80, 200),
        ("aorta", 150, 500),
    ]:
        assert found[phrase].mask.shape == stored.shape
        assert low < stored[found[phrase].mask].mean() < high


def test_the_nodule_is_solid_and_as_large_as_published(reference):
    mask = reference.union([NODULE])
    spacing = reference.volume.spacing_xyz_mm
    assert mask.sum() * np.prod(spacing) == pytest.approx(4500, rel=0.15)
    extent_mm = (np.ptp(np.argwhere(mask), axis=0) + 1) * spacing
    assert extent_mm == pytest.approx([23, 22, 22], abs=3)
    assert 0 < reference.volume.hu[mask].mean() < 80
    with pytest.raises(KeyError, match="no such"):
        reference.union(["no such"])


def test_targets_are_the_truths_in_the_prepared_image(cases, samples):
    for case in cases.values():
        pairs = zip(case.exchanges, samples[1][case.name], strict=True)
        for exchange, sample in pairs:
            assert sample.text.num_phrases == len(exchange.truths)
            for truth, target in zip(exchange.truths, sample.targets, strict=True):
                assert (truth.mask is None) == (target.mask is None)
                assert (truth.boxes is None) == (target.boxes is None)
                if target.mask is not None:
                    assert target.mask.shape == case.image.grid.size
                    voxels = np.prod(case.image.grid.content) * truth.mask.sum()
                    cropped = np.prod([side.stop - side.start for side in case.frame.crop])
                    assert target.mask.sum() == pytest.approx(voxels / cropped, rel=0.1)
                if target.boxes is not None:
                    back = case.frame.boxes_to_file(target.boxes)
                    assert back == pytest.approx(truth.boxes, abs=0.01)


def test_boxes_of_the_radiograph_enclose_what_is_dense_or_dark_there(cases):
    found = truths(cases["radiograph"])
    right, left = found["lungs"].boxes[:, :, 2].mean(axis=1)
    assert right < left  # the patient's right is on the left of the picture
    (nodule,) = found["lung nodule"].boxes
    (_, row, column), (_, row_end, end) = nodule
    assert left - 100 < column < end < left + 100
    # The text says where: the middle third of the left lung's height.
    top, bottom = found["lungs"].boxes[1, :, 1]
    assert top + (bottom - top) / 3 < (row + row_end) / 2 < bottom - (bottom - top) / 3
    pixels = load_radiograph(cases["radiograph"].path).pixels
    assert pixels[found["heart"].mask[0]].mean() > pixels[found["lungs"].mask[0]].mean()
    assert (len(found["clavicles"].boxes), len(found["lungs"].boxes)) == (2, 2)


def test_answers_are_what_the_model_is_asked_to_write(cases, samples):
    tokenizer, made = samples
    for case in cases.values():
        for exchange, sample in zip(case.exchanges, made[case.name], strict=True):
            learned = sample.text.labels[sample.text.labels >= 0]
            assert learned[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(learned[:-1]) == exchange.answer
