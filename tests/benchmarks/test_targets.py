"""A benchmark fails below its target, and `make bench` says so at its end."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.__main__ import BENCHMARKS, Outcome
from benchmarks.targets import MET, MISSED, NOT_MEASURED, Target, judge, targets_of

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("bounds", "value", "verdict"),
    [
        ({"at_least": 0.975}, 0.975, MET),
        ({"at_least": 0.975}, 0.974, MISSED),
        ({"at_most": 2}, 2, MET),
        ({"at_most": 2}, 3, MISSED),
        ({"at_least": 1, "at_most": 2}, 1.5, MET),
        ({"at_least": 1}, math.nan, MISSED),
        ({"at_least": 1}, None, NOT_MEASURED),
    ],
)
def test_a_bound_may_be_reached(bounds, value, verdict) -> None:
    target = Target("figure", **bounds)
    assert target.verdict(value) == verdict
    assert target.line(value).startswith(f"{verdict}: figure")


def test_a_missed_target_is_named_and_ends_in_exit_code_1(capsys) -> None:
    figures = {target.figure: 1.0 for target in targets_of("hounsfield")}
    assert judge("hounsfield", figures) == 0
    assert judge("hounsfield", figures | {"skeleton, Dice": 0.7}) == 1
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(MISSED)]
    assert missed == ["target missed: skeleton, Dice 0.7 (at least 0.75)"]


def test_what_could_not_be_measured_is_said_and_is_no_failure(capsys) -> None:
    assert judge("text_steps", {}) == 0
    said = "target not measured: times the speed of medspaCy (at least 25)"
    assert said in capsys.readouterr().out


def test_a_figure_that_no_target_asks_for_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="no target of hounsfield for"):
        judge("hounsfield", {"skeleton dice": 0.9})


def test_every_target_belongs_to_a_benchmark_that_is_run() -> None:
    folder = REPOSITORY / "benchmarks"
    homes = [(folder / f"{name}.py", folder / name / "__main__.py") for name in BENCHMARKS]
    assert all(module.exists() or package.exists() for module, package in homes)
    assert set(yaml.safe_load((folder / "targets.yaml").read_text())) <= set(BENCHMARKS)


def test_the_summary_names_what_is_amiss() -> None:
    lines = ("target met: a 1 (at least 1)", "target missed: b 1 (at least 2)")
    amiss = ("atlas", "3", "1 of 2", "target missed: b 1 (at least 2)")
    assert Outcome("atlas", 1, 3.2, lines).row() == amiss
    assert Outcome("atlas", 1, 3.2, ()).row()[2:] == ("–", "ended with exit code 1")
    assert Outcome("atlas", 0, 3.2, lines[:1]).row()[2:] == ("1 of 1", "")


def test_a_benchmark_that_breaks_down_does_not_keep_the_others_from_running() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "no_such", "nor_this"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "=== no_such" in result.stdout
    assert result.stdout.count("ended with exit code 1") == 2
