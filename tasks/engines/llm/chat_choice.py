"""The chat engine that the section `llm` describes; its library is imported when needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.engines.llm.chat.batch_file import BatchAnswers
from tasks.engines.llm.chat.engine import ChatEngine, ChatRequest
from tasks.engines.llm.chat.settings import BatchSettings
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.protocols import Fingerprint

if TYPE_CHECKING:
    from tasks.engines.llm.chat.timed import StartingEngine

_CHECK_WAIT_S = 30.0
"""Seconds that a check waits for a server; a run waits for as long as weights take to load."""


@cache
def metered_engine(settings: LlmSettings) -> ChatEngine:
    """The chat engine with its busy time counted, one per process; batch files give no times."""
    from tasks.engines.llm.chat.timed import MeteredEngine

    engine = chat_engine(settings)
    if isinstance(engine, BatchAnswers):
        return engine
    if settings.vllm is not None:
        return MeteredEngine(engine, settings.vllm.data_parallel_size)
    return MeteredEngine(engine, len(settings.server.base_urls) if settings.server else 1)


@cache
def chat_engine(settings: LlmSettings) -> StartingEngine | BatchAnswers:
    """The engine that runs the model, one per process, shared by all shards and runs."""
    if settings.vllm is not None:
        from tasks.engines.llm.chat.vllm_engine import VllmEngine

        return VllmEngine(settings.vllm)
    if settings.server is not None:
        from tasks.engines.llm.chat.openai_server import OpenAIServerEngine

        return OpenAIServerEngine(settings.server)
    if settings.batch is not None:
        return batch_answers(settings.batch)
    raise ValueError("validated settings have one of `server`, `vllm` and `batch`")


def chat_fingerprint(settings: LlmSettings) -> Fingerprint:
    """The fingerprint of `chat_engine`, without resolving an address or reading an API key."""
    from tasks.engines.llm.chat import openai_server, vllm_engine

    if settings.vllm is not None:
        return vllm_engine.VllmEngine(settings.vllm).fingerprint
    if settings.server is not None:
        identity = settings.server.identity()
        return {"name": "openai", "version": openai_server.VERSION, **identity}
    if settings.batch is not None:
        return BatchAnswers([], settings.batch).fingerprint
    raise ValueError("validated settings have one of `server`, `vllm` and `batch`")


def check_engine(settings: LlmSettings) -> str:
    """Whether the model can be asked now, in a sentence; vLLM that a run starts is not started.

    Raises:
        EngineError: if it cannot, with what to do.
    """
    from tasks.engines.llm.chat.openai_server import OpenAIServerEngine
    from tasks.engines.llm.chat.vllm_process import python_of

    if settings.server is not None:
        server = settings.server
        wait_s = min(server.server_wait_s, _CHECK_WAIT_S)
        engine = OpenAIServerEngine(server.model_copy(update={"server_wait_s": wait_s}))
        schema = None if settings.protocol == "inline" else {"type": "object"}
        engine.wait_until_up([ChatRequest((), 1, schema)])
        engine.close()
        return f"{server.model} is up at {' or '.join(server.base_urls)}"
    if settings.vllm is not None:
        return f"a run starts vLLM by {python_of(settings.vllm)}"
    files = len(answer_files(settings.batch)) if settings.batch else 0
    return f"{files or 'no'} files of answers so far"


def batch_answers(settings: BatchSettings) -> BatchAnswers:
    """The answers of the files that exist; none before the first round.

    Raises:
        EngineError: if a file cannot be read.
    """
    return BatchAnswers(answer_files(settings), settings)


def answer_files(settings: BatchSettings) -> list[Path]:
    """The files that `answers` names or matches, sorted; `**` stands for folders at any depth."""
    pattern = Path(settings.answers).expanduser()
    if pattern.is_file():
        return [pattern]
    root = Path(pattern.anchor)
    found = root.glob(str(pattern.relative_to(pattern.anchor)))
    return sorted(path for path in found if path.is_file())
