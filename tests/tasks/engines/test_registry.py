"""Engines found by their place: a module of a step's folder, or a package's entry point."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field

from tasks.engines import detection, registry
from tasks.engines.registry import (
    METHODS,
    EngineChoiceError,
    EngineContext,
    EngineDeclaration,
    EngineSettings,
    checked_settings,
    declaration,
    engine_names,
    make_engine,
)
from tasks.pipeline.settings import BuildSettings, SettingsError, make_settings, required_inputs
from taxonomy.targets import load_taxonomy
from tests.extending import quoted

CONTEXT = EngineContext(load_taxonomy(), "openi")
EMBEDDED = [
    (step, name)
    for step in METHODS
    for name in engine_names(step)
    if name != "llm"
    and not any(
        field.is_required()  # such as the environment of a worker
        for key, field in declaration(step, name).settings.model_fields.items()
        if key != "engine"
    )
]
DETECTORS = ", ".join(sorted([*engine_names("detect"), "toy"]))


@pytest.fixture
def afresh() -> Iterator[None]:
    """Engines are looked for once per process: a test that adds one has them looked for again."""
    registry._offers.cache_clear()
    declaration.cache_clear()
    yield
    registry._offers.cache_clear()
    declaration.cache_clear()


@pytest.fixture
def toy(afresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module of the page, put into the folder of its step."""
    (tmp_path / "toy.py").write_text(quoted("python"))
    monkeypatch.setattr(detection, "__path__", [*detection.__path__, str(tmp_path)])
    yield "toy"
    sys.modules.pop("tasks.engines.detection.toy", None)


@pytest.fixture
def package(afresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package whose entry points a test writes."""
    info = tmp_path / "other-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return info


def _offer(package: Path, step: str, line: str) -> None:
    (package / "entry_points.txt").write_text(f"[vividmed.engines.{step}]\n{line}\n")


@pytest.mark.parametrize(("step", "name"), EMBEDDED)
def test_every_engine_is_made_by_its_name(step: registry.Step, name: str) -> None:
    engine = make_engine(step, checked_settings(step, name), CONTEXT)
    assert engine.fingerprint["name"] == name
    assert callable(getattr(engine, METHODS[step]))


def test_names_and_settings_are_had_without_importing_an_engine() -> None:
    code = (
        "import sys\n"
        "from tasks.engines.registry import FOLDERS, checked_settings, engine_names\n"
        "print(*[f'{step}:{name}' for step in FOLDERS for name in engine_names(step)])\n"
        "print(*[n for n in sys.modules if n.startswith('tasks.engines.detection.')])\n"
        "checked_settings('detect', 'atlas'), checked_settings('segment', 'hounsfield')\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported, modules = run.stdout.splitlines()
    assert {"clean:rules", "extract:lexicon", "filter:context", "filter:llm"} <= set(names.split())
    assert {"detect:atlas", "segment:hounsfield"} <= set(names.split())
    assert imported == ""
    assert not {"pyarrow", "scipy", "skimage", "torch"} & set(modules.split())


def test_a_module_in_the_folder_of_its_step_is_an_engine(toy: str) -> None:
    assert toy in engine_names("detect")
    settings = make_settings({"dataset": "openi", "detector": {"engine": toy, "share": 0.25}})
    engine = make_engine("detect", settings.detector, CONTEXT)
    assert engine.fingerprint == {"name": "toy", "version": "1", "share": "0.25"}
    assert required_inputs(settings) == ["openi"]
    assert required_inputs(make_settings({"dataset": "openi"})) == ["openi", "chest_ct"]


def test_settings_of_an_engine_are_keys_and_survive_json(toy: str) -> None:
    chosen = make_settings({"dataset": "openi", "detector": {"engine": toy, "share": 0.25}})
    assert BuildSettings.model_validate_json(chosen.model_dump_json()) == chosen
    assert BuildSettings.model_validate(chosen) == chosen
    short = make_settings({"dataset": "openi", "detector": toy})
    assert short == make_settings({"dataset": "openi", "detector": {"engine": toy, "share": 0.5}})
    assert len({chosen, short, make_settings({"dataset": "openi"})}) == 3


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        (
            "toi",
            "detector = 'toi': the step detect has no engine `toi`, perhaps `toy` was meant; "
            f"those installed are: {DETECTORS}",
        ),
        (
            {"engine": "toi"},
            "detector: the step detect has no engine `toi`, perhaps `toy` was meant; "
            f"those installed are: {DETECTORS}",
        ),
        (
            {"share": 0.5},
            "detector: must be an engine's name, or a section with `engine` and its settings; "
            f"the engines of the step detect are: {DETECTORS}",
        ),
        (
            None,
            "detector: must be an engine's name, or a section with `engine` and its settings; "
            f"the engines of the step detect are: {DETECTORS}",
        ),
        (
            {"engine": "toy", "shares": 0.5},
            "detector.shares = 0.5: there is no such setting, perhaps `share` was meant",
        ),
        (
            {"engine": "atlas", "share": 0.5},
            "detector.share = 0.5: there is no such setting",
        ),
        (
            {"engine": "toy", "share": 2},
            "detector.share = 2: input should be less than or equal to 1",
        ),
    ],
)
def test_a_fault_is_told_where_it_is(toy: str, detector: object, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings({"dataset": "openi", "detector": detector})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("other = no_such_module:ENGINE", "package other cannot be imported: No module named"),
        (
            "other = tasks.engines.metering:ENGINE",
            "imported: AttributeError: module 'tasks.engines",
        ),
        ("other = tasks.engines.metering:metered", "metered is no EngineDeclaration"),
        ("other = tasks.engines.cleaning.rules:ENGINE", "needs a method `detect`"),
    ],
)
def test_a_package_whose_engine_cannot_be_used_is_named(
    package: Path, line: str, sentence: str
) -> None:
    _offer(package, "detect", line)
    with pytest.raises(EngineChoiceError) as caught:
        make_engine("detect", EngineSettings(engine="other"), CONTEXT)
    assert sentence in str(caught.value)
    assert "`other`" in str(caught.value)


def test_an_engine_without_a_fingerprint_is_named(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Detector:
        def detect(self) -> None: ...

    declared = EngineDeclaration(EngineSettings, lambda *_: Detector())  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "declaration", lambda *_: declared)
    with pytest.raises(EngineChoiceError, match="a fingerprint with `name` and `version`"):
        make_engine("detect", EngineSettings(engine="other"), CONTEXT)


def test_settings_that_are_no_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(EngineSettings):
        targets: list[str] = Field(default_factory=list)

    declared = EngineDeclaration(Settings, lambda *_: None)  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "declaration", lambda *_: declared)
    with pytest.raises(EngineChoiceError, match="because of targets: give its fields hashable"):
        checked_settings("detect", "other")


TOY = """
from pathlib import Path
from pydantic import field_validator
from tasks.engines.registry import EngineDeclaration, EngineSettings

class Settings(EngineSettings):
    weights: Path = Path("weights.pt")

class Toy:
    fingerprint = {"name": "broken", "version": "1"}
    def __init__(self, settings, context): pass
    def detect(self, image, sites): ...

ENGINE = EngineDeclaration(Settings, Toy)
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("class Toy:", "class Toy", "cannot be imported: SyntaxError: expected ':' (broken.py,"),
        ("class Toy:", "1 / 0\nclass Toy:", "cannot be imported: ZeroDivisionError: division"),
        ("class Toy:", "exit(3)\nclass Toy:", "cannot be imported: SystemExit: 3"),
        ("class Toy:", "raise ValueError\nclass Toy:", "cannot be imported: ValueError"),
        ("class Toy:", "import no_such\nclass Toy:", "cannot be imported: No module named 'no_"),
        ("(Settings, Toy)", "(dict, Toy)", "its settings are no subclass of EngineSettings"),
        ("pass", "open('no/such')", "cannot be made: FileNotFoundError: [Errno 2] No such file"),
        ("pass", "raise KeyError('two\\nlines')", "cannot be made: KeyError: 'two"),
        ("fingerprint =", "fingerprint = property(lambda self: 1 / 0)  #", "cannot be made: Zero"),
        ("fingerprint =", "fingerprint = 7  #", "a fingerprint with `name` and `version`"),
        ('"1"}', '"1", "weights": Path("w.pt")}', "'weights': PosixPath('w.pt'), which JSON"),
        ('"1"}', '"1", "threshold": float("nan")}', "'threshold': nan, which JSON cannot hold"),
        ('"1"}', '"1", 3: "x"}', "3: 'x', which JSON cannot hold"),
        ('"1"}', '"1"}; concurrency = 0', "has the concurrency 0: it must be the number of shards"),
        (
            "class Toy:",
            "class Settings(Settings):\n"
            "    _ = field_validator('weights')(lambda value: value.shape)\n"
            "class Toy:",
            "cannot be checked: AttributeError: 'PosixPath' object has no attribute 'shape'",
        ),
    ],
)
def test_whatever_a_package_raises_is_one_sentence(
    package: Path, old: str, new: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    (package.parent / "broken.py").write_text(TOY.replace(old, new))
    _offer(package, "detect", "broken = broken:ENGINE")
    caplog.set_level("DEBUG", logger="tasks.engines.registry")
    given = {"engine": "broken", "weights": "a.pt"}
    try:
        with pytest.raises(EngineChoiceError) as caught:
            make_engine("detect", checked_settings("detect", given), CONTEXT)
    finally:
        sys.modules.pop("broken", None)
    told = str(caught.value)
    assert "the engine `broken` of the package other" in told
    assert sentence in told
    assert "\n" not in told
    assert caplog.records or "Error" not in told


def test_a_path_is_a_setting_like_another(package: Path) -> None:
    (package.parent / "broken.py").write_text(TOY)
    _offer(package, "detect", "broken = broken:ENGINE")
    chosen = make_settings({"dataset": "openi", "detector": {"engine": "broken", "weights": "a"}})
    assert BuildSettings.model_validate_json(chosen.model_dump_json()) == chosen
    assert hash(chosen)
    make_engine("detect", chosen.detector, CONTEXT)
    sys.modules.pop("broken", None)


def test_two_engines_of_one_name_are_refused(package: Path) -> None:
    _offer(package, "detect", "atlas = other:ENGINE")
    with pytest.raises(EngineChoiceError, match=r"detection\.atlas and the package other"):
        checked_settings("detect", "atlas")
