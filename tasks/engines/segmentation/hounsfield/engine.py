"""The segmenter without a model: Hounsfield units and classical image processing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from storage.images.types import Volume
from storage.records import Site
from tasks.engines.protocols import Fingerprint, Segmentation, Ungrounded
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.grid import Mask3D
from tasks.engines.segmentation.hounsfield.nodules import at_site
from taxonomy.zones import load_zones, zones_digest

VERSION = "2"
NODULES = "nodules"
"""The structure that depends on the site's laterality and zones, not on its target alone."""

CERTAIN = 1.0
"""Score of a structure's mask: the rules give no probability."""

TARGETS = Path(__file__).with_name("targets.yaml")


@cache
def structures() -> dict[str, dict[str, str]]:
    """For each target, the method of `Chest` for a site of either side, of left, of right."""
    loaded: dict[str, dict[str, str]] = yaml.safe_load(TARGETS.read_text(encoding="utf-8"))
    return loaded


class HounsfieldSegmenter:
    """Masks of lungs, airways, ribs, vertebrae and nodules on a CT volume, without a model.

    A nodule's score is its roundness, that of any other structure is 1.
    """

    @property
    def fingerprint(self) -> Fingerprint:
        """Name, version and the digests of the targets it answers and of the zones."""
        digest = hashlib.sha256(TARGETS.read_bytes()).hexdigest()
        zones = zones_digest("volume", "side", "axis")
        return {"name": "hounsfield", "version": VERSION, "targets": digest, "zones": zones}

    def segment(self, volume: Volume, sites: Sequence[Site]) -> list[Segmentation | Ungrounded]:
        """Answer each site, order kept; structures that several sites need are computed once."""
        chest = Chest(volume)
        drawn: dict[str, Mask3D] = {}
        return [self._answer(chest, site, drawn) for site in sites]

    def _answer(
        self, chest: Chest, site: Site, drawn: dict[str, Mask3D]
    ) -> Segmentation | Ungrounded:
        names = structures().get(site.target)
        if names is None:
            return Ungrounded(
                "target_not_supported",
                f"{site.target}: not among the structures that follow from Hounsfield units",
            )
        name = names.get(site.modifiers.laterality or "either", names["either"])
        if name == NODULES:
            return _nodules_at(chest, site)
        if name not in drawn:
            drawn[name] = getattr(chest, name)()
        if not drawn[name].any():
            return Ungrounded("not_found", f"{site.target}: no voxel of the scan looks like it")
        return Segmentation(drawn[name], CERTAIN)


def _nodules_at(chest: Chest, site: Site) -> Segmentation | Ungrounded:
    said = site.modifiers
    if unknown := [zone for zone in said.zones if zone not in load_zones()]:
        return Ungrounded("zone_not_supported", f"no zone is called {unknown[0]}")
    nodules = [n for n in chest.nodules if at_site(n, said.laterality, said.zones)]
    if not nodules:
        elsewhere = len(chest.nodules)
        return Ungrounded(
            "not_found",
            f"{site.target}: no solid nodule of 6 mm or more where the report says, "
            f"{elsewhere} elsewhere",
        )
    mask = chest.draw_nodules(nodules)
    if not mask.any():
        return Ungrounded("not_found", f"{site.target}: too small for the scan's grid")
    return Segmentation(mask, min(nodule.score for nodule in nodules))
