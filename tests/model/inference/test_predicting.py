"""A trained model's text, boxes and masks, in the coordinates of the files it was given."""

from pathlib import Path

import numpy as np
import pytest

from model.inference.predict import Prediction, predict
from model.inference.prompts import ask
from model.inference.regions import Pointer
from storage.images.types import ImageError
from taxonomy.targets import load_taxonomy
from tests.model.inference.memorized import ANSWERS, DISC_XYXY, Memorized, block, text_of


def predicted(trained: Memorized, paths: list[Path], **options) -> list[Prediction]:
    question = options.pop("question", ask("report"))
    pointer = Pointer(load_taxonomy(), options.pop("pointing", "by-category"))
    options = {"max_new_tokens": 60, **options}
    return list(predict(trained.model, trained.processor, paths, question, pointer, **options))


def test_a_batch_of_a_film_and_a_ct_is_grounded_in_both_files(
    trained: Memorized, pictures: dict[str, Path]
) -> None:
    film, ct = predicted(trained, [pictures[name] for name in ANSWERS])
    assert film.text == text_of("film.png")
    [nodule] = film.tags
    assert film.text[nodule.start : nodule.end] == nodule.phrase == "lung nodule"
    assert nodule.grounding.boxes is not None
    left, top, right, bottom = DISC_XYXY
    for box in nodule.grounding.boxes:
        np.testing.assert_allclose(box.corners, [[0, top, left], [1, bottom, right]], atol=2)
    assert nodule.grounding.boxes

    assert ct.text == text_of("ct.nii.gz")
    heart, absent = ct.tags
    assert (heart.phrase, absent.phrase) == ("heart", "thingummy")
    assert heart.grounding.mask is not None
    mask = heart.grounding.mask.voxels
    assert 2 * (mask & block()).sum() / (mask.sum() + block().sum()) > 0.9
    assert absent.grounding.mask is not None
    assert absent.grounding.mask.voxel_count == 0
    assert absent.grounding.boxes == ()


def test_a_batch_says_what_each_image_alone_says(
    trained: Memorized, pictures: dict[str, Path]
) -> None:
    paths = [pictures[name] for name in (*ANSWERS, *reversed(ANSWERS))]
    together = predicted(trained, paths)
    alone = predicted(trained, paths, batch_size=1)
    assert [one.text for one in together] == [one.text for one in alone]
    for one, other in zip(together, alone, strict=True):
        for tag, same in zip(one.tags, other.tags, strict=True):
            assert tag.phrase == same.phrase
            assert (tag.grounding.mask is None) == (same.grounding.mask is None)
            if tag.grounding.mask is not None and same.grounding.mask is not None:
                assert tag.grounding.mask.voxel_count == pytest.approx(
                    same.grounding.mask.voxel_count, abs=5
                )


def test_text_is_handed_over_while_it_grows(trained: Memorized, pictures: dict[str, Path]) -> None:
    pieces: list[str] = []
    [film] = predicted(trained, [pictures["film.png"]], write=pieces.append)
    assert len(pieces) > 3
    assert "".join(pieces) == film.text


def test_an_answer_that_had_to_stop_is_marked(
    trained: Memorized, pictures: dict[str, Path]
) -> None:
    paths = [pictures[name] for name in ANSWERS]
    whole = predicted(trained, paths)
    assert [one.complete for one in whole] == [True, True]
    lengths = [
        len(trained.processor.tokenizer(answer, add_special_tokens=False).input_ids)
        for answer in ANSWERS.values()
    ]
    # The end of the shorter answer still fits, that of the longer one does not.
    cut = predicted(trained, paths, max_new_tokens=min(lengths) + 1)
    assert [one.complete for one in cut] == [length == min(lengths) for length in lengths]


def test_without_grounding_nothing_is_pointed_at(
    trained: Memorized, pictures: dict[str, Path]
) -> None:
    question = ask("vqa", "Is there a nodule?")
    [film] = predicted(trained, [pictures["film.png"]], question=question, max_new_tokens=4)
    assert film.question.task == "vqa"
    assert isinstance(film.text, str)


def test_only_what_is_asked_for_is_localized(trained: Memorized, pictures: dict[str, Path]) -> None:
    [ct] = predicted(trained, [pictures["ct.nii.gz"]], pointing="boxes")
    assert all(tag.grounding.mask is None for tag in ct.tags)
    assert all(tag.grounding.boxes is not None for tag in ct.tags)


def test_an_image_that_cannot_be_read_is_named(trained: Memorized, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.png"):
        predicted(trained, [tmp_path / "missing.png"])
