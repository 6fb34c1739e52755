import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from storage.datasets.reader import DatasetError, DatasetReader, SourceRecord, Study
from storage.datasets.registry import find_declaration
from storage.rejects import Reject

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">Heart size is normal.</AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>cardiomegaly</automatic></MeSH>
<parentImage id="CXR7_1_IM-0001-1001"/></eCitation>"""


def _reader(folder: Path) -> DatasetReader:
    return find_declaration("openi").open(folder)


def _folder(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "ecgen-radiology").mkdir()
    for name, content in files.items():
        (tmp_path / "ecgen-radiology" / f"{name}.xml").write_text(content)
    return tmp_path


def test_every_real_report_is_read(real_input: Any) -> None:
    reader = _reader(real_input("openi/NLMCXR_reports.tgz").parent)
    records = reader.records()
    studies = list(reader.read(records))
    assert len(studies) == len(records) == 3955
    assert [r.key for r in records[:3]] == ["1.xml", "2.xml", "3.xml"]
    assert all(isinstance(study, Study) for study in studies)
    both = [s for s in studies if isinstance(s, Study) and s.findings and s.impression]
    assert len(both) == 3419
    images = [image for s in studies if isinstance(s, Study) for image in s.images]
    assert len(images) == 7470
    assert sum(image.view == "PA" for image in images) == 3593
    major = [k for s in studies if isinstance(s, Study) for k in s.labels if "mesh_major" in k]
    assert 8000 < len(major) <= 8298  # a report that names a term twice keeps it once


def test_a_part_reads_only_its_own_records(real_input: Any) -> None:
    reader = _reader(real_input("openi/NLMCXR_reports.tgz").parent)
    studies = list(reader.read([SourceRecord("train", "9.xml"), SourceRecord("train", "10.xml")]))
    assert [s.study_id for s in studies] == ["CXR9", "CXR10"]


def test_sections_images_and_labels_of_a_folder(tmp_path: Path) -> None:
    source = _folder(tmp_path, **{"7": REPORT})
    (source / "NLMCXR_png").mkdir()
    Image.new("L", (30, 20)).save(source / "NLMCXR_png" / "CXR7_1_IM-0001-1001.png")
    [study] = _reader(source).read(_reader(source).records())
    assert isinstance(study, Study)
    assert (study.findings, study.impression) == ("Heart size is normal.", None)
    assert study.labels == {"mesh_major:Cardiomegaly/mild": 1, "mesh_automatic:cardiomegaly": 1}
    assert study.images[0].shape == (20, 30)


@pytest.mark.parametrize("content", ["", "not xml", REPORT[:200], "<a><b></a>"])
def test_a_report_that_does_not_parse_is_set_aside(tmp_path: Path, content: str) -> None:
    source = _folder(tmp_path, **{"7": REPORT, "8": content})
    good, bad = _reader(source).read(_reader(source).records())
    assert isinstance(good, Study)
    assert isinstance(bad, Reject)
    assert (bad.study_id, bad.reason) == ("CXR8", "xml_unreadable")
    assert "8.xml" in bad.detail


@pytest.mark.parametrize("encoding", ["foo", "shift_jis", "utf-7"])
def test_an_encoding_that_cannot_be_read_sets_the_report_aside(
    tmp_path: Path, encoding: str
) -> None:
    source = _folder(tmp_path, **{"7": REPORT, "8": REPORT.replace("utf-8", encoding)})
    good, bad = _reader(source).read(_reader(source).records())
    assert isinstance(good, Study)
    assert isinstance(bad, Reject)
    assert bad.reason == "xml_unreadable"


def test_a_file_that_cannot_be_opened_is_set_aside(tmp_path: Path) -> None:
    source = _folder(tmp_path, **{"7": REPORT})
    (source / "ecgen-radiology" / "8.xml").mkdir()
    good, bad = _reader(source).read(_reader(source).records())
    assert isinstance(good, Study)
    assert isinstance(bad, Reject)
    assert bad.reason == "file_unreadable"


def test_text_inside_markup_and_repeated_sections_is_kept(tmp_path: Path) -> None:
    report = REPORT.replace(
        "Heart size is normal.",
        'Left <b>small</b> effusion.</AbstractText><AbstractText Label="FINDINGS">No nodule.',
    )
    [study] = _reader(_folder(tmp_path, **{"7": report})).read([SourceRecord("train", "7.xml")])
    assert isinstance(study, Study)
    assert study.findings == "Left small effusion. No nodule."


def test_members_of_one_name_in_two_folders_are_two_records(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "NLMCXR_reports.tgz", "w:gz") as tar:
        for name in ("x/1.xml", "y/1.xml"):
            info = tarfile.TarInfo(name)
            info.size = len(REPORT.encode())
            tar.addfile(info, io.BytesIO(REPORT.encode()))
    reader = _reader(tmp_path)
    assert len(list(reader.read(reader.records()))) == len(reader.records()) == 2


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no OpenI reports"):
        _reader(tmp_path).records()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("ecgen-radiology/1.xml")
        info.size = len(REPORT.encode()) * 400
        tar.addfile(info, io.BytesIO(REPORT.encode() * 400))
    archive = gzip.compress(buffer.getvalue())
    (tmp_path / "NLMCXR_reports.tgz").write_bytes(archive[: len(archive) // 2])
    reader = _reader(tmp_path)
    with pytest.raises(DatasetError, match="fetch it again"):
        list(reader.read(reader.records()))


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    source = _folder(tmp_path, **{"7": REPORT})
    before = _reader(source).fingerprint()
    assert _reader(source).fingerprint() == before
    (source / "ecgen-radiology" / "8.xml").write_text(REPORT)
    assert _reader(source).fingerprint() != before
