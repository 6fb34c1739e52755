"""Stores with real images and hand-made records, as the pipeline would leave them."""

from pathlib import Path
from typing import Any

from storage.images.loading import describe_image, load_volume
from storage.images.volume_files import read_label_ids
from storage.manifests import Manifest, read_manifest, recipe_digest, write_manifest
from storage.records import Box, Mask, MaskKey, SiteKey
from storage.shards import Part, shard_path, table_from_rows, write_shard
from storage.store import Store

STAGES = {
    "studies": "ingest",
    "clean_reports": "clean",
    "phrases": "extract",
    "positives": "filter",
    "boxes": "detect",
    "masks": "segment",
    "grounded_reports": "assemble",
}

RADIOGRAPH_TEXT = (
    "Findings: Two nodules <b>&amp; “more”</b> in the left lung 🫁.\r\nHeart & aorta ≥ normal.\n"
    "Impression: עברית nodules, stable.  Trachea midline."
)
VOLUME_TEXT = "Findings: The heart is enlarged. The spleen is not shown."


def tag_row(text: str, phrase: str, target: str, category: str, **grounding: Any) -> dict[str, Any]:
    start = text.index(phrase)
    row = {"boxes": [], "mask": None, "grounding": "none", "reason": None} | grounding
    place = {"start": start, "end": start + len(phrase), "phrase": phrase}
    return place | SiteKey(target).to_row() | {"category": category} | row


def box_row(x_min: float, y_min: float, x_max: float, y_max: float) -> dict[str, Any]:
    return Box(x_min, y_min, x_max, y_max, 0.5).to_row()


def image_row(image_id: str, path: Path) -> dict[str, Any]:
    about = describe_image(path)
    return {
        "image_id": image_id,
        "uri": str(path),
        "modality": about.modality,
        "view": about.view,
        "shape": list(about.shape),
        "spacing_mm": about.spacing_mm and list(about.spacing_mm),
    }


def write_study(
    store: Store, index: int, study_id: str, image: dict[str, Any], text: str, **rows: Any
) -> None:
    """One study as a part of its own: `tags`, and `masks` if it has any."""
    part = Part("showcase", "test", index)
    key = {"dataset": part.dataset, "split": part.split, "study_id": study_id}
    made = {
        "source": "authored",
        "cleaner": "rules 1",
        "extractor": "lexicon 1",
        "filter": "context 1",
        "localizer": "atlas 1",
        "taxonomy": "0123456789abcdef",
        "notice": "research use, not for clinical decisions",
    }
    report = {"image_id": image["image_id"], "text": text, "tags": rows["tags"], "provenance": made}
    tables: dict[str, list[dict[str, Any]]] = {
        "studies": [key | {"images": [image], "source": "authored"}],
        "clean_reports": [key | {"removed": ["Compared <with> before."], "status": "edited"}],
        "phrases": [],
        "positives": [],
        "boxes": [],
        "masks": [key | {"image_id": image["image_id"]} | mask for mask in rows.get("masks", ())],
        "grounded_reports": [key | report],
    }
    for table, stage in STAGES.items():
        content = table_from_rows(table, tables[table])
        shard = write_shard(store, shard_path(table, part, stage), table, content)
        digest = recipe_digest(stage, {}, {})
        count = len(tables[table])
        write_manifest(
            store, Manifest(stage, part, digest, {}, {}, {table: shard}, "row", count, count)
        )


def radiograph_tags() -> list[dict[str, Any]]:
    text = RADIOGRAPH_TEXT
    nodules = {"grounding": "box", "boxes": [box_row(200, 300, 320, 420), box_row(900, 0, 999, 80)]}
    lung = {"grounding": "box", "boxes": [box_row(950, 150, 1700, 1600)]}
    return [
        tag_row(text, "Two nodules", "lung nodule", "abnormality", **nodules),
        tag_row(text, "left lung", "left lung", "anatomy", **lung),
        tag_row(text, "Heart", "heart", "anatomy", reason="not_found"),
        tag_row(text, "nodules, stable", "lung nodule", "abnormality", **nodules),
    ]


def heart_mask(volume_path: Path, mask_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of `masks` and a tag's reference to it, from a reference mask on the same grid."""
    volume = load_volume(volume_path)
    voxels = read_label_ids(mask_path)[0] > 0
    key = MaskKey(SiteKey("heart"))
    mask = Mask.of(voxels, volume.affine, 1.0)
    row = key.to_row() | mask.to_row() | {"segmenter": "reference"}
    return row, key.to_row() | {"voxel_count": mask.voxel_count}


def touch_manifest(store: Store, stage: str, part: Part, rows_out: int) -> None:
    """Change what a manifest accounts for, as a run with other settings does."""
    known = read_manifest(store, stage, part)
    assert known is not None
    rows_in = rows_out + sum(known.rejects.values())
    write_manifest(store, Manifest(**{**vars(known), "rows_in": rows_in, "rows_out": rows_out}))
