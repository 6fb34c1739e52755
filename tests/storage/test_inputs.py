"""Inputs that are fetched with pip from a folder in place of the index."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from storage import inputs

MEMBERS = {"a.csv": "toy/data/a.csv", "series/": "toy/data/series/"}


def pack(folder: Path, names: list[str]) -> inputs.Artefact:
    """A wheel that pip takes, with files whose content is their name."""
    metadata = "Metadata-Version: 2.1\nName: vividmed-toy\nVersion: 1\n"
    file = folder / "vividmed_toy-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("vividmed_toy-1.dist-info/METADATA", metadata)
        wheel.writestr("vividmed_toy-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        for name in names:
            wheel.writestr(name, name)
    return inputs.Artefact(
        requirement="vividmed-toy==1",
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        origin="a test",
        licence="none",
        members=MEMBERS,
    )


NAMES = ["toy/data/a.csv", "toy/data/series/1.dcm", "toy/data/series/deep/2.dcm", "toy/other"]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def declare(monkeypatch: pytest.MonkeyPatch, artefact: inputs.Artefact) -> None:
    monkeypatch.setattr(inputs, "artefacts", lambda: {"toy": artefact})


def test_the_declared_members_are_taken_and_told_when_damaged(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, pack(index, NAMES))
    assert inputs.fetch(["toy"]) == 1
    assert inputs.fetch(["toy"]) == 0
    folder = inputs.home() / "inputs" / "toy"
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {"a.csv", "series/1.dcm", "series/deep/2.dcm", "artefact.json"}
    assert inputs.input_path("toy/a.csv").read_text() == "toy/data/a.csv"
    assert not list(folder.parent.glob("tmp*"))
    for damage in (
        lambda: (folder / "series/1.dcm").write_text("cut"),
        (folder / "series/deep/2.dcm").unlink,
        lambda: (folder / "artefact.json").write_text('{"sha'),
        lambda: (folder / "artefact.json").write_text("[]"),
    ):
        damage()
        assert not inputs.is_fetched("toy")
        assert inputs.fetch(["toy"]) == 1


def test_a_cache_of_an_earlier_version_counts(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, pack(index, NAMES))
    inputs.fetch(["toy"])
    marker = inputs.home() / "inputs" / "toy" / "artefact.json"
    marker.write_text(
        json.dumps({k: v for k, v in json.loads(marker.read_text()).items() if k != "sizes"})
    )
    assert inputs.is_fetched("toy")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["toy/data/a.csv"], "does not hold toy/data/series/"),
        (
            [*NAMES, "toy/data/series/../../../../x"],
            "cannot be unpacked: 'series/../../../../x' leads out",
        ),
    ],
)
def test_members_that_are_not_there_or_lead_out(
    index: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], words: str
) -> None:
    declare(monkeypatch, pack(index, names))
    with pytest.raises(inputs.InputError) as caught:
        inputs.fetch(["toy"])
    assert words in str(caught.value)
    assert not inputs.is_fetched("toy")
    assert not (inputs.home().parent / "x").exists()


def test_a_cache_that_cannot_be_written_is_one_sentence(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(monkeypatch, pack(index, NAMES))
    inputs.home().mkdir()
    (inputs.home() / "inputs").write_text("a file in the way")
    with pytest.raises(inputs.InputError, match=r"vividmed-toy==1 cannot be kept in .*inputs: "):
        inputs.fetch(["toy"])


def test_a_name_is_looked_for_in_the_cache_alone(index: Path) -> None:
    with pytest.raises(inputs.InputError, match="leads out of"):
        inputs.input_path("../../etc/hostname")
