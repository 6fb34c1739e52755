"""The plan of a run: the same figures as the run that follows it.

`tests/flows/test_model_usage.py` compares it with the summary of a real run.
"""

from collections import Counter

import pytest

from storage.shards import table_from_rows
from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.chat.tokens import approximate_tokens, request_tokens, token_counter
from tasks.engines.llm.chat_choice import chat_fingerprint
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.protocols.spans import SpansExtractor
from tasks.pipeline.engine_choice import text_engines_for_chat
from tasks.pipeline.request_plan import Throughput, plan_run, usage_of_steps
from tasks.pipeline.settings import BuildSettings, make_settings
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import dry_run_engine

TAXONOMY = load_taxonomy()


def settings(store: object, protocol: str, **more: object) -> BuildSettings:
    llm = {"protocol": protocol, "vllm": {"model": "m"}}
    chosen = {"cleaner": "llm", "extractor": "llm", "filter": "llm", "llm": llm}
    return make_settings({"dataset": "openi", "store": str(store)} | chosen | more)


def plan(shards, of_run: BuildSettings) -> dict[str, Counter[str]]:
    assert of_run.llm is not None
    return plan_run(shards, of_run, of_run.llm, TAXONOMY, approximate_tokens)


@pytest.mark.parametrize("protocol", ["spans", "joint", "inline", "cascade"])
def test_a_plan_tells_what_the_run_then_does(tmp_path, even_studies, protocol: str) -> None:
    shards = [even_studies.slice(0, 20), even_studies.slice(20, 20)]
    run = settings(tmp_path, protocol)
    planned = plan(shards, run)
    assert not list(tmp_path.iterdir())
    assert planned["clean"]["requests"] > 0

    caches = ResponseCaches(Store(str(tmp_path)))
    chat = dry_run_engine()
    assert run.llm is not None
    chat.fingerprint = chat_fingerprint(run.llm)
    cached = CachedEngine(chat, caches)
    engines = text_engines_for_chat(cached, caches, run, run.llm, TAXONOMY)
    assert usage_of_steps(shards, engines, run, TAXONOMY) == planned
    assert len(chat.asked) == sum(step["requests"] for step in planned.values())

    again = plan(shards, run)
    for nothing in ("requests", "units_asked", "tokens_out"):
        assert sum(step[nothing] for step in again.values()) == 0
    new = {"dataset": "openi", "split": "train", "study_id": "new", "source": "authored"}
    new |= {"findings": "A new nodule is seen.", "impression": "Nodule."}
    assert plan([table_from_rows("studies", [new])], run)["clean"]["units_asked"] > 0


def test_a_plan_follows_the_sections_that_a_report_must_have(tmp_path, even_studies) -> None:
    half = even_studies.slice(0, 60)
    both = plan([half], settings(tmp_path, "spans"))
    one = plan([half], settings(tmp_path, "spans", require_sections="any"))
    assert both["clean"] == one["clean"]
    for step in ("extract", "filter"):
        assert both[step]["units"] < one[step]["units"]


def test_the_shared_beginning_of_a_request_is_all_but_its_last_message() -> None:
    chat = dry_run_engine()
    engines = text_engines(
        "spans", chat, ResponseCaches(Store("/nowhere"), writes=False), TAXONOMY, "x"
    )
    assert isinstance(engines.extractor, SpansExtractor)
    request = engines.extractor.step.request([])
    total, shared = request_tokens(request, approximate_tokens)
    assert total - shared == 2 * 5 + approximate_tokens(request.messages[-1].content)


@pytest.mark.parametrize("content", [None, "{}", "no tokenizer"])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path, content: str | None) -> None:
    pytest.importorskip("tokenizers")
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(EngineError, match=r"tokenizer\.json cannot be read \("):
        token_counter(file)


def test_gpu_time_is_reading_and_writing_time() -> None:
    usage = Counter(tokens_in=7_200_000, tokens_shared=3_600_000, tokens_out=360_000)
    speed = Throughput(tokens_in_per_second=2000, tokens_out_per_second=200)
    assert speed.seconds(usage) == pytest.approx(3600)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("No effusion.", 4), ("cardiomediastinal", 3), ("123456", 2)]
)
def test_the_approximation_of_tokens(text: str, tokens: int) -> None:
    assert approximate_tokens(text) == tokens
