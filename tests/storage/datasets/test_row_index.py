"""Rows of a table by a key, kept on disk."""

from pathlib import Path

import pytest

from storage.datasets.reader import DatasetError
from storage.datasets.row_index import RowIndex


def _table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def test_rows_of_a_key_keep_their_order_and_only_the_columns_asked_for(tmp_path: Path) -> None:
    index = RowIndex(_table(tmp_path, "study,x,y\nb,1,“\na,2,3\nb,4,5\n"), "study", ["x"], ["z"])
    assert list(index.keys()) == ["b", "a"]
    assert [row.cells for row in index.rows("b")] == [{"x": "1"}, {"x": "4"}]
    assert [row.number for row in index.rows("b")] == [1, 3]
    assert index.rows("c") == []
    assert ("a" in index, "c" in index, len(index)) == (True, False, 3)


def test_more_keys_than_are_read_at_once(tmp_path: Path) -> None:
    keys = [str(number) for number in range(25_000)]
    index = RowIndex(_table(tmp_path, "study\n" + "\n".join(keys)), "study", [])
    assert list(index.keys()) == keys


def test_a_faulty_row_is_kept_with_its_fault(tmp_path: Path) -> None:
    index = RowIndex(_table(tmp_path, "study,x\na,1\nb\n"), "study", ["x"])
    [row] = index.rows("b")
    assert row.fault == "1 cells stand under 2 columns"


def test_text_under_a_column_without_a_name_is_a_fault(tmp_path: Path) -> None:
    """A comma that no quotation marks protect moves the text into an empty column of the header."""
    text = ",study,findings,impression,,\n0,a,Nodule, not left,Nodule.,\n1,b,Clear.,None.,,\n"
    index = RowIndex(_table(tmp_path, text), "study", ["findings"])
    assert [bool(index.rows(key)[0].fault) for key in ("a", "b")] == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study,x\n", "labels.csv holds no rows"),
        ("study,findngs\na,1\n", "has no column `x`; it has study, findngs"),
        ("study,xx\na,1\n", "has no column `x`, perhaps `xx` was meant"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        RowIndex(_table(tmp_path, text), "study", ["x"])
