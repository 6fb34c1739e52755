"""Carry a checkpoint's tensors into our model, as its layout's table says.

The same code loads and checks: on tensors of the meta device every conversion runs on shapes alone
and nothing is written, so what a check reports is what a load does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from model.checkpoints.report import CheckReport, Reshaped
from model.checkpoints.weights import Weights


@dataclass(frozen=True)
class Rule:
    r"""One line of a layout's table.

    source: pattern that a whole key of the checkpoint matches.
    target: our key; \1, \2 … are the pattern's groups.
    convert: makes our tensor of (the checkpoint's, ours, those of `needs`); None: as it is.
    how: what `convert` does, for the report.
    needs: other keys of the checkpoint that the conversion reads, written as `target`.
    """

    source: str
    target: str
    convert: Callable[..., Tensor] | None = None
    how: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Destination:
    """A rule applied to a key: our key, and how to make our tensor; see `Rule`.

    needs: whole keys of the checkpoint.
    """

    target: str
    convert: Callable[..., Tensor] | None = None
    how: str = ""
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """How a published checkpoint names its tensors, and what becomes of them.

    A key that no rule matches keeps its name; one that several match feeds several of our tensors.

    name: for people.
    part: what it is loaded into.
    signature: a key that tells the layout from the others.
    prefix: what every key of the network begins with; the tables are written without it.
    unused: patterns of keys that our model does not need, with the reason.
    absent: patterns of our keys that the layout never has, with the reason.
    """

    name: str
    part: Literal["model", "localizer"]
    signature: str
    prefix: str = ""
    rules: tuple[Rule, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def reason_unused(self, key: str) -> str | None:
        """Return why our model does not need a key of the checkpoint, or None if it does."""
        if not key.startswith(self.prefix):
            return f"not a part of the network, whose keys begin with {self.prefix}"
        return _reason(self.unused, key.removeprefix(self.prefix))

    def reason_absent(self, key: str) -> str | None:
        """Return why the layout never has a key of ours, or None if it should."""
        return _reason(self.absent, key)

    def destinations(self, key: str) -> list[Destination]:
        """Return what a key of the checkpoint feeds."""
        bare = key.removeprefix(self.prefix)
        matches = ((re.fullmatch(rule.source, bare), rule) for rule in self.rules)
        found = [self._destination(match, rule) for match, rule in matches if match]
        return found or [Destination(bare)]

    def _destination(self, match: re.Match[str], rule: Rule) -> Destination:
        needs = [self.prefix + match.expand(other) for other in rule.needs]
        return Destination(match.expand(rule.target), rule.convert, rule.how, needs)


@torch.no_grad()
def transfer(weights: Weights, layout: Layout, targets: Mapping[str, Tensor]) -> CheckReport:
    """Write a checkpoint's tensors into ours.

    Args:
        weights: the checkpoint; only its headers when `targets` are on the meta device.
        layout: the checkpoint's.
        targets: our tensors by key, written in place and in their own type.

    Returns:
        What became of each; nothing is raised for tensors that do not fit.
    """
    return _Transfer(weights, layout, targets).run()


class _Transfer:
    """One pass through a checkpoint, and the report that it fills."""

    def __init__(self, weights: Weights, layout: Layout, targets: Mapping[str, Tensor]) -> None:
        self.weights, self.layout, self.targets = weights, layout, targets
        self.report = CheckReport(path=str(weights.path), layout=layout.name, tensors=len(weights))
        self.fed: set[str] = set()

    def run(self) -> CheckReport:
        dtypes: Counter[str] = Counter()
        for key in self.weights:
            tensor = self.weights[key]
            self.report.parameters += tensor.numel()
            dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
            self._place(key, tensor)
        self.report.dtypes = dict(dtypes)
        for key in self.targets:
            if key not in self.fed:
                self._note_unfed(key)
        return self.report

    def _place(self, key: str, tensor: Tensor) -> None:
        reason = self.layout.reason_unused(key)
        if reason:
            self.report.ignored.setdefault(reason, []).append(key)
            return
        destinations = self.layout.destinations(key)
        if any(to.target not in self.targets for to in destinations):
            self.report.unexpected.append(key)
            return
        for to in destinations:
            self.fed.add(to.target)
            self._feed(key, tensor, to)

    def _feed(self, key: str, tensor: Tensor, to: Destination) -> None:
        ours = self.targets[to.target]
        entry = Reshaped(
            source=key,
            target=to.target,
            from_shape=tuple(tensor.shape),
            to_shape=tuple(ours.shape),
            how=to.how,
        )
        try:
            value = self._converted(tensor, ours, to)
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            # A conversion is written for its layout's shapes and trips over any other.
            entry.how = f"{to.how}: {error}".partition("\n")[0]
            self.report.mismatched.append(entry)
            return
        if value.shape != ours.shape:
            self.report.mismatched.append(entry)
            return
        ours.copy_(value)
        if value is not tensor:
            self.report.reshaped.append(entry)

    def _converted(self, tensor: Tensor, ours: Tensor, to: Destination) -> Tensor:
        if to.convert is None:
            return tensor
        return to.convert(tensor, ours, *(self.weights[key] for key in to.needs))

    def _note_unfed(self, key: str) -> None:
        reason = self.layout.reason_absent(key)
        if reason:
            self.report.absent.setdefault(reason, []).append(key)
        else:
            self.report.missing.append(key)


def _reason(patterns: Mapping[str, str], key: str) -> str | None:
    return next((why for pattern, why in patterns.items() if re.fullmatch(pattern, key)), None)
