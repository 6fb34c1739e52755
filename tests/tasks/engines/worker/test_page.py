"""The engine of `docs/worker-engines.md`, run as it stands there."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from storage.images.types import Volume
from storage.records import Site
from tasks.engines.registry import EngineContext, checked_settings, make_engine
from tasks.engines.segmentation.hounsfield.engine import VERSION
from tasks.engines.worker.prepared import SCRIPTS
from taxonomy.targets import load_taxonomy

PAGE = Path(__file__).parents[4] / "docs" / "worker-engines.md"


def test_the_page_tells_how_to_write_an_engine(tmp_path, monkeypatch):
    script, targets, configuration = re.findall(r"```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)[
        :3
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path))
    shutil.copy(SCRIPTS / "vividmed_worker.py", tmp_path)
    (tmp_path / "bone_worker.py").write_text(script)
    (tmp_path / "bone_targets.yaml").write_text(targets)
    own, other = yaml.safe_load(configuration)["segmenter"]
    settings = checked_settings("segment", [own | {"python": sys.executable}, other])
    chain: Any = make_engine("segment", settings, EngineContext(load_taxonomy(), "toy"))
    assert chain.fingerprint["version"] == f"thresholds 1, hounsfield {VERSION}"

    hu = np.full((8, 8, 8), -1000, np.int16)
    hu[2:4, 3, 3] = 400
    asked = [Site("rib"), Site("heart"), Site("airway")]
    rib, heart, airway = chain.segment(Volume(hu, np.eye(4)), asked)
    assert (rib.voxels == (hu == 400)).all()
    assert (airway.voxels == (hu == -1000)).all()
    assert [(m.engine, m.score) for m in (rib, airway)] == [
        ("thresholds 1", 0.5),
        ("thresholds 1", None),
    ]
    assert heart.reason == "target_not_supported"
    assert "Hounsfield" in heart.detail
