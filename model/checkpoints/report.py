"""What became of every tensor of a checkpoint, and of every one of ours."""

from __future__ import annotations

from pydantic import BaseModel, computed_field

from model.checkpoints.weights import CheckpointError

SHOWN = 3


class Reshaped(BaseModel):
    """A tensor whose form is not ours; keys are those of the checkpoint and of our model."""

    source: str
    target: str
    from_shape: tuple[int, ...]
    to_shape: tuple[int, ...]
    how: str


class CheckReport(BaseModel):
    """A checkpoint held against our model.

    path, layout: the checkpoint, and what it was recognised as.
    tensors, parameters: in the checkpoint, and how many numbers they hold.
    dtypes: tensors by their type.
    missing: our keys that this layout has and this checkpoint lacks.
    absent: our keys that the layout never has, by the reason; they stay as they were initialised.
    unexpected: the checkpoint's keys that our model has no place for.
    ignored: the checkpoint's keys that our model does not need, by the reason.
    reshaped: tensors that are converted on the way.
    mismatched: tensors that cannot be converted to ours.
    """

    path: str
    layout: str
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = {}
    missing: list[str] = []
    absent: dict[str, list[str]] = {}
    unexpected: list[str] = []
    ignored: dict[str, list[str]] = {}
    reshaped: list[Reshaped] = []
    mismatched: list[Reshaped] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fits(self) -> bool:
        """Whether our model gets every tensor that the layout has for it, and none is left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def require_complete(self) -> None:
        """Refuse a checkpoint that would leave a part of our model untrained without a word.

        Raises:
            CheckpointError: if tensors are missing or do not fit.
        """
        wrong = [entry.target for entry in self.mismatched]
        for keys, fault in ((wrong, "do not fit"), (self.missing, "are missing")):
            if keys:
                more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                raise CheckpointError(
                    f"{self.path} ({self.layout}) cannot be loaded, because tensors {fault}:"
                    f" {', '.join(keys[:SHOWN])}{more}; `vividmed model check` lists them all"
                )
