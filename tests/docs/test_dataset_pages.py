"""The pages of `docs/datasets` say what the declarations say."""

from docs.datasets.__main__ import FOLDER, pages


def test_the_pages_are_current() -> None:
    held = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.md")}
    assert held == pages(), "run `python -m docs.datasets`"
