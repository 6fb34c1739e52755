"""Batch files, round after round, until nothing is left to ask."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage.store import Store
from tasks.engines import CleanedText
from tasks.llm.answers import Memories
from tasks.llm.batch_file import write_requests
from tasks.llm.batching import batch_answers, unanswered_requests
from tasks.llm.chat import ChatRequest, Completion
from tasks.llm.protocols import ProtocolName, text_engines
from tasks.llm.rehearsal import RehearsalEngine
from tasks.llm.settings import BatchSettings
from tasks.llm.tokens import approximate_tokens
from taxonomy.targets import load_taxonomy

TEXTS = [
    "The heart is mildly enlarged. Small right pleural effusion, unchanged.",
    "No pneumothorax. Possible atelectasis in the left base.",
]
TAXONOMY = load_taxonomy()


def _answer(path: Path, requests: Sequence[ChatRequest], settings: BatchSettings) -> None:
    """Answer a batch file in the form that `vllm run-batch` writes, by the embedded engines."""
    inputs = path.with_name(path.name.replace("answers", "requests"))
    write_requests(inputs, requests, settings)
    ids = [json.loads(line)["custom_id"] for line in inputs.read_text().splitlines()]
    rehearsal = RehearsalEngine(TAXONOMY, "openi", approximate_tokens, {"name": "m", "version": ""})
    unique = list({json.dumps(str(request)): request for request in requests}.values())
    lines = []
    for key, completion in zip(ids, rehearsal.complete(unique), strict=True):
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
    while missing := unanswered_requests(TEXTS, protocol, settings, store, TAXONOMY, "openi"):
        rounds += 1
        assert rounds <= most_rounds
        _answer(tmp_path / f"answers-{rounds}.jsonl", missing, settings)
    assert rounds > 0

    # A build packs by shard: other sentences share a request, and other texts are not there.
    chat = batch_answers(settings)
    engines = text_engines(protocol, chat, Memories(store), TAXONOMY, "openi")
    cleaned = [text for one in reversed(TEXTS) for text in engines.cleaner.clean([one])][::-1]
    assert all(isinstance(text, CleanedText) for text in cleaned)
    texts = [text.text for text in cleaned if isinstance(text, CleanedText)]
    assert "unchanged" not in texts[0]
    targets = {p.target for found in engines.extractor.extract(texts) for p in found}  # type: ignore[union-attr]
    assert targets >= {"cardiomegaly", "pleural effusion", "pneumothorax", "atelectasis"}


def test_a_damaged_answer_file_only_means_asking_again(tmp_path: Path) -> None:
    settings = BatchSettings(model="m", answers=str(tmp_path / "answers-*.jsonl"))
    store = Store(str(tmp_path / "store"))
    first = unanswered_requests(TEXTS, "joint", settings, store, TAXONOMY, "openi")
    (tmp_path / "answers-1.jsonl").write_text('{"custom_id": "torn')
    again = unanswered_requests(TEXTS, "joint", settings, store, TAXONOMY, "openi")
    assert again == first
