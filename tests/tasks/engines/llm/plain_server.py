"""A real HTTP server whose every reply a test writes, with or without TLS."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tasks.engines.llm.misbehaving_server import completion

Reply = tuple[int, dict[str, str], bytes]
Chat = Callable[[dict[str, Any]], Reply]


class PlainServer:
    """Serves from `with` to its end.

    chat: what a chat request gets, given its body. pages: what other paths get; others are 404.
    bodies: the chat requests. paths: of all requests, as they came.
    stream: writes the body of a chat reply by itself, if set, after the headers.
    sent: bytes that `stream` got rid of.
    """

    def __init__(self, chat: Chat | None = None, *, tls: Path | None = None) -> None:
        self.chat = chat or (lambda body: answered(followed(body)))
        self.pages: dict[str, Reply] = {
            "/health": (200, {}, b""),
            "/v1/models": as_json({"data": [{"id": "model"}]}),
        }
        self.stream: Callable[[Callable[[bytes], None]], None] | None = None
        self.sent = 0
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._http = _Listener(("127.0.0.1", 0), _handler(self))
        self._scheme = "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
            self._scheme = "https"

    @property
    def port(self) -> int:
        return self._http.server_port

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # more at once than the five of the standard library


def _handler(server: PlainServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.paths.append(self.path)
            self._reply(server.pages.get(self.path, (404, {}, b'{"detail": "Not Found"}')))

        def do_POST(self) -> None:
            server.paths.append(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path in server.pages or not self.path.endswith("/v1/chat/completions"):
                return self._reply(server.pages.get(self.path, (404, {}, b"Not Found")))
            server.bodies.append(json.loads(content))
            return self._reply(server.chat(server.bodies[-1]))

        def _reply(self, reply: Reply) -> None:
            status, headers, content = reply
            self.send_response(status)
            streams = server.stream is not None and self.command == "POST"
            length = {} if streams else {"Content-Length": str(len(content))}
            for name, value in (length | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            if streams and server.stream is not None:
                self.close_connection = True
                with suppress(ConnectionError):  # the client has read enough
                    server.stream(self._send)

        def _send(self, piece: bytes) -> None:
            self.wfile.write(piece)
            server.sent += len(piece)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    return Handler


def as_json(body: object, status: int = 200) -> Reply:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def answered(content: object, **message: object) -> Reply:
    body = completion(content)
    body["choices"][0]["message"] |= message
    return as_json(body)


def followed(body: dict[str, Any]) -> str:
    """What the schema of a request demands, or an answer to its last turn."""
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema is None:
        return f"answer to {body['messages'][-1]['content']}"
    name, rule = next(iter(schema["properties"].items()))
    return json.dumps({name: rule["enum"][0]})


def refusal(message: str, status: int = 400, **fields: object) -> Reply:
    return as_json(
        {"error": {"message": message, "type": "invalid_request_error"} | fields}, status
    )


def self_signed(folder: Path, host: str) -> Path:
    """A file with a key and a certificate for a host, which no authority has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    try:
        place: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        place = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([place]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{host}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
