from pathlib import Path

import pytest

from storage.paths import OutsideError, listing_digest, path_below


@pytest.mark.parametrize(
    "name", ["a.png", "a/b.png", "a/../b.png", "./a.png", "..a/b", "a b\n.png"]
)
@pytest.mark.parametrize("folder", ["files", "/data/files", "/"])
def test_a_name_in_the_folder(folder: str, name: str) -> None:
    path = path_below(Path(folder), name)
    assert path.is_relative_to(folder)
    assert ".." not in path.parts


def test_an_absolute_name_may_lead_into_the_folder(tmp_path: Path) -> None:
    assert path_below(tmp_path, f"{tmp_path}/a.png") == tmp_path / "a.png"


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../a.png", "a/../../b.png", "..", ".", "", "a\0b", "../files2/a"]
)
@pytest.mark.parametrize("folder", ["files", "/data/files"])
def test_a_name_that_leads_out(folder: str, name: str) -> None:
    with pytest.raises(OutsideError, match=f"leads out of {folder}"):
        path_below(Path(folder), name)


def test_a_link_that_the_user_put_there_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_text("a")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "images").symlink_to(tmp_path / "elsewhere")
    assert path_below(tmp_path / "files", "images/a.png").read_text() == "a"


def test_a_listing_follows_names_and_sizes_and_holds_what_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a"
    seen = {listing_digest([file])}
    file.write_text("a")
    seen |= {listing_digest([file]), listing_digest([file])}
    file.write_text("ab")
    seen |= {listing_digest([file]), listing_digest([file, Path("x" * 300), Path("\0")])}
    assert len(seen) == 4
