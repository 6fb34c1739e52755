"""The section `llm` of a configuration: where the model runs, and by which protocol."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.engines.llm.chat.settings import BatchSettings, ServerSettings, VllmSettings

ProtocolName = Literal["spans", "joint", "inline", "cascade"]
"""`spans`, the default; `joint`, all steps in one request; `inline`, the paper's procedure;
`cascade`, `spans` with rules that decide the clear cases of the filter step."""


OnFailure = Literal["rules", "reject"]
"""What becomes of a sentence without a usable answer: the embedded step does it, or its report is
rejected."""


class LlmSettings(BaseModel):
    """A language model for the text steps: where it runs, and its protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: ProtocolName = "spans"
    on_failure: OnFailure = Field(
        default="rules",
        description="a sentence that the model failed at: `rules`, by the embedded step, or "
        "`reject` its report; counted either way. One sentence in hundreds should not cost a "
        "report, and the rules' share is in the counts (`units_by_rules`)",
    )
    server: ServerSettings | None = Field(default=None, description="OpenAI-compatible servers")
    vllm: VllmSettings | None = Field(default=None, description="vLLM, started by the run")
    batch: BatchSettings | None = Field(default=None, description="batch files of vLLM")

    @model_validator(mode="after")
    def _one_backend(self) -> Self:
        if sum(backend is not None for backend in (self.server, self.vllm, self.batch)) != 1:
            raise ValueError("give one of `server`, `vllm` and `batch`: where the model runs")
        return self
