"""Stands in for `python -m vllm.entrypoints.cli.main serve MODEL …`: a small server of its kind.

It writes its arguments and the ids of its processes to its output, as vLLM writes its log, takes a
moment to start, and has a child of its own, as vLLM has an engine process. `--stand-in` says how it
fails: `at-start`, or `at-request`. It is copied to where the module is looked for.
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

START_S = 0.5


def main() -> None:
    options = dict(arg[2:].partition("=")[::2] for arg in sys.argv[3:])
    engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    about = {"arguments": sys.argv[1:], "pids": [os.getpid(), engine.pid]}
    sys.stdout.write(json.dumps(about) + "\n")
    sys.stdout.flush()
    time.sleep(START_S)
    if options.get("stand-in") == "at-start":
        engine.kill()
        raise RuntimeError("No available memory for the cache blocks")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply({"data": [{"id": options["served-model-name"]}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if options.get("stand-in") == "at-request":
                sys.stdout.write("EngineCore died\n")
                sys.stdout.flush()
                os._exit(3)
            schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
            text = f"answer to {body['messages'][-1]['content']}"
            if schema:
                name, rule = next(iter(schema["properties"].items()))
                text = json.dumps({name: rule["enum"][0]})
            choice = {"message": {"content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            self._reply({"choices": [choice], "usage": usage})

        def _reply(self, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """As vLLM, it logs no requests."""

    ThreadingHTTPServer(("127.0.0.1", int(options["port"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
