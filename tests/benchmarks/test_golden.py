"""Runs and the model give what was frozen; and what they do not give is seen and named."""

import copy
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.golden import __main__ as command
from benchmarks.golden import freezing
from benchmarks.golden.difference import compare, figures, show
from benchmarks.golden.freezing import Frozen, freeze, load, write
from benchmarks.golden.model_outputs import differing, load_figures, measure, write_figures
from storage.manifests import Manifest, write_manifest
from storage.masks import encode_mask
from storage.shards import Part, shard_path, table_from_rows, write_shard
from storage.store import Store
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.settings import BuildSettings
from tasks.pipeline.stages import pipeline

FIRST = 300
"""Reports of OpenI that the suite makes; the whole is compared in the test of the demo."""


@pytest.fixture(scope="module")
def golden() -> Frozen:
    return load()


def lines_of(changes, words) -> str:
    lines: list[str] = []
    show(changes, words, lines.append)
    return "\n".join(lines)


def test_the_first_reports_of_openi_are_as_frozen(real_input, tmp_path, golden) -> None:
    source = real_input("openi/NLMCXR_reports.tgz").parent
    store = tmp_path / "store"
    settings = BuildSettings(dataset="openi", source=str(source), store=str(store), limit=FIRST)
    plan = pipeline(settings)
    for part in plan.parts:
        done: dict[str, ShardResult] = {}
        for name, stage in plan.stages.items():
            done[name] = run_stage(plan.store, stage, part, done)

    studies = sorted(golden.studies("openi"), key=lambda study: int(re.findall(r"\d+", study)[0]))
    fresh, words = freeze(store)
    changes = compare(golden.only("openi", studies[:FIRST]), fresh.only("openi", studies))
    assert fresh.studies("openi") == set(studies[:FIRST])
    assert not changes, lines_of(changes, words)


def test_the_model_gives_what_is_frozen() -> None:
    figures_then, figures_now = load_figures(), measure()
    assert list(figures_then) == ["shared", "separate"]
    assert not differing(figures_then, figures_now)


# The difference, on a store of one report with boxes and one with a mask.

TEXT = "Findings: There are nodules in the lungs. The heart is large."
BOX = {"x_min": 10.0, "y_min": 20.0, "x_max": 30.5, "y_max": 40.25, "score": 0.7}
SITE: dict[str, Any] = {"laterality": None, "zones": []}


def tag(words, text=TEXT, **changes):
    start = text.index(words)
    given = {
        "start": start,
        "end": start + len(words),
        "phrase": words,
        "target": "heart",
        "category": "anatomy",
        "grounding": "none",
        "reason": "not_found",
        "boxes": [],
        "mask": None,
    }
    return given | changes


def tags(text=TEXT):
    return [
        tag("nodules", text, target="lung nodule", grounding="box", reason=None, boxes=[dict(BOX)]),
        tag("lungs", text, target="lung"),
        tag("heart", text),
    ]


@pytest.fixture
def tables():
    """The rows of a store: a test changes a copy of them."""
    key = {"dataset": "showcase", "split": "test", "study_id": "one"}
    report = key | {"image_id": "one", "text": TEXT, "tags": tags(), "provenance": {"source": "x"}}
    detail = "/home/somebody/their data/one.png cannot be found: No such file or directory"
    reject = key | {"stage": "detect", "record": "one: lung", "reason": "no", "detail": detail}
    site = key | {"image_id": "one", "target": "lung nodule", **SITE}
    volume = pa.array([True, False, True]).to_numpy(zero_copy_only=False).reshape(1, 1, 3)
    mask = {"shape": [1, 1, 3], "affine": [1.0] * 16, "mask": encode_mask(volume)}
    return {
        "grounded_reports": [report],
        "rejects": [reject],
        "boxes": [site | BOX | {"instance": 0, "detector": "atlas 1"}],
        "masks": [site | mask | {"voxel_count": 2, "volume_mm3": 2.0, "score": 1.0}],
    }


def frozen(folder: Path, tables, **counts):
    store = Store(str(folder))
    part = Part("showcase", "test", 0)
    outputs = {}
    for table, rows in tables.items():
        path = shard_path(table, part, "detect")
        outputs[table] = write_shard(store, path, table, table_from_rows(table, rows))
    account = {"rows_in": 3, "rows_out": 2, "rejects": {"no": 1}, **counts}
    write_manifest(store, Manifest("detect", part, "", {}, {}, outputs, "site", **account))
    return freeze(folder)


def difference(tmp_path, tables, changed, **counts):
    before, _ = frozen(tmp_path / "before", tables)
    after, words = frozen(tmp_path / "after", changed, **counts)
    changes = compare(before, after)
    kinds = [(change.part, change.kind) for change in changes]
    return kinds, lines_of(changes, words)


def test_equal_stores_do_not_differ(tmp_path, tables) -> None:
    assert difference(tmp_path, tables, tables) == ([], "")


def test_a_lost_tag_is_shown_in_its_words(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    del changed["grounded_reports"][0]["tags"][1]
    kinds, said = difference(tmp_path, tables, changed)
    assert kinds == [("tags", "lost")]
    assert "1 tags lost" in said
    assert (
        "showcase one 35–40 “…ngs: There are nodules in the [lungs]. The heart is large.…”" in said
    )
    assert difference(tmp_path / "back", changed, tables)[0] == [("tags", "gained")]


def test_a_changed_target_and_a_moved_box_are_changes_of_their_tags(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    first, second, _ = changed["grounded_reports"][0]["tags"]
    first["boxes"][0]["x_min"] += 0.01
    second["target"] = "left lung"
    kinds, said = difference(tmp_path, tables, changed)
    assert kinds == [("tags", "changed")] * 2
    assert "[nodules] in the lungs. The heart is la…”: boxes[0].x_min 10 → 10.01" in said
    assert "target lung → left lung" in said


def test_the_last_bits_of_a_box_are_no_change(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    changed["grounded_reports"][0]["tags"][0]["boxes"][0]["x_min"] += 1e-4
    changed["boxes"][0]["score"] += 1e-4
    assert difference(tmp_path, tables, changed)[0] == []


def test_a_changed_text_is_named_and_its_tags_have_moved(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    text = TEXT.replace("There are", "There are many")
    changed["grounded_reports"][0] |= {"text": text, "tags": tags(text)}
    kinds, said = difference(tmp_path, tables, changed)
    assert kinds == [("reports", "changed"), *[("tags", "moved")] * 3]
    assert f"showcase one: text is now “{text}”" in said
    assert "lung, not_found, was at 35–40" in said


def test_a_phrase_that_is_not_the_text_at_its_place_is_a_change(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    changed["grounded_reports"][0]["tags"][2]["phrase"] = "hearts"
    kinds, said = difference(tmp_path, tables, changed)
    assert kinds == [("tags", "changed")]
    assert "phrase_fits True → False" in said


def test_provenance_is_a_change_of_the_report(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    changed["grounded_reports"][0]["provenance"] = {"source": "y"}
    assert difference(tmp_path, tables, changed)[0] == [("reports", "changed")]


def test_rejects_are_compared_by_reason_and_detail_but_not_by_folder_or_record(
    tmp_path, tables
) -> None:
    changed = copy.deepcopy(tables)
    [reject] = changed["rejects"]
    reject["detail"] = reject["detail"].replace("/home/somebody/their data", "/srv")
    reject["record"] = "something else"
    assert difference(tmp_path / "elsewhere", tables, changed)[0] == []
    changed["rejects"].append(reject | {"detail": "another"})
    kinds, said = difference(tmp_path, tables, changed, rows_in=4, rejects={"no": 2})
    assert kinds == [("rejects", "changed"), ("counts", "changed")]
    assert "showcase, detect, no: 1 → 2 in 1 studies" in said
    assert "now: one.png cannot be found: No such file or directory; another" in said
    assert "showcase detect: rejects.no 1 → 2" in said


def test_a_voxel_of_a_mask_is_a_change_whatever_its_bytes(tmp_path, tables) -> None:
    changed = copy.deepcopy(tables)
    voxels = pa.array([True, True, False]).to_numpy(zero_copy_only=False).reshape(1, 1, 3)
    changed["masks"][0]["mask"] = encode_mask(voxels)
    kinds, said = difference(tmp_path, tables, changed)
    assert kinds == [("groundings", "changed")]
    assert "showcase one lung nodule: voxels " in said


def test_ten_examples_of_different_studies_are_shown(tmp_path, tables) -> None:
    [report] = tables["grounded_reports"]
    many = [report | {"study_id": f"s{i:02}", "image_id": f"s{i:02}"} for i in range(25)]
    kinds, said = difference(tmp_path, tables, {**tables, "grounded_reports": [report, *many]})
    assert kinds.count(("tags", "gained")) == 75
    of_tags = said.split("tags gained")[1]
    assert len(set(re.findall(r"showcase (s\d\d)", of_tags))) == 10
    assert "… and 65 more" in of_tags


# The committed form.


def test_what_is_written_is_read_and_the_same_rows_give_the_same_bytes(tmp_path, tables) -> None:
    ours, _ = frozen(tmp_path / "store", tables)
    for folder in ("one", "two"):
        write(ours, tmp_path / folder)
    assert compare(load(tmp_path / "one"), ours) == []
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_files_that_do_not_belong_together_are_refused(tmp_path, tables) -> None:
    write(frozen(tmp_path / "store", tables)[0], tmp_path)
    del tables["grounded_reports"][0]["tags"][0]
    write(frozen(tmp_path / "other", tables)[0], tmp_path / "new")
    (tmp_path / "new" / "tags.parquet").rename(tmp_path / "tags.parquet")
    with pytest.raises(ValueError, match="not of one renewal"):
        load(tmp_path)


def test_two_targets_on_one_span_are_two_tags(tmp_path, tables) -> None:
    report = tables["grounded_reports"][0]
    before, _ = frozen(tmp_path / "before", tables)
    second = report["tags"][-1] | {"target": "cardiomegaly"}
    report["tags"] = [*report["tags"], second]
    after, _ = frozen(tmp_path / "after", tables)
    changes = compare(before, after)
    gained = [change for change in changes if change.part == "tags"]
    assert [(change.kind, (change.new or {})["target"]) for change in gained] == [
        ("gained", "cardiomegaly")
    ]


def test_a_report_that_stands_twice_is_an_error(tmp_path, tables) -> None:
    tables["grounded_reports"] *= 2
    with pytest.raises(ValueError, match="two rows of reports"):
        frozen(tmp_path, tables)


def test_no_words_of_openi_are_committed(golden) -> None:
    of_openi = golden.of_dataset("openi")
    assert len(of_openi.reports) > 5000
    assert all(re.fullmatch("[0-9a-f]{12}", row["text"]) for row in of_openi.reports.values())
    assert all(re.fullmatch("[0-9a-f]{12}", row["details"]) for row in of_openi.rejects.values())
    kept = {name for row in of_openi.tags.values() for name in row}
    words = {"target", "category", "grounding", "reason"}  # of the taxonomy and of the code
    assert kept == words | {"phrase_fits", "mask", "boxes"}
    size = sum(file.stat().st_size for file in freezing.FOLDER.iterdir())
    assert size < 400_000  # bytes, in every clone


def test_a_figure_of_the_model_may_differ_in_its_last_digits_only() -> None:
    old = {"shared": {"loss": 18.0, "tokens": [[1, 2]], "mean": 0.0}}
    assert differing(old, {"shared": {"loss": 18.001, "tokens": [[1, 2]], "mean": 1e-6}}) == []
    new = {"shared": {"loss": 18.01, "tokens": [[1, 3]]}}
    assert differing(old, new) == [
        "shared loss: 18.0 → 18.01",
        "shared tokens[0][1]: 2 → 3",
        "shared mean: 0.0 → None",
    ]


# The command.


@pytest.fixture
def folder(tmp_path, tables, monkeypatch) -> Path:
    """A folder of frozen files for the command, and a store that fits them."""
    [report] = tables["grounded_reports"]
    tables["grounded_reports"].append(copy.deepcopy(report) | {"dataset": "openi"})
    write(frozen(tmp_path / "store", tables)[0], tmp_path / "frozen")
    (tmp_path / "frozen" / "model.json").write_text(json.dumps({"loss": 1.0}))
    for function in (load, load_figures, write, write_figures):
        monkeypatch.setattr(
            command, function.__name__, partial(function, folder=tmp_path / "frozen")
        )
    monkeypatch.setattr(command, "measure", lambda: {"loss": 1.0})
    return tmp_path


def test_the_command_fails_with_the_difference_until_it_is_renewed(folder, tables, capsys) -> None:
    assert command.main(["--store", str(folder / "store")]) == 0
    del tables["grounded_reports"][0]["tags"][0]
    frozen(folder / "changed", tables)
    changed = ["--store", str(folder / "changed")]
    assert command.main(changed) == 1
    said = capsys.readouterr().out
    assert "1 tags lost" in said
    assert "target missed: tags lost, gained, changed or moved 1 (at most 0)" in said
    assert command.main([*changed, "--renew"]) == 0
    assert "1 tags lost" in capsys.readouterr().out
    assert command.main(changed) == 0


def test_a_changed_output_of_the_model_fails_the_command(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "measure", lambda: {"loss": 1.1})
    assert command.main(["--store", str(folder / "store")]) == 1
    assert "loss: 1.0 → 1.1" in capsys.readouterr().out


def test_a_store_without_one_of_the_datasets_is_refused(folder, tables) -> None:
    del tables["grounded_reports"][1]
    frozen(folder / "half", tables)
    with pytest.raises(SystemExit, match="has no reports of openi"):
        command.main(["--store", str(folder / "half"), "--renew"])


def test_every_part_has_a_figure() -> None:
    assert len(figures([])) == len(Frozen({}, {}, {}, {}, {}).parts())
