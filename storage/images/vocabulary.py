"""Views and modalities: what they are called and what they mean, read from `vocabulary.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

NOT_STATED = "OT"
"""DICOM's modality "other": recorded where a file does not say its modality."""

Projection = Literal["frontal", "lateral", "decubitus", "oblique", "lordotic", "figure"]


class _Vocabulary(BaseModel):
    """`vocabulary.yaml`, as written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    modalities: dict[Literal["volume", "radiograph"], frozenset[str]]
    views: dict[Projection, dict[str, tuple[str, ...]]]


@cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary.model_validate(
        yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    )


def modalities() -> frozenset[str]:
    """All modalities that are read."""
    return frozenset().union(*_vocabulary().modalities.values())


def view_positions() -> frozenset[str]:
    """All view positions that are known, by their one name."""
    return frozenset(_positions().values())


def volume_modalities() -> frozenset[str]:
    """Modalities whose images are volumes."""
    return _vocabulary().modalities["volume"]


def is_volume(modality: str | None) -> bool:
    """Whether images of a modality are volumes; an unknown one counts as a radiograph's."""
    return modality in volume_modalities()


def is_radiograph(modality: str) -> bool:
    """Whether a modality is one of projection radiography."""
    return modality in _vocabulary().modalities["radiograph"]


def view_position(said: str) -> str | None:
    """The view position that a file states, by its one name; an unknown one as it is.

    Lateral views are told apart in DICOM by the side at the detector (LL, RL), which is no
    difference here.
    """
    return _positions().get(said.strip().upper(), said.strip().upper()) or None


def projection(view: str | None) -> Projection | None:
    """How a view shows the chest; None when the view is not known."""
    name = _positions().get(view or "", view)
    return next((kind for kind, views in _vocabulary().views.items() if name in views), None)


def is_groundable(view: str | None) -> bool:
    """Whether phrases are grounded in a radiograph of this view, or of no stated view."""
    return projection(view) in {None, "frontal"}


@cache
def _positions() -> dict[str, str]:
    """The name of a view position by each of the words for it."""
    return {
        word: name
        for views in _vocabulary().views.values()
        for name, words in views.items()
        for word in (name, *words)
    }
