"""The engine that `docs/extending.md` quotes: tests run what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def quoted(language: str) -> str:
    """The first code block of a language in the section on engines."""
    section = PAGE.read_text().split("\n## An engine\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"{PAGE.name} quotes no {language}"
    return found[1]
