"""Usage of the model, as a run's manifests have it: the figures of the plan."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import pytest
from rich.console import Console

from flows.cli.tables import duration, print_summaries
from storage.datasets.registry import find_declaration
from storage.manifests import read_manifests, write_manifest
from storage.store import Store
from tasks.engines.llm.chat.engine import ChatRequest, Message
from tasks.engines.llm.chat.tokens import approximate_tokens
from tasks.engines.llm.chat_choice import chat_engine, chat_fingerprint
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from tasks.ingest import ingest_studies
from tasks.pipeline.parts import PartRecords
from tasks.pipeline.request_plan import plan_run
from tasks.pipeline.run_summary import stored_summaries
from tasks.pipeline.runner import ShardResult, run_stage
from tasks.pipeline.settings import BuildSettings, make_settings
from tasks.pipeline.stages import pipeline
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()
DELAY_S = 0.05
_PLANNED = "units units_asked units_cached requests cache_hits tokens_in tokens_out".split()
REPORTS = 20


class DryRunServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers as the embedded engines would, each after 50 ms."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dry_run = DryRunEngine(TAXONOMY, "openi", approximate_tokens, {"name": "m"})
        self.answered: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: DryRunServer

    def do_GET(self) -> None:
        self._reply({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        schema = body["response_format"]["json_schema"]["schema"]
        if "answer" in schema["properties"]:  # the capability check's probe
            self._reply(
                _completion(json.dumps({"answer": schema["properties"]["answer"]["enum"][0]}))
            )
            return
        time.sleep(DELAY_S)
        messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
        [answer] = self.server.dry_run.complete([ChatRequest(messages, body["max_tokens"])])
        self.server.answered.update(tokens_in=answer.tokens_in, tokens_out=answer.tokens_out)
        self.server.answered["requests"] += 1
        self._reply(_completion(answer.text, answer.tokens_in, answer.tokens_out))

    def _reply(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


def _completion(text: str, tokens_in: int = 1, tokens_out: int = 1) -> dict[str, object]:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    return {"choices": [choice], "usage": usage}


@pytest.fixture
def server():
    with DryRunServer() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def openi_reader(real_input):
    return find_declaration("openi").open(real_input("openi/NLMCXR_reports.tgz").parent)


def _settings(url: str, store: str, protocol: str = "spans", **more: object) -> BuildSettings:
    place = {"model": "m", "base_urls": [url]}
    chosen = {"cleaner": "llm", "extractor": "llm", "filter": "llm"}
    llm = {"protocol": protocol, "server": place}
    given = {"dataset": "openi", "store": store, "limit": REPORTS, "llm": llm}
    return make_settings(chosen | given | more)


def _shards(settings: BuildSettings, reader):
    parts = PartRecords("openi", islice(reader.records(), REPORTS), settings.shard_size or REPORTS)
    return [ingest_studies(part, reader, own).rows for part, own in parts.items()]


def _planned(shards, settings: BuildSettings) -> dict[str, Counter[str]]:
    assert settings.llm is not None
    return plan_run(shards, settings, settings.llm, TAXONOMY, approximate_tokens)


def _build(settings: BuildSettings) -> None:
    """The text stages of a run, part by part, without an orchestrator."""
    run = pipeline(settings)
    for part in run.parts:
        done: dict[str, ShardResult] = {}
        for name in ("ingest", "clean", "extract", "filter"):
            done[name] = run_stage(run.store, run.stages[name], part, done)


@pytest.mark.parametrize(
    ("protocol", "require"),
    [("spans", "both"), ("spans", "any"), ("joint", "both"), ("cascade", "both")],
)
def test_the_summary_of_a_run_has_the_figures_of_the_plan(
    server, tmp_path, openi_reader, protocol, require
) -> None:
    settings = _settings(
        server.url, str(tmp_path), protocol, require_sections=require, shard_size=8
    )
    shards = _shards(settings, openi_reader)
    planned = _planned(shards, settings)
    assert server.answered == {}
    assert not list(tmp_path.iterdir())

    _build(settings)
    [summary] = stored_summaries(Store(str(tmp_path)), "openi")
    measured = {stage.stage: stage.usage for stage in summary.stages}
    for step, usage in planned.items():
        distinct = measured[step]["units_asked"] + measured[step]["units_cached"]
        assert measured[step]["units_answered"] == distinct
        for name in _PLANNED:
            assert usage[name] == measured[step][name], (step, name)
    assert sum(usage["requests"] for usage in planned.values()) == server.answered["requests"] > 3


def test_latency_and_gpu_time_are_measured_and_shown(server, tmp_path, openi_reader) -> None:
    settings = _settings(server.url, str(tmp_path))
    _build(settings)
    [summary] = stored_summaries(Store(str(tmp_path)), "openi")
    clean = next(stage for stage in summary.stages if stage.stage == "clean")
    seen = clean.as_json()
    assert DELAY_S / 1.13 <= seen["latency_median_s"] <= seen["latency_95_percent_s"] < 2
    assert clean.usage["latency_ms"] >= 1000 * DELAY_S * clean.usage["requests"]
    # All requests are under way at once: the model is at work for one of them at least, and for
    # no longer than the stage took.
    assert DELAY_S <= seen["gpu_s"] <= clean.seconds

    shown = _printed(summary)
    assert "latency, median" in shown
    assert duration(seen["gpu_s"]) in shown
    assert "latency_le" not in shown

    # What is cached takes no time of the model.
    before = server.answered["requests"]
    _build(_settings(server.url, str(tmp_path), positive=("present", "possible")))
    assert server.answered["requests"] == before


def test_a_manifest_from_before_times_were_kept_is_still_read(
    server, tmp_path, openi_reader
) -> None:
    _build(_settings(server.url, str(tmp_path)))
    store = Store(str(tmp_path))
    for manifest in read_manifests(store, "openi"):
        old = {k: n for k, n in manifest.usage.items() if not k.startswith(("latency", "busy"))}
        write_manifest(store, manifest.__class__(**(vars(manifest) | {"usage": old})))
    [summary] = stored_summaries(store, "openi")
    clean = next(stage for stage in summary.stages if stage.stage == "clean").as_json()
    assert (clean["latency_median_s"], clean["gpu_s"]) == (None, None)
    assert clean["usage"]["requests"] > 0
    assert "GPU time" in _printed(summary)


def _printed(summary) -> str:
    console = Console(width=80, record=True)
    print_summaries([summary], console)
    return console.export_text()


@pytest.mark.parametrize(
    "place",
    [
        {"server": {"model": "m", "base_urls": ["http://127.0.0.1:9/v1"]}},
        {"vllm": {"model": "m", "quantization": "awq"}},
        {"batch": {"model": "m", "answers": "none-*.jsonl"}},
    ],
    ids=["server", "vllm", "batch"],
)
def test_an_engine_is_known_without_being_made(place, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = {"cleaner": "llm", "extractor": "llm", "filter": "llm", "dataset": "openi"}
    settings = make_settings(chosen | {"llm": place})
    assert settings.llm is not None
    assert chat_fingerprint(settings.llm) == chat_engine(settings.llm).fingerprint


def test_a_plan_needs_neither_the_host_nor_the_key(tmp_path, openi_reader) -> None:
    place = {
        "model": "m",
        "base_urls": ["http://no-such-host.invalid/v1"],
        "api_key_variable": "NO_SUCH_VARIABLE",
        "allow_remote_endpoint": False,
    }
    settings = _settings("http://127.0.0.1:9/v1", str(tmp_path), llm={"server": place})
    shards = _shards(settings, openi_reader)
    planned = _planned(shards, settings)
    assert planned["clean"]["requests"] > 0


def test_a_plan_counts_only_the_steps_that_ask_a_model(tmp_path, openi_reader) -> None:
    mixed: dict[str, Any] = {
        "cleaner": "rules",
        "extractor": "lexicon",
        "llm": {"vllm": {"model": "m"}},
    }
    settings = _settings("http://127.0.0.1:9/v1", str(tmp_path), **mixed)
    shards = _shards(settings, openi_reader)
    planned = _planned(shards, settings)
    assert [usage["requests"] > 0 for usage in planned.values()] == [False, False, True]
