# ruff: noqa: ARG002, T201
"""A worker that does what its settings say: answers well, or fails in one of many ways.

`faults` says what it does at a request whose volume or film begins with a value (`{"9": "hang"}`);
with `marks`, a folder, only the first time, which leaves a mark there.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from vividmed_worker import Found, FoundBox, Missing, Worker, serve


class StandIn(Worker):
    def load(self, settings):
        self.settings = settings
        print("loading, says a library")
        time.sleep(settings.get("start_s", 0))
        if settings.get("start") == "fails":
            raise OSError("the checkpoint lacks 3 tensors")
        if settings.get("start") == "exits":
            sys.exit("no licence")

    def segment(self, volume, prompts):
        self.misbehave(int(volume.voxels[0, 0, 0]))
        for prompt in prompts:
            if prompt == "nothing":
                yield Missing("not_found", "looked for in vain")
            elif prompt == "strange":
                yield Missing("unknown", "no such class")
            elif prompt == "above":
                yield Found(volume.voxels > 0, 0.75)
            elif prompt == "empty":
                yield Found(np.zeros(volume.voxels.shape, bool))
            else:
                yield Found(volume.voxels == int(prompt))

    def detect(self, films, names):
        found = []
        for film in films:
            self.misbehave(round(float(film[0, 0]) * 100))
            rows, columns = film.shape
            found.append(
                [
                    FoundBox("left", columns * 0.6, 0, columns * 0.9, rows * 0.5, 0.6),
                    FoundBox("right", columns * 0.1, 0, columns * 0.4, rows * 0.5, 0.3),
                    FoundBox("both", columns * 0.1, 0, columns * 0.4, rows * 0.5, 0.3),
                    FoundBox("both", columns * 0.6, 0, columns * 0.9, rows * 0.5, 0.25),
                    FoundBox("weak", 0, 0, 5, 5, 0.05),
                ]
            )
        return found

    def misbehave(self, at):
        fault = self.settings.get("faults", {}).get(str(at))
        if fault is None:
            return
        if marks := self.settings.get("marks"):
            mark = Path(marks) / fault
            if mark.exists():
                return
            mark.touch()
        getattr(self, fault)()

    def crash(self):
        print("a library fails", file=sys.stderr, flush=True)
        ctypes.string_at(0)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(self):
        time.sleep(3600)

    def leave(self):
        os._exit(3)

    def raises(self):
        raise ValueError("this volume is odd")

    def exits(self):
        sys.exit("no licence for this task")

    def memory_error(self):
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")

    def cuda_error(self):
        raise RuntimeError("CUDA error: device-side assert triggered")

    def grow(self):
        held = [np.ones(1 << 20) for _ in range(100)]  # 800 MB
        time.sleep(3600)
        print(len(held))

    def prints(self):
        print('{"type": "answer", "id": 1}')
        os.write(1, b"noise of a C library\n")
        sys.stdin.read()


def garbage():
    """What a process says that knows nothing of the protocol."""
    print("hello, I am no worker")
    print(json.dumps({"type": "hello", "protocol": 99}), flush=True)
    time.sleep(60)


def huge():
    """A message beyond all measure."""
    sys.stdin.readline()
    print("x" * (65 << 20), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    {"garbage": garbage, "huge": huge}.get(
        os.environ.get("STAND_IN", ""), lambda: serve(StandIn())
    )()
