"""The settings of a chat engine: model, sampling parameters, and where the model runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

Seconds = Annotated[float, Field(gt=0)]

_LEFT_TO_THE_SERVER = "left to the server"
"""In a fingerprint: the parameter is not sent, since the server refuses to have it set."""

_SPEED_OPTIONS = frozenset(
    "api_server_count block_size cpu_offload_gb disable_custom_all_reduce disable_log_stats "
    "enable_chunked_prefill enable_log_requests enable_prefix_caching enforce_eager "
    "gpu_memory_utilization kv_cache_memory_bytes load_format max_log_len max_model_len "
    "max_num_batched_tokens max_num_queued_reqs max_num_queued_tokens max_num_seqs "
    "pipeline_parallel_size swap_space tensor_parallel_size uvicorn_log_level".split()
)
"""Options of vLLM that decide speed and memory alone; any other one is part of the identity."""

_OWN_OPTIONS = frozenset(
    "model revision tokenizer_revision served_model_name host port uds api_key seed dtype "
    "quantization max_model_len tensor_parallel_size data_parallel_size".split()
)
"""Options of vLLM that have a setting of their own, or that the managed server needs to decide."""


class Sampling(BaseModel):
    """The model and the sampling parameters, all sent with every request.

    Servers fill in missing parameters differently: vLLM from the model's `generation_config.json`,
    llama.cpp from its own defaults (temperature 0.8, random seed).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="the model's name, as the server lists it or vLLM loads it")
    revision: str | None = Field(
        default=None, description="the weights' revision; part of what identifies the answers"
    )
    temperature: float | None = Field(
        default=0.0, ge=0, description="0 always takes the likeliest token; null: not sent"
    )
    top_p: float | None = Field(default=1.0, gt=0, le=1, description="null: not sent")
    seed: int | None = Field(default=0, ge=0, description="null: not sent")
    thinking_tokens: int = Field(
        default=0, ge=0, description="added to every answer's bound, for a model that reasons first"
    )
    chat_template_kwargs: Mapping[str, Any] = Field(
        default={}, description="given to the chat template, such as {enable_thinking: false}"
    )

    def __hash__(self) -> int:
        return hash((type(self), self.model_dump_json()))  # mappings have no hash of their own

    def identity(self) -> dict[str, str]:
        """The part of an engine's fingerprint that these settings decide.

        What is not set leaves no trace, so that a new setting does not invalidate old answers.
        """
        identity = {
            "model": self.model,
            "revision": self.revision or "unstated",
            "temperature": _shown(self.temperature),
            "top_p": _shown(self.top_p),
            "seed": _shown(self.seed),
        }
        if self.thinking_tokens:
            identity["thinking_tokens"] = str(self.thinking_tokens)
        if self.chat_template_kwargs:
            identity["chat_template_kwargs"] = _as_json(self.chat_template_kwargs)
        return identity


def _shown(value: float | None) -> str:
    return (
        _LEFT_TO_THE_SERVER
        if value is None
        else str(value)
        if isinstance(value, int)
        else f"{value:g}"
    )


def _as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), sort_keys=True)


_PAGE_BEYOND = re.compile(r"/(chat/completions|completions|chat|models|health)/*$")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number or too large, half an IPv6 address
        return False
    is_plain = re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url) is not None
    return is_plain and bool(parts.hostname) and port_is_valid


class _Client(Sampling):
    """How requests are sent to a server, wherever it runs."""

    max_concurrency: int = Field(default=256, ge=1, description="requests in flight at one server")
    retries: int = Field(default=5, ge=0, description="further attempts at a request that fails")
    connect_timeout_s: Seconds = 5.0
    answer_timeout_s: Seconds = Field(
        default=600.0, description="for one answer, waiting in the server's queue included"
    )
    server_wait_s: Seconds = Field(
        default=900.0, description="how long to wait while no server is up: weights take minutes"
    )


class ServerSettings(_Client):
    """OpenAI-compatible servers that all serve the same model."""

    base_urls: tuple[str, ...] = Field(
        min_length=1, description="e.g. http://gpu-1:8000/v1; the least busy one gets a request"
    )
    api_key_variable: str | None = Field(
        default=None, description="environment variable that holds the API key"
    )
    allow_remote_endpoint: bool = Field(
        default=False, description="let reports leave this machine and its private network"
    )

    @field_validator("base_urls")
    @classmethod
    def _http_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _is_address(url):
                raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8000/v1")
            if beyond := _PAGE_BEYOND.search(url):
                raise ValueError(f"{url!r}: leave out {beyond[0].rstrip('/')}, which is added")
        return tuple(dict.fromkeys(url.rstrip("/") for url in urls))


class VllmSettings(_Client):
    """A vLLM server that a run starts, in vLLM's own environment, and ends.

    max_concurrency: of all copies of the model together.
    server_wait_s: for the start, too: it loads the weights and compiles.
    """

    python: Path | None = Field(
        default=None, description="Python of vLLM's environment; by default `make setup-vllm`'s"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    data_parallel_size: int = Field(
        default=1, ge=1, description="copies of the model, each on GPUs of its own"
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="tokens of prompt and answer; the model's own when not set"
    )
    dtype: str = "auto"
    quantization: str | None = None
    engine_options: Mapping[str, Any] = Field(
        default={}, description="further arguments of `vllm serve`, such as {max_num_seqs: 64}"
    )
    server_wait_s: Seconds = Field(default=1800.0, description="how long vLLM may take to start")

    @field_validator("engine_options")
    @classmethod
    def _named_as_arguments(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        named = {name.lstrip("-").replace("-", "_"): value for name, value in options.items()}
        for name in named:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"{name!r} is no argument of `vllm serve`, such as max_num_seqs")
            if name in _OWN_OPTIONS:
                own = name in cls.model_fields
                raise ValueError(
                    f"{name} is {'a setting of its own' if own else 'decided by the run'}: "
                    "leave it out here"
                )
        return named

    def identity(self) -> dict[str, str]:
        """What decides the answers; number formats are part of it, since they change logits."""
        deciding = {k: v for k, v in self.engine_options.items() if k not in _SPEED_OPTIONS}
        formats = {"dtype": self.dtype, "quantization": self.quantization or "none"}
        options = {"engine_options": _as_json(deciding)} if deciding else {}
        return super().identity() | formats | options

    def at(self, base_url: str) -> ServerSettings:
        """The settings of a client of this model at an address."""
        own = {name: getattr(self, name) for name in _Client.model_fields}
        return ServerSettings(base_urls=(base_url,), **own)


class BatchSettings(Sampling):
    """A model that answers batch files with `vllm run-batch`."""

    answers: str = Field(
        min_length=1,
        description="output files of run-batch: a path or a pattern, as batch/**/answers-*.jsonl",
    )
    system_role: bool = Field(
        default=True, description="false: the chat template has no system role, as Gemma's"
    )

    @field_validator("answers")
    @classmethod
    def _pattern(cls, pattern: str) -> str:
        if any("**" in part and part != "**" for part in Path(pattern).parts):
            raise ValueError("`**` must stand between slashes, as in batch/**/answers-*.jsonl")
        return pattern
