"""The family `vqa` on small trees of its three data sets."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage.datasets.reader import DatasetError, Study
from storage.gold import Question
from tests.storage.datasets.trees import picture, read, reasons, write


def asked(study: Study) -> list[Question]:
    assert study.gold is not None
    return list(study.gold.questions)


def rad(name: str, question: str, answer: Any, phrase_type: str = "freeform") -> dict[str, Any]:
    return {
        "image_name": name, "question": question, "answer": answer, "phrase_type": phrase_type,
        "question_type": "PRES", "answer_type": "CLOSED ",
    }  # fmt: skip


def test_vqa_rad_has_a_conversation_an_image_and_split_the_last_one_too(tmp_path: Path) -> None:
    items = [
        rad("synpic1.jpg", "Is there air?", "Yes"),
        rad("synpic2.jpg", "How many masses?", 2),
        rad("synpic1.jpg", "Is it\tnormal?", "No\t", "test_para"),
        rad("synpic1.jpg", "Where?", "left\tlung", "para"),
        rad("synpic1.jpg", "Why?", ""),
        rad("", "Whose?", "mine"),
        rad("../../etc.jpg", "Which?", "that"),
        "no question",
        rad("synpic9.jpg", "Which plane?", "axial", "test_freeform"),
    ]
    write(tmp_path, "VQA_RAD Dataset Public.json", json.dumps(items))
    picture(tmp_path, "VQA_RAD Image Folder/synpic1.jpg", mode="RGB")
    studies, rejected = read("vqa-rad", tmp_path)
    assert list(studies) == [
        "train/synpic1-train", "train/synpic2-train", "test/synpic1-test", "test/synpic9-test",
    ]  # fmt: skip
    assert reasons(rejected) == [
        "question_incomplete",
        "path_outside_source",
        "question_incomplete",
    ]
    first = studies["train/synpic1-train"]
    assert [(q.position, q.question, q.answers) for q in asked(first)] == [
        (0, "Is there air?", ("Yes",)),
        (1, "Where?", ("left lung",)),
    ]
    assert (first.images[0].image_id, first.images[0].shape) == ("synpic1", (50, 100))
    assert reasons(first.left_out) == ["question_incomplete"]
    assert asked(first)[0].answer_type == "CLOSED"
    assert asked(studies["train/synpic2-train"])[0].answers == ("2",)
    write(tmp_path, "VQA_RAD Dataset Public.json", "{")
    with pytest.raises(DatasetError, match="is not JSON"):
        read("vqa-rad", tmp_path)


def test_slake_gives_its_english_questions(tmp_path: Path) -> None:
    def item(number: int, question: str, language: str = "en") -> dict[str, str | int]:
        return {
            "img_id": number, "img_name": f"xmlab{number}/source.jpg", "question": question,
            "answer": "MRI", "q_lang": language, "modality": "MRI", "answer_type": "OPEN",
            "content_type": "Modality",
        }  # fmt: skip

    write(tmp_path, "train.json", json.dumps([item(1, "Modality?"), item(1, "什么?", "zh")]))
    write(tmp_path, "validation.json", json.dumps([item(2, "是?", "zh"), item(3, "Which?")]))
    write(tmp_path, "test.json", json.dumps([item(4, "Which?")]))
    studies, rejected = read("slake", tmp_path)
    assert list(studies) == ["train/xmlab1", "validate/xmlab3", "test/xmlab4"]
    assert not rejected
    image = studies["train/xmlab1"].images[0]
    assert image.uri == str(tmp_path / "imgs" / "xmlab1" / "source.jpg")
    assert (image.modality, len(asked(studies["train/xmlab1"]))) == ("MR", 1)


def test_vqa_med_has_lines_of_three_and_of_four_fields(tmp_path: Path) -> None:
    write(
        tmp_path,
        "ImageClef-2019-VQA-Med-Training/All_QA_Pairs_train.txt",
        "synpic1|which plane is this?|axial",
        "synpic1|what is abnormal?|tumor (superior)",
        "synpic1|what is abnormal?",
    )
    write(
        tmp_path,
        "ImageClef-2019-VQA-Med-Validation/All_QA_Pairs_val.txt",
        "synpic2|which plane is this?|axial",
    )
    test = "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    write(
        tmp_path,
        test,
        "synpic3|plane|which plane is this?|axial#transverse",
        "",
        "synpic3|abnormality|what is wrong?|(fungal infection with) septic emboli#emboli",
    )
    studies, _ = read("vqa-med-2019", tmp_path)
    assert list(studies) == ["train/synpic1", "validate/synpic2", "test/synpic3"]
    assert asked(studies["train/synpic1"])[1].answers == ("tumor (superior)",)
    assert reasons(studies["train/synpic1"].left_out) == ["question_incomplete"]
    plane, wrong = asked(studies["test/synpic3"])
    assert (plane.question_type, plane.answers) == ("plane", ("axial", "transverse"))
    assert wrong.answers == ("fungal infection with septic emboli", "septic emboli", "emboli")
    (tmp_path / test).unlink()
    with pytest.raises(DatasetError, match=r"has no VQAMed2019Test/.*as it was downloaded"):
        read("vqa-med-2019", tmp_path)
