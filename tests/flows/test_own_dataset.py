"""The data set of `docs/extending.md`, built by the real command from the files described there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from storage.catalogue import connect
from storage.images.loading import load_radiograph
from storage.store import Store
from tests.flows.conftest import REPOSITORY, Command

GUIDE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8").split("## A data set")[1]


def block(kind: str) -> str:
    """The first block of a kind in the guide's section."""
    found = re.search(rf"```{kind}\n(.*?)```", GUIDE, re.DOTALL)
    assert found
    return found[1]


def test_the_declaration_of_the_guide_builds(
    vividmed: Command, tmp_path: Path, real_input: Any
) -> None:
    declaration = tmp_path / "archive.yaml"
    declaration.write_text(block("yaml"))
    folder = tmp_path / yaml.safe_load(block("yaml"))["folder"]
    (folder / "p1" / "001").mkdir(parents=True)
    (folder / "reports.csv").write_text(block("csv"))
    radiograph = load_radiograph(real_input("radiograph/RG1_UNCR.dcm"))
    pixels = (radiograph.pixels * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "p1" / "001" / "a.png")

    store = tmp_path / "store"
    built = vividmed("build", str(declaration), "--store", str(store))
    assert built.returncode == 0, built.stderr
    with connect(Store(str(store))) as rows:
        studies = rows.sql(
            "SELECT study_id, split, patient_id, source, len(images) FROM studies ORDER BY ALL"
        ).fetchall()
        grounded = rows.sql(
            "SELECT study_id, image_id, list_distinct([t.grounding FOR t IN tags]) "
            "FROM grounded_reports ORDER BY ALL"
        ).fetchall()
        ingest = "SELECT study_id, split, reason, detail FROM rejects WHERE stage = 'ingest'"
        rejects = rows.sql(ingest).fetchall()
    assert studies == [
        ("001", "train", "p10", "archive", 2),
        ("002", "test", "p11", "archive", 0),
    ]
    assert grounded == [("001", "a", ["box"]), ("002", None, ["none"])]
    detail = "reports.csv row 4: 4 cells stand under 8 columns"
    assert rejects == [("row 4", "test", "row_malformed", detail)]

    again = vividmed("build", str(declaration), "--store", str(store))
    assert "nothing to do" in again.stdout
    assert "archive" in vividmed("status", "archive", "--store", str(store)).stdout
