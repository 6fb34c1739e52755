"""Builds the wheel, in which this project's folders are subpackages of `vividmed`.

In the repository they are top-level packages: `tasks`, `model`, `storage` and so on. Installed like
that they would be found in place of folders of the user's own with these names, or hidden by them.
So a wheel holds `vividmed.tasks`, `vividmed.model`, …, and each import of one from another says so.
An editable install keeps the names of the repository. Code that holds the name of a module in a
string makes it from its own `__name__`.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

OURS = "vividmed"
FOLDERS = ("dashboard", "flows", "model", "storage", "tasks", "taxonomy")


class BuildRelocated(build_py):
    """Moves the built folders below `vividmed`."""

    def run(self) -> None:
        """Build as usual, then move, unless the install is editable."""
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for folder in FOLDERS:
            target = built / OURS / folder
            if target.exists():  # of an earlier build
                shutil.rmtree(target)
            shutil.move(built / folder, target)
        for file in (built / OURS).rglob("*.py"):
            file.write_text(relocated(file.read_text(encoding="utf-8")), encoding="utf-8")


def relocated(source: str) -> str:
    """The source with imports of our folders made imports of `vividmed`'s subpackages.

    Raises:
        ValueError: for `import tasks.clean`, which would bind the name `tasks`: it has to be
            `from tasks import clean`.
    """
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            if (node.module or "").split(".")[0] in FOLDERS:
                line = lines[node.lineno - 1]
                head, rest = line[: node.col_offset], line[node.col_offset :]
                lines[node.lineno - 1] = head + rest.replace("from ", f"from {OURS}.", 1)
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] in FOLDERS:
                    raise ValueError(f"line {node.lineno}: write `from … import` for {name.name}")
    return "\n".join(lines)


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildRelocated})
