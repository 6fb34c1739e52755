"""Copy the tensors of a checkpoint into the model, by the rules of its layout.

The same code loads and checks: on the meta device conversions compute shapes only and nothing is
written, so that a check reports exactly what loading does.
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
class KeyRule:
    r"""How keys that match a pattern are renamed and their tensors converted.

    source: pattern of a whole key of the checkpoint.
    target: key of the model; \1, \2 … are the groups of the pattern.
    convert: function of (tensor of the checkpoint, target tensor, tensors of `needs`) that returns
        the new value of the target; None: copied unchanged.
    how: what `convert` does, for the report.
    needs: further keys of the checkpoint that the conversion reads, written like `target`.
    """

    source: str
    target: str
    convert: Callable[..., Tensor] | None = None
    how: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Destination:
    """A rule applied to one key: the key in the model and its conversion; see `KeyRule`.

    needs: full keys of the checkpoint.
    """

    target: str
    convert: Callable[..., Tensor] | None = None
    how: str = ""
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Layout:
    """The key names of a published checkpoint and the rules to load it.

    A key that matches no rule keeps its name; a key that matches several rules is copied to several
    tensors.

    name: shown in reports.
    part: what the checkpoint is loaded into.
    signature: a key that distinguishes the layout from the others.
    prefix: prefix of every key of the network; rules and patterns are written without it.
    unused: patterns of keys that the model does not need, with the reason.
    absent: patterns of keys of the model that the layout never has, with the reason.
    """

    name: str
    part: Literal["model", "localizer"]
    signature: str
    prefix: str = ""
    rules: tuple[KeyRule, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def reason_unused(self, key: str) -> str | None:
        """Return why the model does not need a key of the checkpoint, or None if it does."""
        if not key.startswith(self.prefix):
            return f"not part of the network, whose keys begin with {self.prefix}"
        return _reason(self.unused, key.removeprefix(self.prefix))

    def reason_absent(self, key: str) -> str | None:
        """Return why the layout never has a key of the model, or None if it should have it."""
        return _reason(self.absent, key)

    def destinations(self, key: str) -> list[Destination]:
        """Return the tensors of the model that a key of the checkpoint is copied to."""
        bare = key.removeprefix(self.prefix)
        matches = ((re.fullmatch(rule.source, bare), rule) for rule in self.rules)
        found = [self._destination(match, rule) for match, rule in matches if match]
        return found or [Destination(bare)]

    def _destination(self, match: re.Match[str], rule: KeyRule) -> Destination:
        needs = [self.prefix + match.expand(other) for other in rule.needs]
        return Destination(match.expand(rule.target), rule.convert, rule.how, needs)


@torch.no_grad()
def transfer(weights: Weights, layout: Layout, targets: Mapping[str, Tensor]) -> CheckReport:
    """Copy the tensors of a checkpoint into the model.

    Args:
        weights: the checkpoint; only its headers if `targets` are on the meta device.
        layout: the layout of the checkpoint.
        targets: tensors of the model by key, written in place and in their own dtype.

    Returns:
        The report on every tensor; a tensor that does not fit raises no error.
    """
    return _Transfer(weights, layout, targets).run()


class _Transfer:
    """One pass over a checkpoint, and its report."""

    def __init__(self, weights: Weights, layout: Layout, targets: Mapping[str, Tensor]) -> None:
        self.weights, self.layout, self.targets = weights, layout, targets
        self.report = CheckReport(path=str(weights.path), layout=layout.name, tensors=len(weights))
        self.written: set[str] = set()

    def run(self) -> CheckReport:
        dtypes: Counter[str] = Counter()
        for key in self.weights:
            tensor = self.weights[key]
            self.report.parameters += tensor.numel()
            dtypes[str(tensor.dtype).removeprefix("torch.")] += 1
            self._copy(key, tensor)
        self.report.dtypes = dict(dtypes)
        for key in self.targets:
            if key not in self.written:
                self._note_unwritten(key)
        return self.report

    def _copy(self, key: str, tensor: Tensor) -> None:
        reason = self.layout.reason_unused(key)
        if reason:
            self.report.ignored.setdefault(reason, []).append(key)
            return
        destinations = self.layout.destinations(key)
        # Nothing of a key is written unless the model has all tensors that it is copied to.
        if any(destination.target not in self.targets for destination in destinations):
            self.report.unexpected.append(key)
            return
        for destination in destinations:
            self.written.add(destination.target)
            self._write(key, tensor, destination)

    def _write(self, key: str, tensor: Tensor, destination: Destination) -> None:
        target = self.targets[destination.target]
        entry = Reshaped(
            source=key,
            target=destination.target,
            from_shape=tuple(tensor.shape),
            to_shape=tuple(target.shape),
            how=destination.how,
        )
        try:
            value = self._converted(tensor, target, destination)
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            # Conversions assume the shapes of their layout and fail on others in various ways.
            entry.how = f"{destination.how}: {error}".partition("\n")[0]
            self.report.mismatched.append(entry)
            return
        if value.shape != target.shape:
            self.report.mismatched.append(entry)
            return
        target.copy_(value)
        # A tensor that is copied unchanged needs no entry in the report.
        if value is not tensor:
            self.report.reshaped.append(entry)

    def _converted(self, tensor: Tensor, target: Tensor, destination: Destination) -> Tensor:
        if destination.convert is None:
            return tensor
        needs = (self.weights[key] for key in destination.needs)
        return destination.convert(tensor, target, *needs)

    def _note_unwritten(self, key: str) -> None:
        reason = self.layout.reason_absent(key)
        if reason:
            self.report.absent.setdefault(reason, []).append(key)
        else:
            self.report.missing.append(key)


def _reason(patterns: Mapping[str, str], key: str) -> str | None:
    return next((why for pattern, why in patterns.items() if re.fullmatch(pattern, key)), None)
