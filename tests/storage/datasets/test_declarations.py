"""Declarations: what they say, what a fault in one is told as, and where they are found."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from storage.datasets import registry
from storage.datasets.declaration import read_declaration
from storage.datasets.reader import DatasetError

LAYOUT = {"table": "reports.csv", "columns": {"study_id": "id"}}
DECLARED = {
    "title": "Chest radiographs of an archive",
    "licence": "local",
    "access": "on request",
    "citation": "none",
    "source": "archive",
    "splits": ["train"],
    "reader": "table",
    "layout": LAYOUT,
}


def write(folder: Path, name: str = "archive.yaml", /, **changed: object) -> Path:
    kept = {k: v for k, v in (DECLARED | changed).items() if v is not None}
    file = folder / name
    file.write_text(yaml.safe_dump(kept))
    return file


@pytest.mark.parametrize("name", registry.packaged_names())
def test_a_packaged_data_set_is_declared_whole(name: str) -> None:
    declared = registry.find_declaration(name)
    assert declared.name == name
    assert declared.open(None if declared.inputs else Path()) is not None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"licence": None}, "licence: is missing"),
        ({"licenc": "x"}, "licenc: there is no such key, perhaps `licence` was meant"),
        ({"splits": ["../train"]}, "splits: '../train': a name has letters, digits"),
        ({"name": "other"}, "name: leave it out, the data set is named by its file"),
        ({"splits": []}, "splits: tuple should have at least 1 item"),
        ({"shard_size": True}, "shard_size: input should be a valid integer"),
        ({"shard_size": 0}, "shard_size: input should be greater than or equal to 1"),
        ({"inputs": ["nonsense"]}, "there is no input nonsense: choose from openi"),
        ({"title": 7}, "title: must be text; put it in quotation marks"),
    ],
)
def test_a_fault_is_one_sentence(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    file = write(tmp_path, **changed)
    with pytest.raises(DatasetError) as caught:
        read_declaration(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reader": "tabel"}, "or `module:Class`"),
        ({"reader": "no.such:Reader"}, "No module named 'no'"),
        ({"reader": "storage.datasets.table:Reader"}, "has no attribute 'Reader'"),
        ({"reader": "os:getcwd"}, "'os:getcwd': it is no class with the methods records,"),
        ({"reader": "collections:OrderedDict"}, "it is no class with the methods records,"),
        ({"layout": {"table": "a.csv"}}, "layout.columns: is missing"),
        ({"layout": LAYOUT | {"image": "../{id}.png"}}, "layout.image: write a path below"),
        ({"layout": LAYOUT | {"image": "/data/{id}.png"}}, "layout.image: write a path below"),
        ({"layout": LAYOUT | {"modality": "XX"}}, "'XX' is no modality that is read"),
        ({"layout": LAYOUT | {"modality": "cr"}}, "perhaps CR was meant: choose from CR, CT"),
        ({"layout": LAYOUT | {"views": {"F": "PAA"}}}, "view position, perhaps PA was meant"),
        ({"layout": LAYOUT | {"image": "{}.png"}}, "layout.image: write a column's name"),
        ({"layout": LAYOUT | {"image": "{id:d}.png"}}, "layout.image: unknown format code"),
        ({"layout": LAYOUT | {"image": "{id.png"}}, "layout.image: expected '}'"),
        ({"splits": ["train", "test"]}, "layout.columns.split: is missing, and there are 2 splits"),
    ],
)
def test_a_reader_or_layout_that_does_not_fit(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        read_declaration(write(tmp_path, **changed)).open(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "is not YAML (line 1"),
        ("- a", "must hold keys with values"),
        ("[" * 5000, "is not YAML"),
        ("1: a", "1: "),
    ],
)
def test_a_file_that_is_no_declaration(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_declaration(tmp_path / "a.yaml")
    assert words in str(caught.value)


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    assert registry.find_declaration(str(write(tmp_path, "archive.YAML"))).name == "archive"


def test_a_name_must_fit_in_a_path(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="rename the file"):
        read_declaration(write(tmp_path, "my archive.yaml"))


def test_files_stand_beside_the_declaration_or_in_the_folder_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "reports.csv").write_text("id\n1\n")
    [_] = read_declaration(write(tmp_path, folder="files")).open().records()
    with pytest.raises(DatasetError, match="folder: there is no folder"):
        read_declaration(write(tmp_path, folder="elsewhere")).open()
    with pytest.raises(DatasetError, match=r"archive cannot be fetched \(on request\)"):
        read_declaration(write(tmp_path)).open()


def test_another_package_declares_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip leaves it behind: a package, and its entry points beside it."""
    package, info = tmp_path / "kneearchive", tmp_path / "kneearchive-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('naming it must not import it')")
    write(package, "knees.yaml")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kneearchive\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vividmed.datasets]\nknees = kneearchive\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry._packages.cache_clear()
    try:
        assert "knees" in registry.dataset_names()
        assert registry.find_declaration("knees").title == DECLARED["title"]
        with pytest.raises(DatasetError, match="perhaps knees was meant"):
            registry.find_declaration("knee")
    finally:
        registry._packages.cache_clear()


def test_names_are_known_without_heavy_imports() -> None:
    heavy = {"pyarrow", "numpy", "PIL", "pydicom", "nibabel", "scipy"}
    program = (
        "import sys; from storage.datasets.registry import dataset_names, find_declaration; "
        f"[find_declaration(n) for n in dataset_names()]; print({heavy} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert run.stdout.strip() == "set()"
