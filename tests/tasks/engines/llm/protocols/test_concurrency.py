"""Engines that wait for a model hold no place on the CPU: they say how many shards may wait."""

from typing import get_args

import pytest

from storage.store import Store
from tasks.engines.llm.cache.response_cache import CachedEngine, ResponseCaches
from tasks.engines.llm.chat.openai_server import OpenAIServerEngine
from tasks.engines.llm.chat.settings import ServerSettings
from tasks.engines.llm.chat.timed import MeteredEngine
from tasks.engines.llm.protocols.by_name import text_engines
from tasks.engines.llm.settings import ProtocolName
from taxonomy.targets import load_taxonomy
from tests.tasks.engines.llm.scripted import ScriptedEngine


@pytest.mark.parametrize("protocol", get_args(ProtocolName))
def test_every_text_engine_declares_the_concurrency_of_its_model(protocol, tmp_path):
    caches = ResponseCaches(Store(str(tmp_path)))
    urls = ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")
    for chat, shards in (
        (MeteredEngine(OpenAIServerEngine(ServerSettings(model="m", base_urls=urls))), 8),
        (ScriptedEngine(), None),
    ):
        cached = CachedEngine(chat, caches)
        engines = text_engines(protocol, cached, caches, load_taxonomy(), "openi")
        steps = (engines.cleaner, engines.extractor, engines.filter)
        declared = {getattr(engine, "concurrency", "not declared") for engine in steps}
        assert declared == {shards}
