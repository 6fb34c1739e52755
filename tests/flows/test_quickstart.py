"""The notebook `docs/quickstart.ipynb` still runs, and shows what it prints."""

import json
import subprocess
import sys
from typing import Any

from tests.flows.conftest import REPOSITORY


def test_the_quickstart_prints_what_it_shows(environment: dict[str, str]) -> None:
    code = (
        "import json, runpy, sys\n"
        "module = runpy.run_path('docs/execute.py')\n"
        "notebook = json.loads(module['NOTEBOOK'].read_text('utf-8'))\n"
        "module['execute'](notebook)\n"
        "json.dump(notebook, sys.stdout)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    shown = json.loads((REPOSITORY / "docs" / "quickstart.ipynb").read_text("utf-8"))
    assert _printed(json.loads(result.stdout)) == _printed(shown)


def _printed(notebook: dict[str, Any]) -> list[str]:
    """What the cells print; pictures are left out, as encoders differ in bytes."""
    return [
        "".join(output["text"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "stream"
    ]
