"""The settings of a chat engine: model, sampling parameters, and where the model runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

Seconds = Annotated[float, Field(gt=0)]


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
    temperature: float = Field(default=0.0, ge=0, description="0 always takes the likeliest token")
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)

    def identity(self) -> dict[str, str]:
        """The part of an engine's fingerprint that these settings decide."""
        return {
            "model": self.model,
            "revision": self.revision or "unstated",
            "temperature": f"{self.temperature:g}",
            "top_p": f"{self.top_p:g}",
            "seed": str(self.seed),
        }


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number or too large, half an IPv6 address
        return False
    is_plain = re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", url) is not None
    return is_plain and bool(parts.hostname) and port_is_valid


class ServerSettings(Sampling):
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
    max_concurrency: int = Field(default=256, ge=1, description="requests in flight at one server")
    retries: int = Field(default=5, ge=0, description="further attempts at a request that fails")
    connect_timeout_s: Seconds = 5.0
    answer_timeout_s: Seconds = Field(
        default=600.0, description="for one answer, waiting in the server's queue included"
    )
    server_wait_s: Seconds = Field(
        default=900.0, description="how long to wait while no server is up: weights take minutes"
    )

    @field_validator("base_urls")
    @classmethod
    def _http_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not _is_address(url):
                raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8000/v1")
        return tuple(dict.fromkeys(url.rstrip("/") for url in urls))


class VllmSettings(Sampling):
    """A model that vLLM loads into this process."""

    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    max_model_len: int | None = Field(
        default=None, ge=1, description="tokens of prompt and answer; the model's own when not set"
    )
    gpu_memory_utilization: float = Field(default=0.92, gt=0, le=1)
    dtype: str = "auto"
    quantization: str | None = None

    def identity(self) -> dict[str, str]:
        """What decides the answers; number formats are part of it, since they change logits."""
        formats = {"dtype": self.dtype, "quantization": self.quantization or "none"}
        return super().identity() | formats


class BatchSettings(Sampling):
    """A model that answers batch files with `vllm run-batch`."""

    answers: str = Field(
        min_length=1,
        description="output files of run-batch: a path or a pattern, as batch/**/answers-*.jsonl",
    )

    @field_validator("answers")
    @classmethod
    def _pattern(cls, pattern: str) -> str:
        if any("**" in part and part != "**" for part in Path(pattern).parts):
            raise ValueError("`**` must stand between slashes, as in batch/**/answers-*.jsonl")
        return pattern
