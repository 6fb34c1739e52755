"""A local OpenAI-compatible server that misbehaves as each request's own script tells it to.

The user message is `<id>` or `<id>: <behaviour> <behaviour> …`: the first attempt at that id meets
the first behaviour, and so on; when the script is used up, attempts are answered. The server keeps
its own count of everything, for tests to check the client's account against.
"""

import asyncio
import json
import threading
from collections import Counter

CARRIERS = {
    "json_schema": lambda body: body["response_format"]["json_schema"]["schema"],
    "json_object": lambda body: body["response_format"]["schema"],
    "structured_outputs": lambda body: body["structured_outputs"]["json"],
    "guided_json": lambda body: body["guided_json"],
    "top_level": lambda body: body["json_schema"],
}


class MisbehavingServer:
    """Serves on a thread of its own from `start` to `stop`, always on the same port.

    honours: the schema fields that it constrains answers by; all others it ignores or, with
    `refuses_unknown`, answers with 400.
    always: how it behaves when scripts are used up; at_schema: how, if a request has a schema.
    context: words of prompt and tokens of answer that it takes together.
    """

    def __init__(
        self,
        honours=("json_schema",),
        *,
        models=("model",),
        api_key=None,
        health=200,
        refuses_unknown=False,
        slow_s=0.3,
        always=None,
        at_schema=None,
        context=None,
    ):
        self.honours, self.models, self.api_key = honours, models, api_key
        self.health, self.refuses_unknown, self.slow_s = health, refuses_unknown, slow_s
        self.always, self.at_schema, self.context = always, at_schema, context
        self.attempts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.fields: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        assert started.wait(10)
        return self

    def stop(self):
        if self._loop:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)
            self._loop = None

    async def _serve(self, started):
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._converse, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._open: set[asyncio.StreamWriter] = set()
        started.set()
        await self._stopping.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _converse(self, reader, writer):
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split()[1]
                headers = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                try:
                    await self._route(path, headers, content, writer)
                except Reply as reply:
                    _write(writer, reply.status, reply.body, reply.headers)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client hung up, or the server is closing: either ends the conversation
        finally:
            self._open.discard(writer)
            writer.close()

    async def _route(self, path, headers, content, writer):
        if path == "/health":
            raise Reply(self.health, "")
        if self.api_key and headers.get("authorization") != f"Bearer {self.api_key}".lower():
            raise Reply(401, {"error": "Unauthorized"})
        if path == "/v1/models":
            raise Reply(200, {"object": "list", "data": [{"id": name} for name in self.models]})
        if path != "/v1/chat/completions":
            raise Reply(404, {"detail": "Not Found"})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._chat(json.loads(content), writer)
        finally:
            self.in_flight -= 1

    async def _chat(self, body, writer):
        constrained = {"response_format", "structured_outputs", "guided_json", "json_schema"}
        if constrained & body.keys():
            await self._behave(self.at_schema or "ok", writer)
            self._answer_constrained(body)
        words = sum(len(message["content"].split()) for message in body["messages"])
        if self.context and words + body["max_tokens"] > self.context:
            raise Reply(*REPLIES["too-long"])
        key, _, script = body["messages"][-1]["content"].partition(": ")
        behaviours = script.split()
        attempt = self.attempts[key]
        self.attempts[key] += 1
        behaviour = behaviours[attempt] if attempt < len(behaviours) else self.always or "ok"
        self.met[behaviour] += 1
        await self._behave(behaviour, writer)
        self.answered[key] += 1
        raise Reply(200, completion(f"answer to {key}"))

    def _answer_constrained(self, body):
        for field, carried in CARRIERS.items():
            try:
                schema = carried(body)
            except (KeyError, TypeError):
                continue
            self.fields.append(field)
            if field in self.honours:
                name, rule = next(iter(schema["properties"].items()))
                raise Reply(200, completion(json.dumps({name: rule["enum"][0]})))
        if self.refuses_unknown:
            raise Reply(400, {"error": {"message": "unknown field", "type": "BadRequestError"}})
        raise Reply(200, completion("Paris"))

    async def _behave(self, behaviour, writer):
        match behaviour:
            case "ok":
                return
            case "slow":
                await asyncio.sleep(self.slow_s)
            case "hang":
                await self._stopping.wait()
                raise ConnectionError
            case "reset":
                writer.transport.abort()
                raise ConnectionError
            case "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + HALF)
                await writer.drain()
                raise ConnectionError
            case _:
                raise Reply(*(REPLIES.get(behaviour) or _refusal(int(behaviour))))


def completion(content, finish_reason="stop"):
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}


HALF = b'{"id": "x", "choices": [{"index": 0, "mess'
TOO_LONG = "This model's maximum context length is 10 tokens. However, your prompt contains 12."
REPLIES = {
    "half": (200, HALF),
    "wrong": (200, {"object": "error", "message": "not what was asked for"}),
    "empty": (200, completion("") | {"choices": []}),
    "null": (200, completion(None)),
    "abort": (200, completion("hal", finish_reason="abort")),
    "429": (429, {"error": {"message": "busy", "code": "rate_limit_exceeded"}}, "0"),
    "429-date": (429, {"error": {"message": "busy"}}, "Wed, 21 Oct 2015 07:28:00 GMT"),
    "too-long": (400, {"error": {"message": TOO_LONG, "type": "BadRequestError"}}),
}


class Reply(Exception):  # noqa: N818 - raised to leave a handler early
    def __init__(self, status, body, retry_after=None):
        self.status, self.body = status, body
        self.headers = {"Retry-After": retry_after} if retry_after else {}


def _refusal(status):
    return status, {"error": {"message": f"status {status}"}}


def _write(writer, status, body, headers):
    content = body if isinstance(body, bytes) else b"" if body == "" else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
