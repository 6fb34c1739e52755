import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.datasets.reader import DatasetError, DatasetReader, SourceRecord, Study
from storage.datasets.registry import find_declaration
from storage.rejects import Reject
from tests.storage.images.dicom_files import write_radiograph

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">Heart size is normal.</AbstractText>
<AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation>
<MeSH><major>Cardiomegaly/mild</major><automatic>cardiomegaly</automatic></MeSH>
<parentImage id="CXR7_1_IM-0001-1001"/></eCitation>"""


def _reader(folder: Path) -> DatasetReader:
    return find_declaration("openi").open(folder)


def _archive(folder: Path, *members: tuple[str, str | bytes]) -> Path:
    """An archive of files, or of links where the content is a member's type."""
    with tarfile.open(folder / "NLMCXR_reports.tgz", "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.type, info.linkname = content, "1.xml"
            else:
                info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(b"" if isinstance(content, bytes) else content.encode()))
    return folder


def _read(folder: Path) -> list[Study | Reject]:
    reader = _reader(folder)
    return list(reader.read(reader.records()))


def _folder(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "ecgen-radiology").mkdir()
    for name, content in files.items():
        (tmp_path / "ecgen-radiology" / f"{name}.xml").write_text(content)
    return tmp_path


def test_every_real_report_is_read(real_input: Any) -> None:
    reader = _reader(real_input("openi/NLMCXR_reports.tgz").parent)
    records = [*reader.records()]
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
    studies = _read(_archive(tmp_path, ("x/1.xml", REPORT), ("y/1.xml", REPORT)))
    assert [study.study_id for study in studies] == ["CXRx/1", "CXRy/1"]


@pytest.mark.parametrize(
    "folder", ["", "./", "./ecgen-radiology/", "NLMCXR/ecgen-radiology/", "/data/", "../"]
)
def test_the_folder_that_all_reports_are_in_is_no_part_of_their_names(
    tmp_path: Path, folder: str
) -> None:
    archive = _archive(tmp_path, (f"{folder}1.xml", REPORT), (f"{folder}2.XML", REPORT))
    if folder == "../":
        assert {r.reason for r in _read(archive) if isinstance(r, Reject)} == {
            "path_outside_source"
        }
    else:
        assert [study.study_id for study in _read(archive)] == ["CXR1", "CXR2"]


def test_members_that_are_no_reports_are_counted(tmp_path: Path) -> None:
    other = REPORT.replace("normal", "large")
    source = _archive(
        tmp_path,
        ("ecgen-radiology", tarfile.DIRTYPE),
        ("ecgen-radiology/1.xml", other),
        ("ecgen-radiology/readme.txt", "not a report"),
        ("__MACOSX/ecgen-radiology/._1.xml", "attributes"),
        ("ecgen-radiology/2.xml", tarfile.SYMTYPE),
        ("ecgen-radiology/3.xml", tarfile.LNKTYPE),
        ("./ecgen-radiology/1.xml", REPORT),
    )
    found = _read(source)
    [study] = [result for result in found if isinstance(result, Study)]
    assert (study.study_id, study.findings) == ("CXR1", "Heart size is normal.")
    rejects = {(r.study_id, r.reason) for r in found if isinstance(r, Reject)}
    assert len(found) == len([*_reader(source).records()]) == 5
    assert rejects == {
        ("CXR1", "duplicate_report"),
        ("CXR2", "member_not_a_report"),
        ("CXR3", "member_not_a_report"),
        ("CXR__MACOSX/ecgen-radiology/._1", "member_not_a_report"),
    }


def test_a_name_that_is_not_utf8_can_be_stored(tmp_path: Path) -> None:
    [study] = _read(_archive(tmp_path, ("\udce91.xml", REPORT)))
    assert study.study_id == "CXR\ufffd1"
    (tmp_path / "NLMCXR_reports.tgz").unlink()
    [study] = _read(_folder(tmp_path, **{"\udce91": REPORT}))
    assert study.study_id == "CXR\ufffd1"


def test_a_folder_may_hold_what_is_no_report(tmp_path: Path) -> None:
    source = _folder(tmp_path, **{"1": REPORT, "._1": "attributes"})
    (source / "ecgen-radiology" / "1.XML").write_text(REPORT)
    os.mkfifo(source / "ecgen-radiology" / "2.xml")
    (source / "ecgen-radiology" / "3.xml").symlink_to("nowhere")
    reasons = {r.study_id: r.reason for r in _read(source) if isinstance(r, Reject)}
    assert reasons == {
        "CXR1": "duplicate_report",
        "CXR._1": "member_not_a_report",
        "CXR2": "file_unreadable",
        "CXR3": "file_unreadable",
    }
    assert _reader(source).fingerprint()


ENTITIES = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 30 or 'x'}'>" for n in range(1, 5))
BOMB = f"<!DOCTYPE e [<!ENTITY e0 '{'x' * 100}'>{ENTITIES}]>"


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (REPORT.replace("Heart", "Heart " * 200_000), "too_large"),
        (REPORT.replace("<eCit", f"{BOMB}<eCit").replace("Heart", "&e4;"), "xml_unreadable"),
        (REPORT.replace("<eCit", f"{BOMB}<eCit").replace("Heart", "&e3;"), "too_large"),
        (
            REPORT.replace("<eCit", '<!DOCTYPE e [<!ENTITY f SYSTEM "1.xml">]><eCit').replace(
                "Heart", "&f;"
            ),
            "xml_unreadable",
        ),
        (REPORT.replace('"utf-8"', '"utf-16"'), "xml_unreadable"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_text_is_bounded_and_nothing_is_fetched(
    tmp_path: Path, report: str, reason: str, packed: bool
) -> None:
    source = _archive(tmp_path, ("1.xml", report)) if packed else _folder(tmp_path, **{"1": report})
    [reject] = _read(source)
    assert isinstance(reject, Reject)
    assert reject.reason == reason
    assert len(reject.detail) < 300


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_that_a_report_declares_are_read(tmp_path: Path, encoding: str) -> None:
    said = encoding.removesuffix("-sig")
    report = REPORT.replace("utf-8", said).replace("normal", "größer")
    (source := _folder(tmp_path)).joinpath("ecgen-radiology/1.xml").write_bytes(
        report.encode(encoding)
    )
    [study] = _read(source)
    assert isinstance(study, Study)
    assert study.findings == "Heart size is größer."


def test_deep_nesting_is_read(tmp_path: Path) -> None:
    depth = 100_000
    report = REPORT.replace("Heart", "<b>" * depth + "Heart" + "</b>" * depth)
    [study] = _read(_folder(tmp_path, **{"1": report}))
    assert isinstance(study, Study)
    assert study.findings == "Heart size is normal."


@pytest.mark.parametrize("name", ["/etc/hostname", "../../x", "a/../../../x", "../"])
def test_an_image_outside_the_folder_is_left_out_and_told(tmp_path: Path, name: str) -> None:
    report = REPORT.replace("</eCit", f'<parentImage id="{name}"/><parentImage/></eCit')
    [study] = _read(_folder(tmp_path, **{"7": report}))
    assert isinstance(study, Study)
    [image] = study.images
    assert image.image_id == "CXR7_1_IM-0001-1001"
    [reject] = study.left_out
    assert (reject.study_id, reject.reason) == ("CXR7", "path_outside_source")


def test_an_image_whose_name_no_file_can_have_is_one_that_is_not_there(tmp_path: Path) -> None:
    report = REPORT.replace("CXR7_1_IM-0001-1001", "x" * 5000)
    [study] = _read(_folder(tmp_path, **{"7": report}))
    assert isinstance(study, Study)
    assert study.images[0].shape is None


TABLE = "imageid,Modality,View Position\nCXR7_IM-0001-1001,DX,PA\n"


def _gzipped(data: bytes) -> bytes:
    """The same bytes at any time of day, since they name the tests."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_gzipped(TABLE.encode())[:-4], "ended before the end-of-stream marker"),
        (_gzipped(TABLE.encode())[:-8] + bytes(8), "CRC check failed"),
        (_gzipped(TABLE.encode()) + b"<html>", "Not a gzipped file"),
        (_gzipped(TABLE.replace("Modality", "Mod").encode()), "has no column 'Modality'"),
        (_gzipped(TABLE.replace("DX,", "").encode()), "row 1: 2 cells stand under 3 columns"),
        (_gzipped(TABLE.encode("utf-16")), "UTF-16"),
        (TABLE.encode(), "Not a gzipped file"),
        (b"", "holds no rows"),
        (_gzipped(TABLE.splitlines()[0].encode()), "holds no rows"),
    ],
)
def test_a_damaged_metadata_table_is_told_before_any_report_is_read(
    tmp_path: Path, content: bytes, words: str
) -> None:
    source = _folder(tmp_path, **{"7": REPORT})
    (source / "nlmcxr_dicom_metadata.csv.gz").write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        list(_reader(source).records())
    assert "nlmcxr_dicom_metadata.csv.gz" in str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).endswith("delete the file and fetch it again")


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no OpenI reports"):
        list(_reader(tmp_path).records())


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
    seen = {before, _reader(source).fingerprint()}
    for view in ("PA", "AP"):  # of the same length
        table = gzip.compress(TABLE.replace("PA", view).encode(), mtime=0)
        (source / "nlmcxr_dicom_metadata.csv.gz").write_bytes(table)
        seen.add(_reader(source).fingerprint())
    assert len(seen) == 4


IMAGE = "CXR7_1_IM-0001-1001"


@pytest.mark.parametrize(
    "file",
    [
        "NLMCXR_dcm/7/7_IM-0001-1001.dcm",
        "images/images_normalized/7_IM-0001-1001.dcm.png",
        "images_normalized/7_IM-0001-1001.dcm.png",
    ],
)
def test_images_are_found_in_every_form_that_they_are_given_out_in(
    tmp_path: Path, file: str
) -> None:
    source = _folder(tmp_path, **{"7": REPORT})
    declaration = find_declaration("openi")
    assert declaration.missing_images(source) == source / "NLMCXR_png"
    before = _reader(source).fingerprint()
    (source / file).parent.mkdir(parents=True)
    if file.endswith(".dcm"):
        write_radiograph(source / file, np.zeros((20, 30), np.uint16))
    else:
        Image.new("L", (30, 20)).save(source / file)
    [study] = _read(source)
    assert isinstance(study, Study)
    [image] = study.images
    assert (image.image_id, image.uri, image.shape) == (IMAGE, str(source / file), (20, 30))
    assert declaration.missing_images(source) is None
    assert _reader(source).fingerprint() != before


def test_projections_count_where_the_metadata_say_otherwise(tmp_path: Path) -> None:
    images = "".join(f"<parentImage id='CXR8_IM-1-{i}'/>" for i in range(4))
    source = _folder(tmp_path, **{"8": f"<r>{images}</r>"})
    with gzip.open(source / "nlmcxr_dicom_metadata.csv.gz", "wt") as table:
        rows = "".join(
            f"CXR8_IM-1-{i},DX,{view}\n" for i, view in enumerate(("PA", "PA", "", "LL"))
        )
        table.write(f"imageid,Modality,View Position\n{rows}")
    seen = zip(range(3), ("Frontal", "Lateral", "Frontal"), strict=True)
    (source / "indiana_projections.csv").write_text(
        "uid,filename,projection\n" + "".join(f"8,8_IM-1-{i}.dcm.png,{view}\n" for i, view in seen)
    )
    [study] = _read(source)
    assert isinstance(study, Study)
    assert [i.view for i in study.images] == ["PA", "LATERAL", "FRONTAL", "LL"]


def test_the_reports_of_the_re_release_as_a_table(tmp_path: Path) -> None:
    """Its uids have gaps: a row's place in the table says nothing."""
    (tmp_path / "indiana_reports.csv").write_text(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
        "1,normal,normal,Xray,,,Clear lungs.,Normal chest.\n"
        "3,Cardiomegaly/mild;Nodule,Cardiomegaly,Xray,,,,Large heart.\n"
        ",,,,,,Nobody.,\n"
        "5,short\n"
        "6,,,,,,One.,\n"
        "6,,,,,,Two.,\n"
    )
    (tmp_path / "indiana_projections.csv").write_text(
        "uid,filename,projection\n3,3_IM-1384-1001.dcm.png,Frontal\n"
        "3,3_IM-1384-2001.dcm.png,Lateral\n13,13_IM-1-1.dcm.png,Frontal\n"
    )
    first, second, *bad = _read(tmp_path)
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    assert (first.study_id, first.findings, first.images) == ("CXR1", "Clear lungs.", ())
    assert (second.findings, second.impression) == (None, "Large heart.")
    assert [(i.image_id, i.view) for i in second.images] == [
        ("CXR3_IM-1384-1001", "FRONTAL"),
        ("CXR3_IM-1384-2001", "LATERAL"),
    ]
    assert second.labels == {"mesh_major:Cardiomegaly/mild": 1, "mesh_major:Nodule": 1}
    reasons = [result.reason for result in bad if isinstance(result, Reject)]
    assert reasons == ["study_id_missing", "row_malformed", "rows_disagree"]
