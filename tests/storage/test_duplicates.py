"""Duplicates of a study: the same text, and images that are the same files in other places."""

from pathlib import Path
from typing import Any

import pytest

from storage import digests
from storage.duplicates import find_duplicates, read_duplicates
from storage.plans import Plan, read_holdings, write_plan
from storage.shards import Part
from storage.store import Store
from tests.storage.stores import row_of, write_stage

PART = Part("mine", "train", 0)


def row(study: str, *images: Path, findings: str = "Clear.") -> dict[str, Any]:
    named = [{"image_id": str(n), "uri": str(path)} for n, path in enumerate(images)]
    return row_of("studies", PART, study) | {"findings": findings, "images": named}


def test_text_then_sizes_then_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "home"))
    for name, content in {"a": b"11", "b": b"11", "c": b"22", "d": b"333"}.items():
        (tmp_path / name).write_bytes(content)
    for series in ("s", "t"):
        (tmp_path / series).mkdir()
        for n in range(2):
            (tmp_path / series / f"{series}{n}").write_bytes(b"slice %d" % n)
    a, b, c, d, s, t = (tmp_path / name for name in "abcdst")
    rows = [
        row("first", a, s),
        row("again", t, b),
        row("other content", c, s),
        row("other size", d, s),
        row("other text", a, s, findings="Not clear."),
        row("missing", tmp_path / "none"),
        row("also missing", tmp_path / "nowhere"),
        row("no image"),
        row("no image either"),
    ]
    store = Store(str(tmp_path / "store"))
    write_plan(store, Plan("mine", ("ingest",), {PART.name: "r"}))
    write_stage(store, "ingest", PART, rows, {"records": "r"})
    opened: list[Path] = []
    read = digests._read

    def counted(file: Path) -> tuple[str, str, bool]:
        opened.append(file)
        return read(file)

    monkeypatch.setattr(digests, "_read", counted)
    found = find_duplicates(store, "mine")
    assert found.groups == (("again", "first"),)
    assert found.sentence() == ("1 study has the report and the images of another: again = first")
    assert d not in opened, "an image whose size tells it apart is not opened"
    [holding] = read_holdings(store)
    assert read_duplicates(store, holding) == found

    write_stage(store, "ingest", PART, rows[:1], {"records": "r"})
    [holding] = read_holdings(store)
    assert read_duplicates(store, holding) is None, "of studies that are no longer these"
    assert find_duplicates(store, "mine").sentence() == "no study is there twice"
