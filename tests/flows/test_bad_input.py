"""A folder as it comes from a hospital: good records, broken ones, and a run that goes on."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from storage.catalogue import connect
from storage.images.loading import load_radiograph
from storage.store import Store
from tests.flows.conftest import Command

FINDINGS = "The heart is enlarged. No pneumothorax. Small right pleural effusion."


def _report(findings: str, impression: str, image: str) -> str:
    return f"""<?xml version="1.0" encoding="utf-8"?><eCitation><Abstract>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText></Abstract>
<parentImage id="{image}"/></eCitation>"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, real_input: Any) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    reports, images = folder / "ecgen-radiology", folder / "NLMCXR_png"
    reports.mkdir()
    images.mkdir()
    radiograph = load_radiograph(real_input("radiograph/RG1_UNCR.dcm"))
    Image.fromarray((radiograph.pixels * 255).astype(np.uint8)).save(images / "good.png")
    whole = (images / "good.png").read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 3])
    (images / "text.png").write_text("not a picture")
    Image.new("L", (64, 64), 100).save(images / "blank.png")
    Image.effect_noise((400, 400), 80).save(images / "noise.png")
    contents = {
        "1": _report(FINDINGS, "Cardiomegaly.", "good"),
        "2": "<eCitation><Abstract>",
        "3": _report("", "", "good"),
        "4": _report(FINDINGS, "", "good"),
        "5": _report(FINDINGS, "Cardiomegaly.", "truncated"),
        "6": _report(FINDINGS, "Cardiomegaly.", "text"),
        "7": _report(FINDINGS, "Cardiomegaly.", "missing"),
        "8": _report(FINDINGS, "Cardiomegaly.", "blank"),
        "9": _report(FINDINGS, "Cardiomegaly.", "noise"),
        "10": _report(
            "Tücher &amp; &lt;b&gt;🫁&lt;/b&gt; heart is enlarged.", "Ok &lt;p&gt;.", "good"
        ),
    }
    for name, content in contents.items():
        (reports / f"{name}.xml").write_text(content)
    return folder


def test_bad_records_are_rejected_and_the_run_goes_on(
    source: Path, vividmed: Command, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    result = vividmed("build", "openi", "--source", str(source), "--store", str(store))
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "records rejected" in result.stdout

    with connect(Store(str(store))) as rows:
        _check(rows)


def _check(rows: duckdb.DuckDBPyConnection) -> None:
    reasons = dict(
        rows.sql(
            "SELECT study_id, list(DISTINCT reason) FROM rejects "
            "WHERE stage != 'filter' GROUP BY study_id"
        ).fetchall()
    )
    assert reasons["CXR2"] == ["xml_unreadable"]
    assert reasons["CXR3"] == ["no_text"]
    assert reasons["CXR4"] == ["no_impression"]
    assert reasons["CXR5"] == ["image_unreadable"]
    assert reasons["CXR6"] == ["image_unreadable"]
    assert reasons["CXR7"] == ["image_not_found"]
    assert reasons["CXR8"] == ["registration_failed"]
    assert reasons["CXR9"] == ["registration_failed"]
    details = rows.sql("SELECT detail FROM rejects").fetchall()
    assert all(detail and "\n" not in detail for (detail,) in details)

    grounded = dict(
        rows.sql("SELECT study_id, [t.grounding FOR t IN tags] FROM grounded_reports").fetchall()
    )
    assert set(grounded) == {f"CXR{n}" for n in (1, 5, 6, 7, 8, 9, 10)}
    assert "box" in grounded["CXR1"]
    assert set(grounded["CXR9"]) == {"none"}
    [(text,)] = rows.sql("SELECT text FROM grounded_reports WHERE study_id = 'CXR10'").fetchall()
    assert "Tücher & 🫁 heart is enlarged." in text  # markup is no part of a report
