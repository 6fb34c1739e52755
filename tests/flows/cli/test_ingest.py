"""`vividmed ingest` and `vividmed doctor DATASET`, as a user runs them."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.preview import _find
from storage.datasets import table
from storage.datasets.reader import DatasetError
from storage.datasets.registry import find_declaration
from storage.images.loading import describe_image
from storage.images.types import ImageDescription


def run(*arguments: str, code: int = 0) -> str:
    """What is printed, but for the notes beside it."""
    result = CliRunner().invoke(app, list(arguments))
    if isinstance(result.exception, DatasetError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "data"))
    Image.new("L", (30, 20), 7).save(tmp_path / "a.png")
    rows = [
        ["Nr", "Befund", "Impression", "Image"],
        ["1", "Clear.", "None.", "a.png"],
        ["2", "Secret words.", "None.", "b.png"],
    ]
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)
    return tmp_path


def test_faults_stop_it_and_skip_bad_declares_it(export: Path) -> None:
    asked = ("ingest", "mine", "--table", str(export / "t.csv"), "--columns", "study_id=Nr")
    shown = run(*asked, "findings=Befund", code=1)
    assert "1 image_not_found" in shown
    assert "perhaps a.png was meant for b.png" in shown
    assert "nothing was written" in shown
    assert "Secret" not in shown
    assert not (export / "data" / "datasets").exists()

    shown = run(*asked, "findings=Befund", "--skip-bad")
    assert "next: vividmed build mine" in shown
    assert find_declaration("mine").splits == ("train",)
    checked = json.loads(run("doctor", "mine", "--json"))
    assert checked["ready"]
    images = next(check for check in checked["checks"] if check["name"] == "image files")
    assert (images["verdict"], images["found"][:6]) == ("part", "1 of 2")
    assert "next: vividmed build mine" in run("doctor", "mine")

    (export / "t.csv").unlink()
    assert "there is nothing to build" in run("doctor", "mine", code=1)
    told = json.loads(run(*asked[:2], "--dicom", str(_dicom(export)), "--json"))
    assert (told["studies"], told["images"], told["reports"]) == (1, {"DX": 1}, {})
    index = export / "data" / "datasets" / "mine"
    assert (index / "studies.csv").is_file()
    run(*asked[:2], "--dicom", str(export / "pacs"))
    beside = str(export / "pacs.yaml")
    with pytest.raises(DatasetError, match="pacs is in the way"):
        run("ingest", "pacs", "--dicom", str(export / "pacs"), "--output", beside)
    assert (export / "pacs" / "1").is_file(), "the archive itself is not the table's place"


def test_what_a_build_would_refuse_is_told_before(export: Path) -> None:
    Image.new("RGB", (30, 20), (200, 40, 40)).save(export / "red.jpg")
    Image.new("RGB", (30, 20), (40, 40, 40)).save(export / "grey.jpg")
    rows = [
        ["id", "findings", "impression", "image"],
        ["1", "Kein Nachweis eines Pneumothorax.", "Kein Pneumothorax.", "grey.jpg"],
        ["2", "Clear. " * 20_000, "None.", "red.jpg"],
    ]
    with (export / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    asked = (
        "ingest",
        "mine",
        "--table",
        str(export / "t.csv"),
        "--findings",
        str(export / "f.csv"),
    )
    told = json.loads(run(*asked, "--json", code=1))
    assert len((export / "f.csv").read_text(encoding="utf-8-sig").splitlines()) == 1 + sum(
        found["count"] for kind in ("remarks", "faults") for found in told[kind].values()
    )
    counts = {code: found["count"] for code, found in told["remarks"].items()}
    assert counts["language_not_supported"] == counts["too_long_to_read"] == 1
    [example] = told["faults"]["image_unsupported"]["examples"]
    assert (
        example == f"study 2 (row 2): {export / 'red.jpg'} is a colour image: a grey one is needed"
    )


def test_a_study_is_found_without_reading_the_others(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("ingest", "mine", "--table", str(export / "t.csv"), "--columns", "study_id=Nr")
    run(*asked, "findings=Befund", "--skip-bad")
    opened: list[Path] = []

    def described(path: Path) -> ImageDescription:
        opened.append(path)
        return describe_image(path)

    monkeypatch.setattr(table, "describe_image", described)
    name, study = _find("2", "mine", None)
    assert (name, study.findings) == ("mine", "Secret words.")
    assert [path.name for path in opened] == ["a.png", "b.png"], "the first tells what keys are"
    with pytest.raises(DatasetError, match="perhaps 2 was meant"):
        _find("22", "mine", None)


def _dicom(folder: Path) -> Path:
    import numpy as np

    from tests.storage.images.dicom_files import write_radiograph

    (folder / "pacs").mkdir()
    write_radiograph(folder / "pacs" / "1", np.zeros((2, 2), np.uint16), StudyInstanceUID="1.2")
    return folder / "pacs"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ingest", "mine"], "give a table of studies with --table, or a folder"),
        (["ingest", "openi", "--table", "t.csv"], "there is a data set openi already"),
        (["ingest", "my/archive", "--table", "t.csv"], "cannot be the name of a data set"),
        (["ingest", "mine", "--table", "none.csv"], "none.csv cannot be read: No such file"),
        (["ingest", "mine", "--table", "."], "cannot be read: Is a directory"),
        (["ingest", "mine", "--dicom", "none"], "--dicom none: this is no folder"),
        (["ingest", "mine", "--table", "t.csv", "--output", "x.yaml"], "write mine.yaml"),
        (["ingest", "mine", "--table", "t.csv", "Befund"], "--columns Befund: write what"),
        (["doctor", "mimic-cxr"], "as in `vividmed doctor mimic-cxr FOLDER`"),
        (["doctor", "opni"], "perhaps openi was meant"),
    ],
)
def test_a_mistake_is_one_sentence(export: Path, arguments: list[str], sentence: str) -> None:
    with pytest.raises(DatasetError) as caught:
        run(*arguments)
    assert sentence in str(caught.value)
