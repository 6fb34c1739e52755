"""The engine that runs vLLM in this process.

`LLM.chat` answers a whole batch at once, but one prompt that is too long makes it abort the batch.
So prompts are measured first, with the model's own tokenizer and chat template, and those that
leave no space for an answer fail. With prefix caching the instructions, which all prompts of a step
share, are prefilled once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from storage.digests import content_digests
from tasks.engines.llm.chat.engine import ChatRequest, Completion, EngineError, count_usage
from tasks.engines.llm.chat.outage import without_report
from tasks.engines.llm.chat.settings import VllmSettings
from tasks.engines.protocols import Failure, Fingerprint

VERSION = "1"

Answer = Completion | Failure

_MODEL_LOCK = threading.Lock()


class VllmEngine:
    """Completes chats with a model that is loaded once per process and shared by all shards."""

    def __init__(self, settings: VllmSettings) -> None:
        self._settings = settings

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, revision, number formats and sampling; of a local folder its content, too."""
        identity = {"name": "vllm", "version": VERSION, **self._settings.identity()}
        return {**identity, **_local_weights(self._settings.model)}

    @property
    def concurrency(self) -> int:
        """One shard whose batch runs, and one whose requests are prepared meanwhile."""
        return 2

    def complete(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """One answer per request, order kept; the first call loads the model.

        Failures are `prompt_too_long`, `request_refused` (a schema that vLLM cannot compile) and
        `server_error` (vLLM aborted the answer).

        Raises:
            EngineError: if vLLM is not installed, or rejects the requests of a step whatever the
                report.
        """
        if not requests:
            return []
        with _MODEL_LOCK:
            model = _load(self._settings)
            answers = complete_in_batches(
                requests, model.prompt_tokens, model.max_tokens, model.chat
            )
        count_usage(answers)
        return answers


@cache
def _local_weights(model: str) -> Fingerprint:
    """The digest of a model in a folder, which may be trained further under the same name.

    Once per process, which loads the model once. Empty for a name that vLLM downloads.
    """
    folder = Path(model)
    return {"weights": content_digests([folder])[folder]} if folder.is_dir() else {}


class RefusedBatchError(Exception):
    """vLLM refuses a whole batch because of one of its requests."""


def complete_in_batches(
    requests: Sequence[ChatRequest],
    prompt_tokens: Callable[[ChatRequest], int],
    max_tokens: int,
    chat: Callable[[Sequence[ChatRequest]], Sequence[Answer]],
) -> list[Answer]:
    """Answer the requests that fit the model, in as few batches as possible; order kept.

    Args:
        requests: the conversations.
        prompt_tokens: the length of a prompt as the model will see it.
        max_tokens: the model's context length, prompt and answer together.
        chat: answers a batch, or raises RefusedBatchError for the whole of it.

    Raises:
        EngineError: if a request would be too long or refused even without a report.
    """
    answers: dict[int, Answer] = {}
    for index, request in enumerate(requests):
        tokens = prompt_tokens(request)
        if tokens + request.max_tokens > max_tokens:
            empty = without_report(request)
            if (least := prompt_tokens(empty) + empty.max_tokens) > max_tokens:
                raise EngineError(
                    f"The model takes {max_tokens:,} tokens, and the instructions with a short "
                    f"answer need {least:,}: raise `max_model_len`, or choose a model that takes "
                    "more; what was answered so far is kept."
                )
            answers[index] = Failure(
                "prompt_too_long",
                f"The prompt has {tokens} tokens and the answer may have {request.max_tokens}; "
                f"the model takes {max_tokens} together.",
            )
    fitting = [index for index in range(len(requests)) if index not in answers]
    found = _chat_around_refusals([requests[index] for index in fitting], chat)
    answers.update(zip(fitting, found, strict=True))
    return [answers[index] for index in range(len(requests))]


def _chat_around_refusals(
    requests: Sequence[ChatRequest], chat: Callable[[Sequence[ChatRequest]], Sequence[Answer]]
) -> Iterator[Answer]:
    """Halve a refused batch until each offending request is alone."""
    if not requests:
        return
    try:
        yield from chat(requests)
    except RefusedBatchError as error:
        if len(requests) == 1:
            _require_chat(without_report(requests[0]), chat)
            yield Failure("request_refused", f"vLLM refuses the request: {error}")
            return
        middle = len(requests) // 2
        yield from _chat_around_refusals(requests[:middle], chat)
        yield from _chat_around_refusals(requests[middle:], chat)


def _require_chat(
    empty: ChatRequest, chat: Callable[[Sequence[ChatRequest]], Sequence[Answer]]
) -> None:
    try:
        chat([empty])
    except RefusedBatchError as error:
        raise EngineError(
            f"vLLM refuses every request of this kind, even without a report ({error}): "
            "what was answered so far is kept."
        ) from error


class _Model:
    """A loaded model, in the terms of chat requests."""

    def __init__(self, settings: VllmSettings) -> None:
        from vllm import LLM

        self._settings = settings
        self._llm = LLM(
            model=settings.model,
            revision=settings.revision,
            tokenizer_revision=settings.revision,
            tensor_parallel_size=settings.tensor_parallel_size,
            max_model_len=settings.max_model_len,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            dtype=settings.dtype,
            quantization=settings.quantization,
            seed=settings.seed,
            enable_prefix_caching=True,
            disable_log_stats=False,  # without statistics an output has no times
        )
        self._tokenizer = self._llm.get_tokenizer()
        self.max_tokens: int = self._llm.model_config.max_model_len

    def prompt_tokens(self, request: ChatRequest) -> int:
        """The length of the prompt under the model's chat template."""
        messages = [message._asdict() for message in request.messages]
        prompt = self._tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return len(prompt)

    def chat(self, requests: Sequence[ChatRequest]) -> list[Answer]:
        """Answer a batch of prompts that fit."""
        from vllm.exceptions import VLLMValidationError

        try:
            outputs = self._llm.chat(
                messages=[[m._asdict() for m in request.messages] for request in requests],
                sampling_params=[self._sampling(request) for request in requests],
                use_tqdm=False,
            )
        except (VLLMValidationError, ValueError) as error:
            raise RefusedBatchError(str(error)) from error
        return [read_output(output) for output in outputs]

    def _sampling(self, request: ChatRequest) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        schema = request.schema
        return SamplingParams(
            n=1,
            max_tokens=request.max_tokens,
            temperature=self._settings.temperature,
            top_p=self._settings.top_p,
            seed=self._settings.seed,
            structured_outputs=StructuredOutputsParams(json=dict(schema)) if schema else None,
        )


def read_output(output: Any) -> Answer:
    """An answer out of a vLLM `RequestOutput`."""
    made = output.outputs[0]
    if made.finish_reason in {"abort", "error"}:
        return Failure("server_error", f"vLLM aborted the answer ({made.finish_reason}).")
    times = output.metrics
    return Completion(
        text=made.text,
        finish_reason=made.finish_reason,
        tokens_in=len(output.prompt_token_ids),
        tokens_out=len(made.token_ids),
        seconds=times.last_token_ts - times.queued_ts,
    )


@cache
def _load(settings: VllmSettings) -> _Model:
    try:
        return _Model(settings)
    except ImportError as error:
        raise EngineError(
            f"The engine `vllm` needs vLLM in this environment ({error}): install it with "
            "`pip install 'vllm>=0.20'` on a machine with a GPU, or choose the engine `openai` "
            "for a server elsewhere."
        ) from error
