"""The chat engine that the section `llm` describes; its library is imported when it is chosen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tasks.engines.llm.chat.batch_file import BatchAnswers
from tasks.engines.llm.chat.engine import ChatEngine
from tasks.engines.llm.chat.settings import BatchSettings
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.protocols import Fingerprint


@cache
def metered_engine(settings: LlmSettings) -> ChatEngine:
    """The chat engine with a clock, one per process; batch files take no time that we see."""
    from tasks.engines.llm.chat.timed import MeteredEngine

    if settings.batch is not None:
        return chat_engine(settings)
    servers = len(settings.server.base_urls) if settings.server else 1
    return MeteredEngine(chat_engine(settings), servers)


@cache
def chat_engine(settings: LlmSettings) -> ChatEngine:
    """The engine that holds the model, one per process: it is shared by all shards and runs."""
    if settings.vllm is not None:
        from tasks.engines.llm.chat.vllm_engine import VllmEngine

        return VllmEngine(settings.vllm)
    if settings.server is not None:
        from tasks.engines.llm.chat.openai_server import OpenAIServerEngine

        return OpenAIServerEngine(settings.server)
    if settings.batch is not None:
        return batch_answers(settings.batch)
    raise ValueError("settings that were checked name a place where the model runs")


def chat_fingerprint(settings: LlmSettings) -> Fingerprint:
    """That of `chat_engine`, without an engine: no address is looked up and no key is read."""
    from tasks.engines.llm.chat import openai_server, vllm_engine

    if settings.vllm is not None:
        return vllm_engine.VllmEngine(settings.vllm).fingerprint
    if settings.server is not None:
        identity = settings.server.identity()
        return {"name": "openai", "version": openai_server.VERSION, **identity}
    if settings.batch is not None:
        return BatchAnswers([], settings.batch).fingerprint
    raise ValueError("settings that were checked name a place where the model runs")


def batch_answers(settings: BatchSettings) -> BatchAnswers:
    """The answers that there are; none before the first round.

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
