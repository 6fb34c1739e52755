"""vLLM's batch files, for clusters on which no server can run.

    requests.jsonl  ->  vllm run-batch -i requests.jsonl -o answers.jsonl --model …  ->  answers

`run-batch` truncates its output file and cannot resume, and its last line may be incomplete if it
was killed. So a request is identified by its content, not its line: its `custom_id` is a digest of
model, sampling and request. A later round contains only the requests without an answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from tasks.engines.llm.chat.dialect import without_system_role
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, count_usage
from tasks.engines.llm.chat.errors import read_error
from tasks.engines.llm.chat.settings import BatchSettings, Sampling
from tasks.engines.llm.chat.wire import BadAnswerError, chat_body, read_answer
from tasks.engines.llm.digest import digest
from tasks.engines.protocols import Failure, Fingerprint

VERSION = "1"


class _Line(NamedTuple):
    path: Path
    offset: int
    answered: bool


def write_requests(path: Path, requests: Iterable[ChatRequest], sampling: Sampling) -> int:
    """Write the input of `vllm run-batch`, equal requests once; only their ids are held in memory.

    Args:
        path: the file to write; it appears when it is complete, and its folder is created.
        requests: the conversations.
        sampling: model and sampling parameters; the model must be the one that vLLM serves.

    Returns:
        the number of requests written.

    Raises:
        EngineError: if the file cannot be written.
    """
    written: set[str] = set()
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            for request in requests:
                key = custom_id(request, sampling)
                if key not in written:
                    written.add(key)
                    line = _line(key, request, sampling)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise EngineError(
            f"The batch file {path} cannot be written ({error.strerror}): name another one."
        ) from error
    return len(written)


def custom_id(request: ChatRequest, sampling: Sampling) -> str:
    """The id of a request in a batch file, decided by model, sampling and request."""
    return digest(sampling.identity(), asdict(_as_sent(request, sampling)))


class BatchAnswers:
    """A chat engine that answers from the output files of `vllm run-batch`.

    Where several lines answer one request, a completion is preferred to a failure, then the first.

    usage: totals over all lines: `requests`, `tokens_in`, `tokens_out`; and `damaged_lines`, which
        could not be read, such as the last one of a run that was killed.
    """

    concurrency: int | None = None  # answers are read from files, on this machine's CPU

    def __init__(self, paths: Sequence[Path], sampling: Sampling) -> None:
        """Index the files; only ids and offsets are held in memory.

        Raises:
            EngineError: if a file cannot be read.
        """
        self._sampling = sampling
        self._index: dict[str, _Line] = {}
        self.usage = Counter[str]()
        for path in paths:
            try:
                self._add(path)
            except OSError as error:
                raise EngineError(
                    f"The batch answers {path} cannot be read ({error.strerror}): "
                    "name the file that `vllm run-batch -o` wrote."
                ) from error

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision and sampling, as the requests were written."""
        return {"name": "vllm-batch", "version": VERSION, **self._sampling.identity()}

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; `not_in_batch` where the files hold none.

        Seconds are 0: a batch file does not contain them.
        """
        answers = [self._look_up(custom_id(request, self._sampling)) for request in requests]
        count_usage(answers)
        return answers

    def _add(self, path: Path) -> None:
        for offset, line in _lines(path):
            read = _read_line(line)
            if read is None:
                self.usage["damaged_lines"] += 1
                continue
            key, answer = read
            self.usage["requests"] += 1
            if isinstance(answer, Completion):
                self.usage.update(tokens_in=answer.tokens_in, tokens_out=answer.tokens_out)
            entry = _Line(path, offset, isinstance(answer, Completion))
            earlier = self._index.get(key)
            if earlier is None or (entry.answered and not earlier.answered):
                self._index[key] = entry

    def _look_up(self, key: str) -> Completion | Failure:
        if entry := self._index.get(key):
            with entry.path.open("rb") as file:
                file.seek(entry.offset)
                if read := _read_line(file.readline()):
                    return read[1]
        return Failure(
            "not_in_batch",
            "The batch answers do not hold this request: run `vividmed batch` again.",
        )


def _line(key: str, request: ChatRequest, sampling: Sampling) -> dict[str, Any]:
    body = chat_body(_as_sent(request, sampling), sampling, "json_schema")
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _as_sent(request: ChatRequest, sampling: Sampling) -> ChatRequest:
    """The request in the roles that the model's chat template has."""
    if not isinstance(sampling, BatchSettings) or sampling.system_role:
        return request
    return replace(request, messages=without_system_role(request.messages))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield offset, line
            offset += len(line)


def _read_line(line: bytes) -> tuple[str, Completion | Failure] | None:
    try:
        record = json.loads(line)
        key, response = record["custom_id"], record.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(key, str):
        return None
    if body is None or record.get("error") is not None:
        said = json.dumps(record.get("error") or "no answer")
        error = read_error(status if isinstance(status, int) else 500, said.encode())
        return key, Failure(error.reason, f"vLLM answers {error.status} {error.message}.")
    try:
        return key, read_answer(body, seconds=0.0)
    except BadAnswerError as error:
        return key, Failure("bad_answer", f"{error}.")
