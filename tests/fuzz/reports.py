"""XML reports of OpenI: bytes damaged; odd elements, entities, values and encodings put in."""

import re
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from storage.datasets.openi import FOLDER
from storage.datasets.openi_images import PNG
from storage.datasets.reader import LARGEST_REPORT
from storage.datasets.registry import find_declaration
from tests.fuzz.edits import Damaged, Edit, edited, edits_of, several
from tests.fuzz.studies import read_studies
from tests.fuzz.trials import Kind

_REPORT = b"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">Heart size is normal.</AbstractText>
<AbstractText Label="IMPRESSION">No acute disease.</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>cardiomegaly</automatic></MeSH>
<parentImage id="CXR7_1_IM-0001-1001"/></eCitation>"""
_NAME, _OTHER = "7.xml", "8.xml"

_LONG = b"x" * (LARGEST_REPORT // 2)
_DOCTYPES = (
    b'<!DOCTYPE a [<!ENTITY a "' + b"a" * 1000 + b'">]>',
    b'<!DOCTYPE a [<!ENTITY b "' + b"b" * 1000 + b'"><!ENTITY a "' + b"&b;" * 1000 + b'">]>',
    b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    b'<!DOCTYPE a SYSTEM "file:///etc/hostname">',
    b'<?xml-stylesheet href="http://127.0.0.1/"?>',
)
_ELEMENTS = (
    b'<AbstractText Label="FINDINGS">Clear.</AbstractText>',
    b'<AbstractText Label="FINDINGS">' + _LONG + b"</AbstractText>",
    b"<AbstractText>Clear.<b>Left</b></AbstractText>",
    b'<parentImage id="a"/><parentImage id="a"/>',
    b'<parentImage id=""/><parentImage/>',
    b"<MeSH><major/><other>a</other></MeSH>",
    b"<a>" * 20_000 + b"</a>" * 20_000,
    b"<!-- Clear. -->",
)
_VALUES = (
    b"",
    b"/etc/hostname",
    b"../../outside",
    b"a/../../../outside",
    b"a&#10;b",
    b"x" * 5000,
    b"FINDINGS",
    b"utf-16",
    b"utf-7",
    b"latin-1",
    b"cp037",
)
_TEXTS = (
    b"",
    b"&a;",
    b"&a;" * 2000,
    b"&#0;",
    b"&#xD800;",
    b"&#x85;&#x2028;&#13;",
    b"<![CDATA[</AbstractText>]]>",
    b"\xed\xa0\x80",
    _LONG * 3,
)
_REPLACEMENTS = {
    rb"(?=<eCitation)": _DOCTYPES,
    rb"(?=<[A-Z/p])": _ELEMENTS,
    rb'(?<=")[^"<>=]*(?=")': _VALUES,
    rb"(?<=>)[^<]+": _TEXTS,
}
"""What is replaced, as a pattern, and by what; a report mostly stays XML."""


def inputs() -> SearchStrategy[Damaged]:
    """Damaged reports."""
    replaced = [
        Edit(*found.span(), odd)
        for pattern, values in _REPLACEMENTS.items()
        for found in re.finditer(pattern, _REPORT)
        for odd in values
    ]
    edits = several(st.sampled_from(replaced)) | several(edits_of(_REPORT))
    return edits.map(lambda some: Damaged(_NAME, some))


def outcome(given: Damaged, folder: Path) -> str | None:
    """Read the report beside an intact one, which nothing changes."""
    reports = folder / FOLDER
    reports.mkdir(exist_ok=True)
    (reports / _NAME).write_bytes(edited(_REPORT, given.edits))
    (reports / _OTHER).write_bytes(_REPORT)
    studies, rejects = read_studies(find_declaration("openi").open(folder))
    assert (studies[-1].study_id, studies[-1].findings) == ("CXR8", "Heart size is normal.")
    for study in studies:
        for text in (study.findings, study.impression):
            assert len(text or "") <= LARGEST_REPORT
        for image in study.images:
            path = Path(image.uri).resolve()
            assert path.is_relative_to((folder / PNG).resolve()), f"outside: {image.uri}"
    return rejects[0].reason if rejects else None


KIND = Kind("XML reports", inputs, outcome)
