"""A local OpenAI-compatible server that answers reports as the embedded engines would.

It constrains nothing by itself: a capability check's probe gets the one word that its schema
allows, all else what `Answers` writes. A test can change what the server does while it runs.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tasks.engines.llm.chat.engine import ChatRequest, Completion, Message
from tasks.engines.llm.chat.tokens import approximate_tokens
from tasks.engines.llm.protocols.dry_run import DryRunEngine
from taxonomy.targets import load_taxonomy

MODEL = "dry-run"


class LlmServer:
    """Serves from `with` to its end.

    hold: while set, requests about reports are taken and not answered.
    status: what requests about reports get instead of an answer, unless 200.
    rewrite: what becomes of an answer, given the user's message and the schema.
    asked: user messages about reports, in the order in which they came.
    lost: requests whose client had gone when they were to be answered.
    """

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.status = 200
        self.rewrite: Callable[[str, str, dict[str, Any]], str] = lambda answer, *_: answer
        self.asked: list[str] = []
        self.lost = 0
        self._go = threading.Event()
        self._dry_run = DryRunEngine(
            load_taxonomy(), "openi", approximate_tokens, {"name": MODEL, "version": "1"}
        )
        self._one_at_a_time = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        properties = schema.get("properties", {})
        if word := properties.get("answer", {}).get("enum"):
            return 200, _completion(json.dumps({"answer": word[0]}))
        data = body["messages"][-1]["content"]
        self.asked.append(data)
        while self.hold.is_set() and not self._go.wait(0.02):
            pass
        if self.status != 200:
            return self.status, {"error": {"message": "no such luck"}}
        messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
        with self._one_at_a_time:
            request = ChatRequest(messages, body["max_tokens"], schema or None)
            (completion,) = self._dry_run.complete([request])
        assert isinstance(completion, Completion)
        return 200, _completion(self.rewrite(completion.text, data, schema))


def _handler(server: LlmServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(200, {"data": [{"id": MODEL}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = server.answer(body)
            try:
                self._reply(status, answer)
            except ConnectionError:
                server.lost += 1

        def _reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep the access log out of what pytest shows."""

    return Handler


def _completion(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }
