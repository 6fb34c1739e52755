"""The reason codes in the source are those of `storage/reasons.yaml`, no more and no fewer."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from storage.reasons import UnknownReasonError, explain, may_succeed_later, reasons
from storage.rejects import Reject, rejects_table
from storage.shards import Part

ROOT = Path(__file__).parents[2]
PACKAGES = ("dashboard", "flows", "model", "storage", "tasks")
CONSTRUCTORS = {"CannotPlaceError", "Failure", "ImageError", "TransientFailure", "Ungrounded"}
"""What takes a reason code as its first argument."""
STAGES = {"ingest", "clean", "extract", "filter", "detect", "segment", "assemble", "gallery"}
COMPOSED = {"no_findings", "no_impression", "findings_emptied", "impression_emptied"}
"""Codes that `tasks.clean` makes of a section's name."""
ENDS_THE_RUN = "stop"


def _trees() -> Iterator[ast.AST]:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            yield ast.parse(file.read_text(encoding="utf-8"))


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _literal_codes(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = {"Reject": 2}.get(node.func.id, 0 if node.func.id in CONSTRUCTORS else None)
            if place is not None and len(node.args) > place:
                code = node.args[place]
                if isinstance(code, ast.Constant):
                    assert isinstance(code.value, str)
                    yield code.value


def _refusals() -> set[str]:
    """Codes of rules that reject a record; other rules end the run."""
    file = ROOT / "tasks/engines/llm/chat/server_errors.yaml"
    rules = yaml.safe_load(file.read_text(encoding="utf-8"))["rules"]
    return {rule["reason"] for rule in rules if rule["then"] != ENDS_THE_RUN}


def test_every_code_of_the_source_is_declared() -> None:
    found = {code for tree in _trees() for code in _literal_codes(tree)} | _refusals()
    assert len(found) > 20
    assert found <= set(reasons())


def test_every_declared_code_is_used() -> None:
    used = {text for tree in _trees() for text in _strings(tree)} | _refusals() | COMPOSED
    assert set(reasons()) <= used


def test_every_reason_has_one_sentence_and_known_stages() -> None:
    for reason in reasons().values():
        assert reason.meaning.endswith(".")
        assert set(reason.stages) <= STAGES
        assert reason.stages


def test_only_faults_of_a_server_or_worker_may_pass() -> None:
    assert {code for code in reasons() if may_succeed_later(code)} == {
        "bad_answer",
        "connection_lost",
        "not_in_batch",
        "rate_limited",
        "server_error",
        "timeout",
        "unreachable",
        "worker_crashed",
        "worker_out_of_memory",
        "worker_timeout",
    }


def test_a_reject_of_an_unknown_reason_is_a_mistake_of_the_program() -> None:
    with pytest.raises(UnknownReasonError, match=r"'no_such_code' .* storage/reasons.yaml"):
        rejects_table(Part("d", "s", 0), "clean", [Reject("s1", "report", "no_such_code", "")])
    assert explain("no_such_code") == "no_such_code"


def test_an_engine_of_another_package_may_have_reasons_of_its_own() -> None:
    reject = Reject("s1", "image: mass", "vividmed-toy:no_lesion", "nothing found")
    rows = rejects_table(Part("d", "s", 0), "detect", [reject]).to_pylist()
    assert [row["reason"] for row in rows] == ["vividmed-toy:no_lesion"]
    assert explain("vividmed-toy:no_lesion") == "vividmed-toy:no_lesion"
    assert not may_succeed_later("vividmed-toy:no_lesion")
