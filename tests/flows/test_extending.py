"""A package with an engine, written from the page on extending, beside our own installed wheel."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.utilities.schema_tools.validation import validate

from flows.build_grounded_reports import build_grounded_reports
from storage.catalogue import query_rows
from tests.extending import quoted
from tests.flows.conftest import REPOSITORY

PACKAGES = ("dashboard", "flows", "model", "storage", "tasks", "taxonomy", "vividmed")


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ours and the toy's, each built from a folder of its own: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheels")
    ours, toy = folder / "ours", folder / "toy"
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, ours / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, ours)
    toy.mkdir()
    (toy / "pyproject.toml").write_text(quoted("toml"))
    (toy / "vividmed_toy.py").write_text(quoted("python"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    _pip("wheel", *offline, "--wheel-dir", folder / "dist", ours, toy)
    return sorted((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheels are installed in."""
    target = tmp_path_factory.mktemp("installed")
    _pip("install", "--no-deps", "--no-index", "--target", target, *wheels)
    return target


@pytest.fixture(scope="module")
def installed(site: Path, python: Callable[..., str]) -> Callable[..., str]:
    """Runs the installed command, away from the repository, and gives what it printed."""
    return lambda *arguments: python(site, site / "bin" / "vividmed", *arguments)


@pytest.fixture(scope="module")
def python(site: Path, environment: dict[str, str]) -> Callable[..., str]:
    """Runs Python in a folder, with the wheels' packages and without the repository's."""

    def run(folder: Path, *arguments: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_our_wheel_holds_every_file_of_our_packages(wheels: list[Path]) -> None:
    [wheel] = [wheel for wheel in wheels if wheel.name.startswith("vividmed-")]
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (file for name in PACKAGES for file in (REPOSITORY / name).rglob("*"))
    ours = {
        file.relative_to(REPOSITORY).as_posix()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == {f"vividmed/{file}".replace("vividmed/vividmed/", "vividmed/") for file in ours}
    assert any(name.endswith("spans/extract.md") for name in held)


def test_the_toy_puts_its_boxes_on_the_radiograph_of_the_demo(
    installed: Callable[..., str], tmp_path: Path
) -> None:
    config, store = tmp_path / "toy.yaml", tmp_path / "store"
    config.write_text(quoted("yaml"))
    installed("build", "showcase", "--limit", "1", "--config", config, "--store", store)
    query = (
        "SELECT b.*, i.shape FROM boxes b JOIN "
        "(SELECT unnest(images, recursive := true) FROM studies) i USING (image_id)"
    )
    columns, rows = query_rows(str(store), query)
    boxes = [dict(zip(columns, row, strict=True)) for row in rows]
    assert {box["study_id"] for box in boxes} == {"radiograph-nodules"}
    assert {box["detector"] for box in boxes} == {"toy 1"}
    assert {"lung nodule", "trachea"} <= {box["target"] for box in boxes}
    for box in boxes:
        height, width = box["shape"][-2:]
        corners = [box[name] for name in ("x_min", "y_min", "x_max", "y_max")]
        assert corners == [width * 0.375, height * 0.375, width * 0.625, height * 0.625]


@pytest.mark.parametrize("detector", ["toy", {"engine": "toy", "share": 0.25}])
def test_a_deployment_takes_an_engine_that_only_its_worker_has(detector: object) -> None:
    schema = build_grounded_reports.parameters.model_dump()
    assert not validate({"settings": {"dataset": "openi", "detector": detector}}, schema)


LIBRARY = """
import model, tasks  # the user's own
import vividmed
assert tasks.MINE and model.MINE

found = vividmed.annotate("INDICATION: cough. FINDINGS: The heart is enlarged. No effusion.")
for phrase in found.phrases:
    assert found.text[phrase.start:phrase.end] == phrase.phrase
print({phrase.target: phrase.assertion for phrase in found.phrases})
assert not {"flows", "storage", "taxonomy", "dashboard"} & set(__import__("sys").modules)
"""


def test_the_library_stands_beside_folders_of_the_same_names(
    python: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("tasks", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("MINE = True\n")
    said = python(tmp_path, "-c", LIBRARY)
    assert "'cardiomegaly': 'present'" in said
    assert "'pleural effusion': 'absent'" in said
