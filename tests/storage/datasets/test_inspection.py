"""What `vividmed doctor` finds of a data set before any work starts."""

from pathlib import Path
from typing import Any

import pytest

from storage.datasets import registry
from storage.datasets.declaration import read_declaration
from storage.datasets.inspection import Check, inspect_source
from storage.datasets.reader import DatasetError
from tests.storage.datasets.test_declarations import write

LAYOUT = {
    "table": "t.csv",
    "columns": {"study_id": "id", "split": "split", "patient_id": "p", "images": ["image"]},
}


def checks(folder: Path, **changed: Any) -> dict[str, Check]:
    file = write(folder, layout=LAYOUT, splits=["train", "test"], **changed)
    found = inspect_source(read_declaration(file), folder, lambda: None)
    return {check.name: check for check in found}


def test_files_counts_and_images_against_what_the_owners_say(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,split,p,image\n1,train,a,1.png\n2,train,a,2.png\n3,train,b,\n"
    )
    (tmp_path / "v1.0" / "deep").mkdir(parents=True)
    (tmp_path / "v1.0" / "deep" / "notes.txt").touch()
    (tmp_path / "._2.png").touch()
    (tmp_path / "1.png").write_bytes(b"no image: it is not opened")
    found = checks(
        tmp_path,
        files=[
            {"path": "t.csv", "what": "studies"},
            {"path": "*.png", "what": "images"},
            {"path": "*/notes.txt", "what": "notes"},
            {"path": "views.csv", "what": "without it no views are known", "optional": True},
        ],
        counts={"studies": 3, "studies.train": 2, "studies.test": 4, "patients": 3, "boxes": 7},
    )
    verdicts = {name: (check.verdict, check.found) for name, check in found.items()}
    assert verdicts == {
        "folder": ("ok", str(tmp_path)),
        "t.csv": ("ok", "there: studies"),
        "*.png": ("ok", "1 of this pattern: images"),
        "*/notes.txt": ("ok", "there, in v1.0/deep: notes"),
        "views.csv": ("missing", "optional: without it no views are known"),
        "studies": ("ok", "all 3"),
        "studies.train": ("more", "3, officially 2: another release?"),
        "studies.test": ("missing", "none of 4"),
        "patients": ("part", "2 of 3"),
        "boxes": ("ok", "7 officially; not counted here"),
        "image files": ("part", f"1 of 2; the first that is missing: {tmp_path / '2.png'}"),
    }
    assert not any(check.is_fault for check in found.values())


def test_what_is_needed_and_missing_is_a_fault(tmp_path: Path) -> None:
    found = checks(tmp_path, files=[{"path": "t.csv", "what": "studies"}])
    assert [name for name, check in found.items() if check.is_fault] == ["studies"]
    assert found["t.csv"].verdict == "missing"
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "t.csv").write_text("id,split,p,image\n1,train,a,\n")
    deeper = checks(tmp_path, files=[{"path": "t.csv", "what": "studies"}])
    assert deeper["t.csv"].found == "there, in v2: studies"
    assert deeper["studies"].found.endswith(
        f"give the folder {tmp_path / 'v2'}, where its files are"
    )
    declared = read_declaration(write(tmp_path))
    with pytest.raises(DatasetError, match="there is no folder"):
        list(inspect_source(declared, tmp_path / "elsewhere", lambda: None))


def test_a_user_declares_a_data_set_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    file = write(tmp_path / "datasets", "knees.yml")
    assert "knees" in registry.dataset_names()
    assert registry.find_declaration("knees").file == file
    with pytest.raises(DatasetError, match="perhaps knees was meant"):
        registry.find_declaration("knee")
    write(tmp_path / "datasets", "openi.yaml")
    with pytest.raises(DatasetError, match=r"another data set openi than that of .*: rename it"):
        registry.find_declaration("openi")
