"""Settings that cannot be used, each told in a sentence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.pipeline.settings import (
    BuildSettings,
    SettingsError,
    make_settings,
    read_settings,
    required_inputs,
)

SERVER = {"model": "m", "base_urls": ["http://127.0.0.1:8000/v1"]}


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in SERVER.items() if key != name}


@pytest.mark.parametrize(
    ("llm", "sentence"),
    [
        ({"server": _without("model")}, "llm.server.model is missing"),
        (
            {"server": SERVER | {"base_url": "x"}},
            "llm.server.base_url = 'x': there is no such setting, perhaps `base_urls` was meant",
        ),
        ({"server": SERVER | {"zzz": "x"}}, "llm.server.zzz = 'x': there is no such setting"),
        (
            {"server": SERVER | {"base_urls": "http://a"}},
            "llm.server.base_urls = 'http://a': must be a list, such as [a, b]",
        ),
        (
            {"server": "http://a"},
            "llm.server = 'http://a': must be a section with settings of its own, by name",
        ),
        (
            {"server": SERVER, "batch": {"model": "m", "answers": "a"}},
            "llm: give one of `server`, `vllm` and `batch`: where the model runs",
        ),
        (
            {"server": SERVER | {"retries": -1}},
            "llm.server.retries = -1: input should be greater than or equal to 0",
        ),
    ],
)
def test_a_fault_is_told_where_it_is(llm: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings({"dataset": "openi", "cleaner": "llm", "llm": llm})
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"cleaner: llm\n: : :\n", "line 2: expected <block end>, but found ':'"),
        (b"cleaner: \xff", "invalid start byte"),
    ],
)
def test_what_is_no_yaml_is_told_in_one_line(content: bytes, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.yaml is not YAML") as caught:
        read_settings(file, {})
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml cannot be read: No such file"):
        read_settings(tmp_path / "none.yaml", {})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ("present", "probable")),
        (["present"], ("present",)),
        (["present", "uncertain"], ("possible", "present", "probable")),
    ],
)
def test_the_policy_is_a_list_of_grades(given: list[str] | None, kept: tuple[str, ...]) -> None:
    policy = {} if given is None else {"positive": given}
    assert make_settings({"dataset": "openi", **policy}).positive == kept


def test_a_grade_that_is_none_is_told() -> None:
    with pytest.raises(SettingsError, match=r"positive.*'sure'"):
        make_settings({"dataset": "openi", "positive": ["present", "sure"]})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"limit": True}, "limit = True: input should be a valid integer"),
        ({"shard_size": "5"}, "shard_size = '5': input should be a valid integer"),
        (
            {"store": ""},
            "store: the store has no name: give a folder, s3://bucket/prefix or gs://bucket/prefix",
        ),
        ({"source": ""}, "source = '': there is no folder "),
    ],
)
def test_a_value_that_means_nothing_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings({"dataset": "openi", **given})
    assert str(caught.value) == sentence


def test_a_list_of_engines_is_a_chain_and_survives_the_way_to_a_worker() -> None:
    given = {"dataset": "openi", "segmenter": ["hounsfield"], "detector": [{"engine": "atlas"}]}
    settings = make_settings(given)
    assert [one.engine for one in settings.segmenter.members] == ["hounsfield"]
    assert "chest_ct" in required_inputs(settings)  # of the atlas
    assert BuildSettings.model_validate_json(settings.model_dump_json()) == settings
