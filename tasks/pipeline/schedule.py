"""Runs every stage on every part, each as soon as its own inputs are done.

A stage whose engine declares a `concurrency` takes that many shards at once: the engine works
beside this machine's CPU, on a GPU or a server. All other stages share the CPU, which takes
`cpu_shards` at once.

A shard is submitted only when it may start, so that no thread waits for another shard. Prefect's
own concurrency limits would hold a thread for each waiting shard and ask the server time and again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Protocol

from storage.shards import Part
from tasks.pipeline.runner import ShardResult, Stage


class ShardFuture(Protocol):
    """A shard on its way, as any task runner of Prefect gives it."""

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call `fn` with the future when the shard has ended, well or not."""
        ...

    def result(self) -> ShardResult:
        """The result of a shard that has ended; raises what it raised."""
        ...


Submit = Callable[[str, Part, Mapping[str, ShardResult]], ShardFuture]
"""Starts a stage on a part, given the results of the stages that it reads."""


def run_shards(
    stages: Sequence[Stage],
    parts: Sequence[Part],
    submit: Submit,
    cpu_shards: int,
    known: Iterable[ShardResult] = (),
) -> Iterator[ShardResult]:
    """Run the stages on the parts; results come as they end.

    What the first shard that fails raises is raised here, and no further shard is started.

    Args:
        stages: each after those that it reads.
        parts: the shards' places in the dataset.
        submit: starts a shard elsewhere and returns at once.
        cpu_shards: shards at once, of all stages whose engines declare no `concurrency`.
        known: results of stages that have been run already.
    """
    known = list(known)
    made = {result.manifest.stage for result in known}
    for stage in stages:
        if unknown := stage.reads - made:
            raise ValueError(
                f"{stage.name} reads {sorted(unknown)}, which no stage before it makes"
            )
        made.add(stage.name)
    yield from _Schedule(stages, parts, submit, cpu_shards, known).run()


@dataclass
class _Lane:
    """Shards that wait for one engine, or for the CPU, and how many it takes at once.

    ready: shards with all their inputs as (-position of the stage, part), a heap: what is furthest
        along goes first, so that later engines get work early and few shards are half done.
    """

    shards: int
    running: int = 0
    ready: list[tuple[int, Part]] = field(default_factory=list)


class _Schedule:
    def __init__(
        self,
        stages: Sequence[Stage],
        parts: Sequence[Part],
        submit: Submit,
        cpu_shards: int,
        known: Sequence[ShardResult],
    ) -> None:
        self._stages = stages
        self._submit = submit
        cpu = _Lane(cpu_shards)
        self._lanes = {s.name: _Lane(s.concurrency) if s.concurrency else cpu for s in stages}
        self._results: dict[Part, dict[str, ShardResult]] = {part: {} for part in parts}
        for result in known:
            self._results[result.manifest.part][result.manifest.stage] = result
        self._ended: SimpleQueue[ShardFuture] = SimpleQueue()

    def run(self) -> Iterator[ShardResult]:
        for part, done in self._results.items():
            for position, stage in enumerate(self._stages):
                if stage.name not in done and stage.reads <= done.keys():
                    self._line_up(position, part)
        self._start()
        while any(lane.running for lane in self._lanes.values()):
            result = self._ended.get().result()
            self._finish(result)
            self._start()
            yield result

    def _finish(self, result: ShardResult) -> None:
        """Take in a result; line up the stages that have waited for it last."""
        name, part = result.manifest.stage, result.manifest.part
        done = self._results[part]
        done[name] = result
        self._lanes[name].running -= 1
        for position, stage in enumerate(self._stages):
            if name in stage.reads and stage.reads <= done.keys():
                self._line_up(position, part)

    def _line_up(self, position: int, part: Part) -> None:
        heapq.heappush(self._lanes[self._stages[position].name].ready, (-position, part))

    def _start(self) -> None:
        for lane in self._lanes.values():
            while lane.ready and lane.running < lane.shards:
                position, part = heapq.heappop(lane.ready)
                stage = self._stages[-position]
                inputs = {name: self._results[part][name] for name in stage.reads}
                lane.running += 1
                self._submit(stage.name, part, inputs).add_done_callback(self._ended.put)
