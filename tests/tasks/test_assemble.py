from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storage.records import Mask, MaskKey, SiteKey
from storage.rejects import Reject, rejects_table
from storage.shards import Part, table_from_rows
from tasks.assemble import assemble_reports, report_text

PART = Part("showcase", "test", 0)
KEY = {"dataset": "showcase", "split": "test", "study_id": "s1"}
IMAGE = {"image_id": "i1", "uri": "i1.dcm", "modality": "CR", "view": "PA"}
VOLUME = {"image_id": "v1", "uri": "v1.nii.gz", "modality": "CT", "view": None}
ENGINES = {
    "cleaner": "rules 1",
    "extractor": "lexicon 1",
    "filter": "context 1",
    "detector": "atlas 1",
    "segmenter": "hounsfield 1",
    "taxonomy": "digest",
}
FINDINGS = "Right effusion. Cardiomegaly. Left effusion."


def _phrase(text: str, words: str, target: str, laterality: str | None = None) -> dict[str, Any]:
    start = text.index(words)
    return KEY | {
        "section": "findings",
        "start": start,
        "end": start + len(words),
        "phrase": words,
        "target": target,
        "category": "abnormality",
        "modifiers": {"laterality": laterality, "zones": [], "count": None},
        "assertion": "present",
    }


def _box(target: str, x: float, laterality: str | None = None) -> dict[str, Any]:
    place: dict[str, Any] = {
        "image_id": "i1",
        "target": target,
        "laterality": laterality,
        "zones": [],
    }
    corners = {"x_min": x, "y_min": 0.0, "x_max": x + 10, "y_max": 10.0, "score": 0.5}
    return KEY | place | corners | {"instance": 0, "detector": "atlas 1"}


def _not_localized(image_id: str | None, site: SiteKey, reason: str) -> Reject:
    return Reject("s1", "a site", reason, "not localized", image_id=image_id, site=site)


def _assemble(
    phrases: list[dict[str, Any]],
    boxes: list[dict[str, Any]] | None = None,
    masks: list[dict[str, Any]] | None = None,
    rejects: list[Reject] | None = None,
    unread: list[Reject] | None = None,
    images: list[dict[str, Any]] | None = None,
    findings: str = FINDINGS,
) -> list[dict[str, Any]]:
    study = KEY | {"images": [IMAGE] if images is None else images, "source": "authored"}
    output = assemble_reports(
        table_from_rows("studies", [study]),
        table_from_rows("clean_reports", [KEY | {"findings": findings, "impression": "Done."}]),
        table_from_rows("positives", phrases),
        table_from_rows("boxes", boxes or []),
        table_from_rows("masks", masks or []),
        rejects_table(PART, "detect", rejects or []),
        rejects_table(PART, "extract", unread or []),
        ENGINES,
    )
    rows: list[dict[str, Any]] = output.rows.to_pylist()
    return rows


def test_each_tag_gets_the_boxes_of_its_own_target_and_side() -> None:
    """The paper's released code gives every tag the boxes of the last class of the image."""
    phrases = [
        _phrase(FINDINGS, "Right effusion", "pleural effusion", "right"),
        _phrase(FINDINGS, "Cardiomegaly", "cardiomegaly"),
        _phrase(FINDINGS, "Left effusion", "pleural effusion", "left"),
    ]
    boxes = [
        _box("pleural effusion", 1.0, "right"),
        _box("cardiomegaly", 40.0),
        _box("pleural effusion", 80.0, "left"),
    ]
    [report] = _assemble(phrases, boxes)
    assert [[b["x_min"] for b in tag["boxes"]] for tag in report["tags"]] == [[1], [40], [80]]
    assert [tag["grounding"] for tag in report["tags"]] == ["box"] * 3


def test_a_tag_without_grounding_stays_with_its_reason() -> None:
    site = SiteKey("pleural effusion", "right")
    reject = _not_localized("i1", site, "not_found")
    phrase = _phrase(FINDINGS, "Right effusion", "pleural effusion", "right")
    [report] = _assemble([phrase], rejects=[reject])
    [tag] = report["tags"]
    assert (tag["grounding"], tag["reason"], tag["boxes"]) == ("none", "not_found", [])
    assert report["text"][tag["start"] : tag["end"]] == "Right effusion"


def test_a_mask_is_referred_to_by_its_key() -> None:
    mask = Mask.of(np.ones((3, 3, 1), np.bool_), np.eye(4), 1.0)
    row = KEY | {"image_id": "v1"} | MaskKey(SiteKey("cardiomegaly")).to_row() | mask.to_row()
    phrase = _phrase(FINDINGS, "Cardiomegaly", "cardiomegaly")
    [report] = _assemble([phrase], masks=[row], images=[VOLUME])
    [tag] = report["tags"]
    assert tag["grounding"] == "mask"
    assert tag["mask"] == {
        "target": "cardiomegaly",
        "laterality": None,
        "zones": [],
        "instance": 0,
        "voxel_count": 9,
    }
    assert report["provenance"]["localizer"] == "hounsfield 1"


def test_a_study_without_an_image_still_has_its_report() -> None:
    site = SiteKey("cardiomegaly")
    reject = _not_localized(None, site, "no_image")
    lateral = IMAGE | {"view": "LATERAL"}
    phrase = _phrase(FINDINGS, "Cardiomegaly", "cardiomegaly")
    [report] = _assemble([phrase], rejects=[reject], images=[lateral])
    assert report["image_id"] is None
    assert report["tags"][0]["reason"] == "no_image"
    assert report["provenance"]["localizer"] is None


def test_a_report_says_whether_the_rules_made_some_of_it_in_a_models_place() -> None:
    phrase = _phrase(FINDINGS, "Cardiomegaly", "cardiomegaly")
    boxes = [_box("cardiomegaly", 1.0)]
    for mark in (False, True):
        [report] = _assemble([phrase | {"by_rules": mark}], boxes)
        assert report["provenance"]["by_rules"] is mark


def test_one_report_per_image_that_can_be_grounded_in() -> None:
    reports = _assemble([], images=[IMAGE, IMAGE | {"image_id": "i2", "view": None}])
    assert [report["image_id"] for report in reports] == ["i1", "i2"]


def test_a_report_that_could_not_be_read_is_not_assembled() -> None:
    assert _assemble([], unread=[Reject("s1", "report", "answer_malformed", "no JSON")]) == []
    proposal = Reject("s1", "findings", "not_in_sentence", "words", section="findings")
    assert len(_assemble([], unread=[proposal])) == 1


spelling = st.text(alphabet="ab,:()[]'\"\\ \n/|", min_size=1, max_size=8)
sites = st.builds(
    SiteKey,
    spelling,
    st.sampled_from([None, "left", "right", "bilateral"]),
    st.lists(spelling, max_size=2).map(tuple),
)


@given(image_id=spelling, keys=st.lists(sites, min_size=2, max_size=4, unique=True))
def test_any_spelling_of_an_image_and_a_site_finds_its_own_reason(
    image_id: str, keys: list[SiteKey]
) -> None:
    reasons = ["not_found", "target_not_supported", "side_mismatch", "outside_field_of_view"]
    phrases = [
        _phrase(FINDINGS, "Cardiomegaly", key.target or "")
        | {"modifiers": {"laterality": key.laterality, "zones": key.zones, "count": None}}
        for key in keys
    ]
    rejects = [
        _not_localized(image_id, key, reason) for key, reason in zip(keys, reasons, strict=False)
    ]
    [report] = _assemble(phrases, rejects=rejects, images=[IMAGE | {"image_id": image_id}])
    found = {SiteKey.from_row(tag): tag["reason"] for tag in report["tags"]}
    assert found == dict(zip(keys, reasons, strict=False))


section = st.none() | st.text(min_size=1)


@given(findings=section, impression=section)
def test_the_text_holds_each_section_byte_for_byte(
    findings: str | None, impression: str | None
) -> None:
    sections = {"findings": findings, "impression": impression}
    text, starts = report_text(sections)
    for name, start in starts.items():
        body = sections[name] or ""
        assert text[start : start + len(body)] == body
    assert list(starts) == [name for name, body in sections.items() if body]


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8")), st.data())
def test_stripping_the_tags_gives_back_the_cleaned_text(findings: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(findings)), max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    phrases = [
        _phrase(FINDINGS, "Cardiomegaly", "cardiomegaly")
        | {"start": start, "end": end, "phrase": findings[start:end]}
        for start, end in spans
    ]
    [report] = _assemble(phrases, [_box("cardiomegaly", 0.0)], findings=findings)
    pieces, last = [], 0
    for tag in report["tags"]:
        pieces += [report["text"][last : tag["start"]], tag["phrase"]]
        last = tag["end"]
    stripped = "".join([*pieces, report["text"][last:]])
    assert stripped == report_text({"findings": findings, "impression": "Done."})[0]


def test_an_empty_part_assembles_to_nothing() -> None:
    output = assemble_reports(
        table_from_rows("studies", []),
        table_from_rows("clean_reports", []),
        table_from_rows("positives", []),
        table_from_rows("boxes", []),
        table_from_rows("masks", []),
        rejects_table(PART, "detect", []),
        rejects_table(PART, "extract", []),
        ENGINES,
    )
    assert (output.rows.num_rows, output.rows_in, output.rows_out) == (0, 0, 0)
