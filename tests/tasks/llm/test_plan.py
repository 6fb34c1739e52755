"""The plan of a run: the same figures as the run that follows it."""

from pathlib import Path

import pytest

from storage.store import Store
from tasks.engines import CleanedText, Phrase
from tasks.llm.answers import Memories, RememberingEngine
from tasks.llm.plan import Plan, StepPlan, Throughput, plan_run
from tasks.llm.protocols import text_engines
from tasks.llm.tokens import approximate_tokens, request_tokens
from tasks.usage import metered
from taxonomy.targets import load_taxonomy
from tests.tasks.llm.scripted import NAME, rehearsing

TAXONOMY = load_taxonomy()


def plan(texts: list[str], protocol: str, store: Store) -> Plan:
    return plan_run(texts, protocol, NAME, store, TAXONOMY, "openi", approximate_tokens)


@pytest.mark.parametrize("protocol", ["spans", "joint", "inline", "cascade"])
def test_a_plan_tells_what_the_run_then_does(
    tmp_path: Path, even_texts: list[str], protocol: str
) -> None:
    texts, store = even_texts[::40], Store(str(tmp_path))
    planned = plan(texts, protocol, store)
    assert store.list("answers") == []
    assert planned.total.requests == sum(step.requests for step in planned.steps) > 0

    memories = Memories(store)
    chat = rehearsing()
    engines = text_engines(protocol, RememberingEngine(chat, memories), memories, TAXONOMY, "openi")
    with metered() as usage:
        cleaned = engines.cleaner.clean(texts)
        kept = [c.text for c in cleaned if isinstance(c, CleanedText) and c.text]
        phrases = [
            [p for p in own if isinstance(p, Phrase)] for own in engines.extractor.extract(kept)
        ]
        engines.filter.classify(kept, phrases)
    for name in ("requests", "tokens_in", "tokens_out", "units_asked"):
        assert getattr(planned.total, name) == usage[name]
    assert len(chat.asked) == planned.total.requests

    again = plan(texts, protocol, store).total
    assert (again.requests, again.units_asked, again.tokens_out) == (0, 0, 0)
    assert plan([*texts, "A new nodule is seen."], protocol, store).total.units_asked > 0


def test_the_shared_beginning_of_a_request_is_all_but_its_last_message() -> None:
    chat = rehearsing()
    engines = text_engines("spans", chat, Memories(Store("/nowhere"), writes=False), TAXONOMY, "x")
    request = engines.extractor.step.request([])
    total, shared = request_tokens(request, approximate_tokens)
    assert total - shared == 2 * 5 + approximate_tokens(request.messages[-1].content)


def test_gpu_hours_are_reading_and_writing_time() -> None:
    step = StepPlan("clean", 9, 0, 9, 2, 0, 7_200_000, 3_600_000, 360_000)
    plan = Plan("spans", 9, (step, step))
    speed = Throughput(tokens_in_per_second=2000, tokens_out_per_second=200)
    assert plan.gpu_hours(speed) == pytest.approx(2 * (0.5 + 0.5))
    assert plan.gpu_hours(speed, prefix_caching=False) == pytest.approx(2 * (1 + 0.5))


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("No effusion.", 4), ("cardiomediastinal", 3), ("123456", 2)]
)
def test_the_approximation_of_tokens(text: str, tokens: int) -> None:
    assert approximate_tokens(text) == tokens
