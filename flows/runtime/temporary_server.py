"""A Prefect server that lives as long as the process that started it.

Run as `python -m flows.runtime.temporary_server`. It listens on a free port of 127.0.0.1, writes
the port's number to its standard output, and ends when its standard input does: that is the other
end of a pipe which its parent holds, and which the system closes however the parent ends, also by
SIGKILL.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

import uvicorn

_END_SECONDS = 5.0
"""Time to write the last events; a server that is still there then is ended all the same."""


def main() -> None:
    """Serve until the parent is gone."""
    os.environ |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    # The socket is bound here, not by number, so that no other process can take the port between.
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    server = uvicorn.Server(
        uvicorn.Config(
            "prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on"
        )
    )
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listening])
    sys.exit(0 if server.started else 1)


def _end_with_parent(server: uvicorn.Server) -> None:
    # Not sys.stdin: a thread that waits inside its lock stops the interpreter from ending.
    while os.read(0, 1024):
        pass
    server.should_exit = True
    threading.Event().wait(_END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
