"""The report on a checkpoint: what happens to each of its tensors and of the model's."""

from __future__ import annotations

from pydantic import BaseModel, computed_field

from model.checkpoints.weights import CheckpointError

SHOWN = 3
"""Keys that an error message lists; a wrong checkpoint has hundreds."""


class Reshaped(BaseModel):
    """A tensor that differs in shape; `source` is its key in the checkpoint."""

    source: str
    target: str
    from_shape: tuple[int, ...]
    to_shape: tuple[int, ...]
    how: str


class CheckReport(BaseModel):
    """Comparison of a checkpoint with the model.

    path, layout: the checkpoint and its recognized layout.
    tensors, parameters: numbers of tensors and of their elements in the checkpoint.
    dtypes: number of tensors by dtype.
    missing: keys of the model that the layout has and the checkpoint lacks.
    absent: keys of the model that the layout never has, by reason; they keep their values.
    unexpected: keys of the checkpoint that are not in the model.
    ignored: keys of the checkpoint that the model does not need, by reason.
    reshaped: tensors that are converted while loading.
    mismatched: tensors that cannot be converted to the shape of the model.
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
        """Whether no tensor is missing, unexpected or mismatched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def require_complete(self) -> None:
        """Refuse a checkpoint that would silently leave a part of the model untrained.

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
