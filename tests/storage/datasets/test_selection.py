from pathlib import Path

import pytest

from storage.datasets.comparison import compared_with_paper
from storage.datasets.reader import DatasetError, Study, StudyImage
from storage.datasets.registry import find_declaration
from storage.datasets.selection import RequiredSections, Selected
from storage.funnel import FunnelStep, added, sentence, step_of
from storage.rejects import Reject

LONG = "The lungs are clear and the heart is normal in size."  # 11 words


def _study(
    name: str = "s",
    findings: str | None = LONG,
    impression: str | None = "No acute disease.",
    views: tuple[str | None, ...] = ("PA",),
) -> Study:
    images = tuple(StudyImage(f"{name}-{i}", "", "DX", view) for i, view in enumerate(views))
    return Study(name, findings, impression, "made up", images=images)


def _select(
    dataset: str,
    *studies: Study | Reject,
    folder: Path = Path(),
    require: RequiredSections | None = None,
) -> Selected:
    return find_declaration(dataset).select(folder, require).apply(studies)


def _reason(dataset: str, study: Study, require: RequiredSections | None = None) -> str | None:
    [result] = _select(dataset, study, require=require).results
    return result.reason if isinstance(result, Reject) else None


def test_each_rule_of_mimic_cxr_takes_out_what_the_paper_does() -> None:
    assert _reason("mimic-cxr", _study()) is None
    assert _reason("mimic-cxr", _study(impression=None)) == "no_impression"
    assert _reason("mimic-cxr", _study(findings=None)) == "no_findings"
    assert _reason("mimic-cxr", _study(findings=None, impression=None)) == "no_text"
    assert _reason("mimic-cxr", _study(findings=LONG.rpartition(" ")[0])) is None  # 10 words
    assert _reason("mimic-cxr", _study(findings="Clear lungs.")) == "findings_too_short"
    assert _reason("mimic-cxr", _study(impression="Normal.")) == "impression_too_short"
    told = _study(impression="Discussed by phone with Dr. ___.")
    assert _reason("mimic-cxr", told) == "impression_too_short"
    assert _reason("mimic-cxr", _study(views=("LATERAL", None))) == "no_frontal_view"
    assert _reason("mimic-cxr", _study(views=())) is None  # a text that came alone


def test_what_the_user_asks_of_sections_counts_in_place_of_the_declaration() -> None:
    alone = _study(impression=None)
    assert _reason("mimic-cxr", alone, require="any") is None
    assert _reason("mimic-cxr", _study(impression="Dr. ___ knows."), require="any") is None
    assert _reason("ct-rate", alone) is None
    assert _reason("ct-rate", _study(findings=None)) == "no_findings"
    assert _reason("ct-rate", alone, require="both") == "no_impression"


@pytest.mark.parametrize(
    ("impression", "kept"),
    [
        ("Nodule of 2.5 cm. Findings were discussed by phone.", "Nodule of 2.5 cm."),
        ("No pneumonia. These minutes count. Effusion.", "No pneumonia."),
        ("Chest tube in place. Drains in place.", "Chest tube in place."),  # "Dr", as in the paper
        ("No pneumonia.\nNo effusion", "No pneumonia.\nNo effusion"),
    ],
)
def test_an_impression_is_cut_before_who_was_told(impression: str, kept: str) -> None:
    [study] = _select("mimic-cxr", _study(impression=impression)).results
    assert isinstance(study, Study)
    assert study.impression == kept
    assert [r.reason for r in study.left_out] == ["notification_cut"] * (kept != impression)


def test_the_funnel_adds_up_in_studies_and_in_pairs() -> None:
    selected = _select(
        "mimic-cxr",
        _study("a", views=("PA", "LATERAL", "AP", None)),
        _study("b", impression=None, views=("PA", "AP")),
        Reject("c", "c.txt", "no_report_text", ""),
        _study("d", views=("LATERAL",)),
    )
    assert selected.funnel == (
        FunnelStep("found", 4, 7),
        FunnelStep("not read", 1, 0),
        FunnelStep("has_sections", 1, 2),
        FunnelStep("cut_impression", 0, 0),
        FunnelStep("least_words", 0, 0),
        FunnelStep("frontal_views", 1, 3),
        FunnelStep("kept", 1, 2),
    )
    assert sentence(selected.funnel) == (
        "4 studies (7 pairs) found; not read 1 (0), has_sections 1 (2), cut_impression 0 (0), "
        "least_words 0 (0), frontal_views 1 (3); 1 (2) kept"
    )
    kept = selected.results[0]
    assert isinstance(kept, Study)
    assert [(r.image_id, r.reason) for r in kept.left_out] == [
        ("a-1", "view_not_frontal"),
        ("a-3", "view_unknown"),
    ]
    twice = added([*selected.funnel, *selected.funnel])
    assert step_of(twice, "kept") == FunnelStep("kept", 2, 4)
    assert twice[-1].step == "kept"


def test_volumes_that_are_listed_as_no_chest_are_left_out(tmp_path: Path) -> None:
    lists = tmp_path / "dataset" / "metadata"
    lists.mkdir(parents=True)
    (lists / "no_chest_train.txt").write_text("train/train_1/train_1_a/train_1_a_2.nii.gz\n\n")
    (lists / "no_chest_valid.txt").write_text("valid_3_a_1.nii.gz\n")
    ids = {"train_1_a": ("train_1_a_1", "train_1_a_2"), "valid_3_a": ("valid_3_a_1",)}
    studies = [
        Study(s, LONG, None, "", images=tuple(StudyImage(i, i, "CT") for i in images))
        for s, images in ids.items()
    ]
    not_there = Reject("valid_3_a", "", "image_not_found", "", image_id="valid_3_a_1")
    studies.append(Study("valid_3_a", LONG, None, "", left_out=(not_there,)))
    kept, gone, also = _select("ct-rate", *studies, folder=tmp_path).results
    assert isinstance(also, Reject)
    assert isinstance(kept, Study)
    assert [image.image_id for image in kept.images] == ["train_1_a_1"]
    assert isinstance(gone, Reject)
    assert gone.reason == "not_chest"
    before = find_declaration("ct-rate").select(tmp_path, None).digest()
    (lists / "no_chest_valid.txt").write_text("")
    assert find_declaration("ct-rate").select(tmp_path, None).digest() != before


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("Axial CT of the chest shows a cavity.", None),
        ("Left pleural effusion with a shift of the mediastinum.", None),
        ("Chest X-ray.", "findings_too_short"),
        ("Photomicrograph of the lesion (H&E, x400).", "not_radiological"),
        ("Flow chart of the patients included.", "not_radiological"),
        ("CT scan (a) and photograph of the specimen (b).", None),
        (None, "no_text"),
    ],
)
def test_captions_of_other_pictures_are_taken_out(caption: str | None, reason: str | None) -> None:
    assert _reason("rocov2", Study("f", caption, None, "ROCOv2")) == reason


def test_the_paper_is_compared_with_where_the_set_is_whole() -> None:
    declaration = find_declaration("mimic-cxr")

    def said(found: int, kept: int) -> list[str]:
        train = (FunnelStep("found", found, 368_960), FunnelStep("kept", 99, kept))
        return [s for s in compared_with_paper(declaration, {"train": train}) if "train" in s]

    [equal], [fewer], [part] = said(222_758, 121_953), said(222_758, 121_900), said(10, 5)
    assert "121,953 pairs are kept, as many as in the paper" in equal
    assert "53 fewer than the paper's 121,953" in fewer
    assert "10 of 222,758 studies are here" in part


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("[{rule: has_section}]", "has_section"),
        ("[{rule: least_words, words: 3}]", "selection.0.least_words.words: there is no such key"),
        ("[{rule: chest_volumes, lists: []}]", "selection.0.chest_volumes.lists"),
    ],
)
def test_a_rule_that_cannot_be_used_is_named(tmp_path: Path, rules: str, message: str) -> None:
    head = "title: t\nlicence: l\naccess: a\ncitation: c\nsource: s\nsplits: [train]\nreader: table"
    (tmp_path / "mine.yaml").write_text(f"{head}\nselection: {rules}\n")
    with pytest.raises(DatasetError, match=message):
        find_declaration(str(tmp_path / "mine.yaml"))
