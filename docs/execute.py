"""Executes the cells of `quickstart.ipynb` and keeps what they print, as Jupyter would.

    python docs/execute.py

It runs in the repository's root folder and needs no Jupyter: the cells are plain Python.
"""

from __future__ import annotations

import ast
import base64
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")


def execute(notebook: dict[str, Any]) -> None:
    """Execute the code cells in order, in one namespace, and replace their outputs.

    Args:
        notebook: what the file holds, in version 4 of the format.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        cell["execution_count"] = number
        cell["outputs"] = _outputs("".join(cell["source"]), names, number)


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)  # noqa: S102 the cells are this repository's
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        lines = text.splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines})
    if value is not None:
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        outputs.append(result | {"data": _shown(value)})
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    if picture := getattr(value, "_repr_png_", None):
        png = base64.b64encode(picture()).decode()
        return {"image/png": png, "text/plain": ["<a picture>"]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


def main() -> None:
    """Execute the notebook in its file."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    execute(notebook)
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
