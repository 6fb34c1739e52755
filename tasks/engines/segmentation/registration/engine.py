"""The segmenter that transfers the labels of one CT to others by deformable registration."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import SimpleITK as sitk
import yaml
from pydantic import BaseModel, ConfigDict

from storage.images.types import Volume
from storage.records import Site
from tasks.engines.protocols import Fingerprint, Segmentation, Ungrounded
from tasks.engines.segmentation.registration.atlas import digest, load_atlas
from tasks.engines.segmentation.registration.confidence import LEAST_CONFIDENCE
from tasks.engines.segmentation.registration.errors import CannotRegisterError
from tasks.engines.segmentation.registration.scan import LabelledScan

VERSION = "1"
"""Raised with every change of the masks that is not a change of the atlas or of the targets."""

SCORE_DECIMALS = 4

TARGETS = Path(__file__).with_name("targets.yaml")


class OfferedTarget(BaseModel):
    """An entry of `targets.yaml`, which explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    structures: tuple[str, ...]
    surface: Literal["transferred", "organ", "lung", "mediastinal"]
    left: tuple[str, ...] | None = None
    right: tuple[str, ...] | None = None

    def names(self, laterality: str | None) -> tuple[str, ...]:
        """The labels for a site on a side, or on none."""
        sided = {"left": self.left, "right": self.right}.get(laterality or "")
        return sided or self.structures


@cache
def offered_targets() -> dict[str, OfferedTarget]:
    """The targets that the engine answers."""
    raw = yaml.safe_load(TARGETS.read_text(encoding="utf-8"))
    return {name: OfferedTarget.model_validate(entry) for name, entry in raw.items()}


class RegistrationSegmenter:
    """Masks of organs, lobes, muscles and vertebrae on a CT of chest or upper abdomen.

    A mask's score is its confidence (`confidence`), at least 0.70. The atlas patient has no
    disease of these organs, so that masks say nothing of effusion, collapse or masses. Nothing is
    answered on the CT that the atlas was made from.
    """

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version, and digests of the atlas, the targets and the registration library."""
        return {
            "name": "registration",
            "version": VERSION,
            "atlas": digest(),
            "targets": hashlib.sha256(TARGETS.read_bytes()).hexdigest()[:16],
            "simpleitk": sitk.Version.VersionString(),
        }

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterator[Segmentation | Ungrounded]:
        """Answer each site, order kept; the scan is registered once, if a site needs it.

        Raises:
            storage.inputs.InputError: if the atlas's CT was never fetched.
        """
        scan: LabelledScan | Ungrounded | None = None
        for site in sites:
            target = offered_targets().get(site.target)
            if target is None:
                detail = f"{site.target}: not among the structures that registration finds reliably"
                yield Ungrounded("target_not_supported", detail)
                continue
            scan = _registered(volume) if scan is None else scan
            if isinstance(scan, Ungrounded):
                yield scan
            else:
                yield _answer(scan, target, site)


def _registered(volume: Volume) -> LabelledScan | Ungrounded:
    # One thread: a run works on several shards at once, and results do not depend on the machine.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        return LabelledScan(volume, load_atlas())
    except CannotRegisterError as error:
        return Ungrounded(error.reason, error.detail)


def _answer(scan: LabelledScan, target: OfferedTarget, site: Site) -> Segmentation | Ungrounded:
    names = target.names(site.modifiers.laterality)
    if not scan.transferred(*names).any():
        return Ungrounded("not_found", f"{site.target} lies outside of this scan")
    for name in names:
        if doubt := scan.doubt(name):
            return Ungrounded("not_found", f"{site.target}: {doubt}")
    confidence = scan.confidence(*names)
    if confidence < LEAST_CONFIDENCE:
        return Ungrounded(
            "not_found",
            f"{site.target}: the registration is not certain of its place, confidence "
            f"{confidence:.2f}, at least {LEAST_CONFIDENCE:.2f} is asked for",
        )
    mask = scan.grid.enlarge(getattr(scan, target.surface)(*names))
    if not mask.any():
        return Ungrounded("not_found", f"{site.target}: no voxel of the scan looks like it")
    return Segmentation(mask, round(confidence, SCORE_DECIMALS))
