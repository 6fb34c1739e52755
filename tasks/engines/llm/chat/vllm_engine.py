"""The engine that runs vLLM as a child process and asks it as any other server."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from storage.digests import content_digests
from tasks.engines.llm.chat.engine import ChatRequest, Completion
from tasks.engines.llm.chat.openai_server import SHARDS_PER_SERVER, OpenAIServerEngine
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.llm.chat.vllm_process import VllmProcess
from tasks.engines.protocols import Failure, Fingerprint

VERSION = "2"


class VllmEngine:
    """Completes chats with a vLLM server that the first request starts, one for all shards.

    A server that ends by itself ends the run, with the path of its log. It is not started again:
    what made it end (memory, a driver) would do so again, and the same command goes on from there.
    """

    def __init__(self, settings: VllmSettings) -> None:
        self._settings = settings
        self._starting = threading.Lock()
        self._running: tuple[VllmProcess, OpenAIServerEngine] | None = None

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision, number formats, sampling, and options that are not about speed.

        Of a model in a local folder its content, too.
        """
        identity = {"name": "vllm", "version": VERSION, **self._settings.identity()}
        return {**identity, **_local_weights(self._settings.model)}

    @property
    def concurrency(self) -> int | None:
        """Shards of one stage that may wait for it at once."""
        return SHARDS_PER_SERVER * self._settings.data_parallel_size

    def wait_until_up(self, requests: Sequence[ChatRequest]) -> None:
        """Return once the server can take requests like these; starts it if need be.

        Raises:
            EngineError: if vLLM is not set up, ends, or does not start in time.
            RunCancelledError: if the run was cancelled.
        """
        if requests:
            self._client().wait_until_up(requests)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Completion | Failure]:
        """One answer per request, order kept; failures are those of `OpenAIServerEngine`.

        Raises:
            EngineError: if vLLM is not set up, ends, or does not start in time.
            RunCancelledError: if the run was cancelled.
        """
        return self._client().complete(requests) if requests else []

    def close(self) -> None:
        """End the server; a later `complete` starts another one."""
        with self._starting:
            if self._running:
                process, client = self._running
                self._running = None
                client.close()
                process.stop()

    def _client(self) -> OpenAIServerEngine:
        with self._starting:
            if self._running is None:
                process = VllmProcess(self._settings)
                client = OpenAIServerEngine(self._settings.at(process.base_url), process.why_ended)
                self._running = process, client
            return self._running[1]


@cache
def _local_weights(model: str) -> Fingerprint:
    """The digest of a model in a folder, which may be trained further under the same name.

    Once per process, which loads the model once. Empty for a name that vLLM downloads.
    """
    folder = Path(model)
    return {"weights": content_digests([folder])[folder]} if folder.is_dir() else {}
