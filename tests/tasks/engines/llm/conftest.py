"""Local servers and engines for the tests of this folder; all are closed at a test's end."""

from contextlib import ExitStack

import pytest

from tasks.engines.llm.chat.openai_server import OpenAIServerEngine
from tasks.engines.llm.chat.settings import ServerSettings
from tests.tasks.engines.llm.misbehaving_server import MisbehavingServer


@pytest.fixture
def server():
    """Starts misbehaving servers: `server(honours=…)`."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(MisbehavingServer(*args, **kwargs))


@pytest.fixture
def engine():
    """Makes an engine for servers or base URLs, with short waits unless told otherwise."""
    with ExitStack() as stack:

        def make(*servers, **settings):
            urls = tuple(getattr(one, "url", one) for one in servers)
            defaults = {"model": "model", "server_wait_s": 10, "answer_timeout_s": 10, "retries": 2}
            made = OpenAIServerEngine(ServerSettings(base_urls=urls, **(defaults | settings)))
            stack.callback(made.close)
            return made

        yield make
