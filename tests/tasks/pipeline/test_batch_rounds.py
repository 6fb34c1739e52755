"""Batch files, round after round, until nothing is left to ask."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from storage.shards import table_from_rows
from storage.store import Store
from tasks.engines.llm.cache.response_cache import ResponseCaches
from tasks.engines.llm.chat.batch_file import custom_id, write_requests
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError
from tasks.engines.llm.chat.settings import BatchSettings
from tasks.engines.llm.chat.tokens import approximate_tokens
from tasks.engines.llm.chat_choice import answer_files, batch_answers
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from tasks.engines.llm.settings import LlmSettings, ProtocolName
from tasks.engines.protocols import CleanedText
from tasks.pipeline.batch_rounds import (
    require_answers,
    unanswered_requests,
)
from tasks.pipeline.settings import (
    BuildSettings,
    SettingsError,
    make_settings,
)
from taxonomy.targets import load_taxonomy

TEXTS = [
    "The heart is mildly enlarged. Small right pleural effusion, unchanged.",
    "No pneumothorax. Possible atelectasis in the left base.",
]
TAXONOMY = load_taxonomy()


def _missing(
    protocol: ProtocolName, batch: BatchSettings, store: Store, **more: object
) -> list[ChatRequest]:
    """What a build of the texts, a report each, has yet to ask."""
    shards, settings, llm, _ = _build(protocol, batch, store, **more)
    return unanswered_requests(shards, settings, llm, batch_answers(batch), TAXONOMY)


def _build(
    protocol: ProtocolName, batch: BatchSettings, store: Store, **more: object
) -> tuple[list[pa.Table], BuildSettings, LlmSettings, BatchSettings]:
    """Shards and settings of a build of the texts."""
    key = {"dataset": "openi", "split": "train", "source": "authored"}
    rows = [key | {"study_id": str(i), "findings": text} for i, text in enumerate(TEXTS)]
    chosen = {"cleaner": "llm", "extractor": "llm", "filter": "llm", "require_sections": "any"}
    llm = {"protocol": protocol, "batch": batch.model_dump()}
    run = make_settings({"dataset": "openi", "store": store.root, "llm": llm} | chosen | more)
    assert run.llm is not None
    return [table_from_rows("studies", rows)], run, run.llm, batch


def _answer(path: Path, requests: Sequence[ChatRequest], settings: BatchSettings) -> None:
    """Answer a batch file in the form that `vllm run-batch` writes, by the embedded engines."""
    inputs = path.with_name(path.name.replace("answers", "requests"))
    write_requests(inputs, requests, settings)
    ids = [json.loads(line)["custom_id"] for line in inputs.read_text().splitlines()]
    dry_run = DryRunEngine(TAXONOMY, "openi", approximate_tokens, {"name": "m", "version": ""})
    unique = list({json.dumps(str(request)): request for request in requests}.values())
    lines = []
    for key, completion in zip(ids, dry_run.complete(unique), strict=True):
        assert isinstance(completion, Completion)
        choice = {"message": {"role": "assistant", "content": completion.text}}
        body = {
            "choices": [choice | {"index": 0, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
        }
        response = {"status_code": 200, "request_id": key, "body": body}
        lines.append(json.dumps({"id": key, "custom_id": key, "response": response, "error": None}))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("protocol", "most_rounds"), [("joint", 1), ("spans", 3), ("cascade", 3)])
def test_rounds_end_and_the_answers_serve_the_build(
    protocol: ProtocolName, most_rounds: int, tmp_path: Path
) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    rounds = 0
    while missing := _missing(protocol, settings, store):
        rounds += 1
        assert rounds <= most_rounds
        _answer(tmp_path / f"answers-{rounds}.jsonl", missing, settings)
        assert len(list(tmp_path.glob("answers-*"))) == rounds
    assert rounds > 0
    require_answers(*_build(protocol, settings, store))

    # A build packs by shard: other sentences share a request, and other texts are not there.
    chat = batch_answers(settings)
    engines = text_engines(protocol, chat, ResponseCaches(store), TAXONOMY, "openi")
    cleaned = [text for one in reversed(TEXTS) for text in engines.cleaner.clean([one])][::-1]
    assert all(isinstance(text, CleanedText) for text in cleaned)
    texts = [text.text for text in cleaned if isinstance(text, CleanedText)]
    assert "unchanged" not in texts[0]
    targets = {p.target for found in engines.extractor.extract(texts) for p in found}  # type: ignore[union-attr]
    assert targets >= {"cardiomegaly", "pleural effusion", "pneumothorax", "atelectasis"}


@pytest.mark.parametrize(("protocol", "steps"), [("joint", 1), ("spans", 2)])
def test_a_step_asks_about_a_sentence_three_times_and_then_leaves_it_to_the_rules(
    protocol: ProtocolName, steps: int, tmp_path: Path
) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    asked: list[str] = []
    while missing := _missing(protocol, settings, store):
        asked += [request.messages[-1].content for request in missing]
        assert len(asked) < 20
        path = tmp_path / f"answers-{len(asked)}.jsonl"
        _answer(path, missing, settings)
        lines = path.read_text().splitlines()
        sentence = "No pneumothorax."
        spoiled = [
            line if sentence not in request.messages[-1].content else _spoiled(line)
            for line, request in zip(lines, missing, strict=True)
        ]
        path.write_text("\n".join(spoiled) + "\n")
    about = [said for said in asked if "No pneumothorax." in said]
    assert len(about) == 3 * steps
    require_answers(*_build(protocol, settings, store))

    chat = batch_answers(settings)
    caches = ResponseCaches(store, keeps_failures=True)
    engines = text_engines(protocol, chat, caches, TAXONOMY, "openi", "rules")
    [cleaned] = engines.cleaner.clean([TEXTS[1]])  # packed as a build packs it, shard by shard
    assert isinstance(cleaned, CleanedText)
    assert cleaned.by_rules == ("No pneumothorax.",)


def _spoiled(line: str) -> str:
    answer = json.loads(line)
    answer["response"]["body"]["choices"][0]["message"]["content"] = "I cannot say."
    return json.dumps(answer)


def test_a_damaged_answer_file_only_means_another_round(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    first = _missing("joint", settings, store)
    (tmp_path / "answers-1.jsonl").write_text('{"custom_id": "torn')
    assert _missing("joint", settings, store) == first


def test_a_report_without_a_required_section_is_asked_about_no_further(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    cleaning = _missing("spans", settings, store, require_sections="both")
    _answer(tmp_path / "answers-1.jsonl", cleaning, settings)
    assert _missing("spans", settings, store, require_sections="both") == []
    assert len(_missing("spans", settings, store)) > 0


def test_shards_that_share_sentences_need_no_round_of_their_own(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    (studies,), run, llm, batch = _build("joint", settings, Store(str(tmp_path / "store")))
    shards = [studies.slice(1), studies, studies.slice(0, 1)]
    (request,) = unanswered_requests(shards, run, llm, batch_answers(batch), TAXONOMY)
    _answer(tmp_path / "answers-1.jsonl", [request], settings)
    assert unanswered_requests(shards, run, llm, batch_answers(batch), TAXONOMY) == []
    require_answers(shards, run, llm, batch)


def test_a_build_with_answers_missing_says_how_many_and_what_to_do(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "**" / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    wanted = r"1 of 1 requests have no answer .*jsonl: none\): run `vividmed batch openi` again"
    with pytest.raises(EngineError, match=wanted):
        require_answers(*_build("spans", settings, store))

    (tmp_path / "round" / "one").mkdir(parents=True)
    cleaning = _missing("spans", settings, store)
    _answer(tmp_path / "round" / "one" / "answers-1.jsonl", cleaning, settings)
    with pytest.raises(EngineError, match=r"1 of 2 requests have no answer .*jsonl: 1\): run"):
        require_answers(*_build("spans", settings, store))
    assert store.list("rejects") == []


def test_what_vllm_failed_at_is_asked_again_and_holds_no_build_up(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    (request,) = _missing("joint", settings, store)
    error = {"error": {"message": "out of memory", "type": "InternalServerError"}}
    line = {"custom_id": custom_id(request, settings), "error": error}
    failed = line | {"response": {"status_code": 500, "body": None}}
    (tmp_path / "answers-1.jsonl").write_text(json.dumps(failed) + "\n")
    assert request in _missing("joint", settings, store)
    require_answers(*_build("joint", settings, store))

    _answer(tmp_path / "answers-2.jsonl", [request], settings)
    assert _missing("joint", settings, store) == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b[1].jsonl"]),
        ("b[1].jsonl", ["b[1].jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b[1].jsonl", "in/deep/c.jsonl"]),
        ("*/deep/?.jsonl", ["in/deep/c.jsonl"]),
        ("in/*", []),
        ("none-*.jsonl", []),
    ],
)
@pytest.mark.parametrize("absolute", [True, False])
def test_answers_may_be_anywhere_that_a_pattern_can_name(
    pattern: str, found: list[str], absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.jsonl", "b[1].jsonl", "in/deep/c.jsonl", "in/deep/notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    named = str(tmp_path / pattern) if absolute else pattern
    files = answer_files(BatchSettings(model="m", answers=named))
    assert [str(file.absolute().relative_to(tmp_path)) for file in files] == found


@pytest.mark.parametrize("pattern", ["", "batch/**.jsonl", "a**b/x.jsonl"])
def test_a_pattern_that_cannot_match_is_refused(pattern: str) -> None:
    llm = {"batch": {"model": "m", "answers": pattern}}
    with pytest.raises(SettingsError, match=r"llm\.batch\.answers"):
        make_settings({"dataset": "openi", "llm": llm})
