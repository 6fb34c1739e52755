"""Expected values follow the rules of MIT-LCP/mimic-cxr, worked out by hand on made-up reports."""

import pytest

from storage.datasets.mimic_cxr_sections import normalized, report_texts, split_sections

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  ___ year old woman with cough  // pneumonia? HISTORY: none
 
 FINDINGS: 
 
 The lungs are clear.  Time 8:00.
 Heart size: normal.
 
 IMPRESSION: 
 
 No acute process.
"""  # noqa: W291, W293 blank lines hold one blank


def test_a_report_is_split_at_titles_in_capitals() -> None:
    sections = split_sections(REPORT)
    assert [s.name for s in sections] == [
        "preamble",
        "examination",
        "indication",
        "findings",
        "impression",
    ]
    assert sections[2].text.endswith("HISTORY: none\n ")  # the second title of a line is none
    texts = report_texts("s1", REPORT)
    assert texts is not None
    assert texts.findings == "The lungs are clear.  Time 8:00.\n Heart size: normal."
    assert (texts.impression, texts.origin, texts.unused) == ("No acute process.", "sections", ())
    assert report_texts("s1", REPORT.replace("\n", "\r\n")) == texts


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("CONCLUSION", "impression"),
        ("IMPRESSOIN ", "impression"),
        ("NDICATION", "impression"),  # so in the source
        ("FINDINGS/ IMPRESSION", "impression"),
        ("FINDINGS AND IMPRESSIONS", "impression"),  # by its part
        ("SUMMARY OF FINDINGS", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PORTABLE AP FILM", "findings"),
        ("RIBS", "findings"),
        ("BRIEF HISTORY", "history"),
        ("PFI", "history"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("DOSE", "dose"),
    ],
)
def test_titles_have_one_name_each(title: str, name: str) -> None:
    assert normalized(title) == name


def test_the_last_of_several_sections_counts_and_the_others_are_named() -> None:
    report = (
        "                                ADDENDUM  Discussed again, a rib fracture is seen.\n"
        " ______________________________________________________________________________\n"
        "           FINAL REPORT\n WET READ: ___ 8:00 PM\n  No pneumothorax.\n"
        " CHEST, PA AND LATERAL:\n \n FINDINGS:  First.\n FINDINGS: Second.\n FINDINGS:\n \n"
        " IMPRESSION:  One.\n"
    )
    texts = report_texts("s1", report)
    assert texts is not None
    assert (texts.findings, texts.impression) == ("Second.", "One.")
    assert texts.unused == ("addendum", "wet read", "findings")


def test_without_either_section_the_last_paragraph_counts() -> None:
    report = "         FINAL REPORT\n HISTORY:  Cough.\n \n Clear lungs.\n \n Normal heart.\n"
    texts = report_texts("s1", report)
    assert texts is not None
    assert texts.findings == "Clear lungs.\n \n Normal heart."
    assert (texts.impression, texts.origin) == (None, "last paragraph")
    assert [s.name for s in split_sections(report)] == ["preamble", "history", "last_paragraph"]
    untitled = report_texts("s1", " FINAL REPORT\n \n Lungs: clear.\n")
    assert untitled is not None
    assert untitled.findings == "Lungs: clear."
    for nothing in ("", "FINAL REPORT", " FINAL REPORT\n COMPARISON: None.\n", "\n FINDINGS: \n"):
        assert report_texts("s1", nothing) is None


def test_studies_whose_text_the_owners_chose_by_hand() -> None:
    by_range = report_texts("s53182247", "x" * 59 + " Clear lungs. " + "y" * 400)
    assert by_range is not None
    assert (by_range.findings or "").startswith("Clear lungs. yyy")
    assert by_range.origin == "chosen by hand"
    assert report_texts("s58235663", REPORT) is None  # the range [0, 0]
    by_name = report_texts("s57936451", REPORT)
    assert by_name is not None
    assert (by_name.findings or "").startswith("___ year old woman")
    assert report_texts("s56451190", REPORT) is None  # it has no section of that name
