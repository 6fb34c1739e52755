"""Sections: titles in all their forms, and what must hold for any text."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from storage.sections import read_sections, stating_sections
from tasks.engines.text.normalization import normalize, words_of
from taxonomy.targets import load_taxonomy

TITLES = yaml.safe_load(Path(__file__).with_name("section_cases.yaml").read_text())

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with ?pleural effusion  // ?pleural effusion

 COMPARISON:  ___

 FINDINGS:

 Large left pleural effusion.

 IMPRESSION:

 Effusion.
"""
LAST_PARAGRAPH = """ FINAL REPORT
 HISTORY: Chest pain.

 Lungs are clear.
"""


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (MIMIC, ["Large left pleural effusion.", "Effusion."]),
        (
            "HISTORY: Cough.\n\nShe has had pneumonia twice.\n\nLungs are clear.",
            ["Lungs are clear."],
        ),
        ("HISTORY: Cough.\n\nRule out effusion.\n\nLungs are clear.", ["Lungs are clear."]),
        ("HISTORY: Cough.\n\nPatient is rotated. Clear.", ["Patient is rotated. Clear."]),
        ("HISTORY: Cough.\n\nHeart is big.\n\nClear.", ["Heart is big.\n\nClear."]),
        ("HISTORY: Cough.\n\nMild edema.\n\nNo effusion.", ["Mild edema.\n\nNo effusion."]),
        (LAST_PARAGRAPH, ["Lungs are clear."]),
        ("INDICATION : nodule\nFINDINGS : Clear.", ["Clear."]),
        ("indication: nodule\nfindings: clear.", ["clear."]),
        ("Indication........ nodule\nFindings........ Clear.", ["Clear."]),
        ("History\n=======\nNodule\n\nFindings\n--------\nClear.", ["Clear."]),
        ("HISTORY\nNodule\nIMPRESSION\nClear.", ["Clear."]),
        ("INDICATION: nodule COMPARISON: none FINDINGS: clear", ["clear"]),
        ("Clinical history: nodule. Findings: Clear. Impression: Normal.", ["Clear.", "Normal."]),
        ("**FINDINGS:** Clear.", ["Clear."]),
        ("FINDINGS The lungs are clear.", ["The lungs are clear."]),
        ("Impression - normal", ["normal"]),
        ("NO EFFUSION IMPRESSION: NORMAL", ["NO EFFUSION", "NORMAL"]),
        ("CHEST, PA AND LATERAL: Clear.", ["Clear."]),
        ("WET READ: Effusion.\n" + "_" * 78 + "\n FINAL REPORT\n FINDINGS: Clear.", ["Clear."]),
        ("WET READ: Effusion.", ["Effusion."]),
        ("FINDINGS: Clear.\nRECOMMENDATION: CT for nodule.\nDICTATED BY: A. Mass", ["Clear."]),
        ("ADDENDUM: No effusion.", ["No effusion."]),
        # labels of findings are no titles of sections
        ("LUNGS: clear\nPNEUMOTHORAX: NO", ["LUNGS: clear\nPNEUMOTHORAX: NO"]),
        ("HEART SIZE: NORMAL", ["HEART SIZE: NORMAL"]),
    ],
)
def test_what_speaks_of_the_image(text, stated):
    assert [text[s.body : s.end].strip() for s in stating_sections(text)] == stated


@pytest.mark.parametrize(("source", "stated"), TITLES)
def test_a_title_in_any_dress(source, stated):
    text = normalize(source, words_of(load_taxonomy())).text
    assert [text[s.body : s.end].strip() for s in stating_sections(text)] == stated


@given(st.text(alphabet="FINDGS:. \n-_aA", max_size=120) | st.text(max_size=80))
def test_sections_are_the_whole_text(text):
    sections = read_sections(text)
    assert "".join(text[s.start : s.end] for s in sections) == text
    assert all(s.start <= s.body <= s.end for s in sections)
