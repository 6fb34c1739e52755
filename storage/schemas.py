"""The record schemas: one pyarrow schema per table, declared here and nowhere else.

Offsets are code points, half-open, into the text stored beside them, so that
`text[start:end] == phrase`. Boxes are half-open: pixels of the stored radiograph, origin at the
top left, or voxels of the volume's RAS+ grid, whose z edges are then set too. Field metadata
carries the unit and the meaning, and travels inside every shard. `storage.records` has the Python
records of these rows.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa


def _field(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, type_, metadata=metadata)


_KEY = [
    _field("dataset", pa.string(), "name of the dataset"),
    _field("split", pa.string(), "train, validate or test, as the dataset defines it"),
    _field("study_id", pa.string(), "unique within the dataset"),
]

IMAGE = pa.struct(
    [
        _field("image_id", pa.string(), "unique within the dataset"),
        _field("uri", pa.string(), "where the image file is, or would be"),
        _field("modality", pa.string(), "DICOM modality: CR, DX, CT, …"),
        _field("view", pa.string(), "view position: PA, AP, LATERAL; null when unknown or 3D"),
        _field(
            "shape", pa.list_(pa.int32()), "rows, columns; or x, y, z in RAS+", "pixel or voxel"
        ),
        _field("spacing_mm", pa.list_(pa.float64()), "in the order of shape", "mm"),
    ]
)

# A list and no map, as Hugging Face datasets reads no maps.
LABELS = pa.list_(
    pa.struct(
        [
            _field("name", pa.string(), "what the label is about, as the dataset names it"),
            _field("value", pa.int8(), "1 present, 0 absent, -1 uncertain"),
        ]
    )
)

MODIFIERS = pa.struct(
    [
        _field("laterality", pa.string(), "left, right or bilateral; null when not stated"),
        _field("zones", pa.list_(pa.string()), "upper, middle, lower, apical, basal, hilar, …"),
        _field("count", pa.int32(), "least number of instances stated; null when not stated"),
    ]
)

STUDIES = pa.schema(
    [
        *_KEY,
        _field("patient_id", pa.string(), "null when the dataset does not give it"),
        _field("images", pa.list_(IMAGE), "images of the study, localizable or not"),
        _field("findings", pa.string(), "text of the findings section; null when absent"),
        _field("impression", pa.string(), "text of the impression section; null when absent"),
        _field("labels", LABELS, "labels that the dataset gives"),
        _field("source", pa.string(), "where the report comes from; `authored` if we wrote it"),
    ]
)

CLEAN_REPORTS = pa.schema(
    [
        *_KEY,
        _field("findings", pa.string(), "cleaned findings; null when absent"),
        _field("impression", pa.string(), "cleaned impression; null when absent"),
        _field("removed", pa.list_(pa.string()), "passages dropped or rewritten, as they were"),
        _field("status", pa.string(), "unchanged or edited"),
        _field(
            "by_rules",
            pa.list_(pa.string()),
            "sentences, as they were, that the rules cleaned because the language model failed",
        ),
    ]
)

REPORT_WORDS = pa.schema(
    [
        *_KEY,
        _field(
            "words",
            pa.string(),
            "the distinct words of the report before and after cleaning, in their normal form, "
            "sorted, each between two spaces",
        ),
    ]
)

_PHRASE = [
    _field("section", pa.string(), "findings or impression"),
    _field("start", pa.int32(), "first code point in the cleaned section", "code point"),
    _field("end", pa.int32(), "one past the last", "code point"),
    _field("phrase", pa.string(), "the words themselves"),
    _field("target", pa.string(), "name of a target of the taxonomy"),
    _field("category", pa.string(), "anatomy or abnormality"),
    _field("modifiers", MODIFIERS, "what the words say of side, zone and number"),
    _field(
        "match",
        pa.string(),
        "exact, normalized (but for case and spaces) or fuzzy (similar)",
    ),
    _field(
        "by_rules",
        pa.bool_(),
        "the rules found or asserted it because the language model failed at its sentence",
    ),
]

PHRASES = pa.schema([*_KEY, *_PHRASE])

POSITIVES = pa.schema(
    [*_KEY, *_PHRASE, _field("assertion", pa.string(), "present, probable, possible or absent")]
)

_GROUNDING_KEY = [
    *_KEY,
    _field("image_id", pa.string(), "the image grounded in"),
    _field("target", pa.string(), "the target grounded"),
    _field("laterality", pa.string(), "the side asked for; null when the words name none"),
    _field("zones", pa.list_(pa.string()), "the zones asked for"),
]

_INSTANCE = _field("instance", pa.int32(), "0, 1, … within the target and site")

_BOX = [
    _field("x_min", pa.float32(), "left edge; lowest x of a volume", "pixel or voxel"),
    _field("y_min", pa.float32(), "top edge; lowest y of a volume", "pixel or voxel"),
    _field("x_max", pa.float32(), "right edge or highest x, exclusive", "pixel or voxel"),
    _field("y_max", pa.float32(), "bottom edge or highest y, exclusive", "pixel or voxel"),
    _field("score", pa.float32(), "the detector's own confidence, 0 to 1"),
    _field("z_min", pa.float32(), "lowest z of a volume; null on a radiograph", "voxel"),
    _field("z_max", pa.float32(), "highest z, exclusive; null on a radiograph", "voxel"),
]

BOXES = pa.schema(
    [
        *_GROUNDING_KEY,
        _INSTANCE,
        *_BOX,
        _field("detector", pa.string(), "name and version of the engine"),
        _field(
            "forced",
            pa.bool_(),
            "no box had the score that was asked for; the best was taken, as by the paper's code",
        ),
    ]
)

_VOXELS = [
    _field("shape", pa.list_(pa.int32()), "x, y, z in RAS+; or rows, columns", "voxel or pixel"),
    _field(
        "affine",
        pa.list_(pa.float64()),
        "4×4 row-major, voxel to RAS; null for a radiograph",
        "mm",
    ),
    _field("mask", pa.binary(), "encoded by storage.masks"),
    _field("voxel_count", pa.int64(), "voxels set", "voxel"),
    _field("volume_mm3", pa.float64(), "their volume; null for a radiograph", "mm³"),
    _field("score", pa.float32(), "the segmenter's own confidence, 0 to 1"),
]

MASKS = pa.schema(
    [
        *_GROUNDING_KEY,
        _INSTANCE,
        *_VOXELS,
        _field("segmenter", pa.string(), "name and version of the engine"),
    ]
)

BOX = pa.struct(
    [
        *_BOX,
    ]
)

MASK_REFERENCE = pa.struct(
    [
        _field("target", pa.string(), "the target of the row in `masks`"),
        _field("laterality", pa.string(), "the side of the row in `masks`"),
        _field("zones", pa.list_(pa.string()), "the zones of the row in `masks`"),
        _INSTANCE,
        _field("voxel_count", pa.int64(), "voxels set", "voxel"),
    ]
)

TAG = pa.struct(
    [
        _field("start", pa.int32(), "first code point in `text`", "code point"),
        _field("end", pa.int32(), "one past the last", "code point"),
        _field("phrase", pa.string(), "`text[start:end]`"),
        _field("target", pa.string(), "name of a target of the taxonomy"),
        _field("category", pa.string(), "anatomy or abnormality"),
        _field("grounding", pa.string(), "box, mask or none"),
        _field("reason", pa.string(), "why there is no grounding; null when there is"),
        _field("boxes", pa.list_(BOX), "the boxes of this tag's own target and site"),
        _field("mask", MASK_REFERENCE, "key of the mask of this tag's own target and site"),
        _field("laterality", pa.string(), "the side asked for; null when the words name none"),
        _field("zones", pa.list_(pa.string()), "the zones asked for"),
    ]
)

PROVENANCE = pa.struct(
    [
        _field("source", pa.string(), "where the report comes from; `prediction` if predicted"),
        _field("cleaner", pa.string(), "engine of the clean step"),
        _field("extractor", pa.string(), "engine of the extract step"),
        _field("filter", pa.string(), "engine of the filter step"),
        _field("localizer", pa.string(), "engine of the localize step; null without an image"),
        _field("taxonomy", pa.string(), "digest of the taxonomy"),
        _field("notice", pa.string(), "research use, not for clinical decisions"),
        _field("model", pa.string(), "what predicted the report; null unless predicted"),
        _field("query", pa.string(), "what the model was asked; null unless predicted"),
        _field(
            "by_rules",
            pa.bool_(),
            "the rules made some of the text or the tags because the language model failed",
        ),
    ]
)

GROUNDED_REPORTS = pa.schema(
    [
        *_KEY,
        _field("image_id", pa.string(), "the image grounded in; null without one"),
        _field("text", pa.string(), "the cleaned report, findings and impression"),
        _field("tags", pa.list_(TAG), "in order of start, never overlapping"),
        _field("provenance", PROVENANCE, "who made what"),
    ]
)

REJECTS = pa.schema(
    [
        *_KEY,
        _field("stage", pa.string(), "the stage that rejected the record"),
        _field("record", pa.string(), "what was rejected, for people: a file, report, phrase, …"),
        _field("reason", pa.string(), "reason code, see storage/reasons.yaml"),
        _field("detail", pa.string(), "one sentence a person can act on"),
        _field("image_id", pa.string(), "image of a rejected site; null without one"),
        _field("target", pa.string(), "target of a rejected site or phrase; null otherwise"),
        _field("laterality", pa.string(), "side of a rejected site; null when not stated"),
        _field("zones", pa.list_(pa.string()), "zones of a rejected site; null otherwise"),
        _field("section", pa.string(), "section of a rejected phrase; null otherwise"),
        _field("start", pa.int32(), "start of a rejected phrase in its section", "code point"),
    ]
)

_GOLD_KEY = [
    *_KEY,
    _field("image_id", pa.string(), "the image; null of words about the whole study"),
    _field("phrase_id", pa.string(), "unique in the study; null of what belongs to no phrase"),
    _field("label", pa.string(), "what the dataset calls it; null if it has no classes"),
    _field("target", pa.string(), "the label's target of the taxonomy; null if it has none"),
]

_ANNOTATORS = [
    _field("annotator", pa.string(), "who marked it, or how marks were fused; null if not said"),
    _field("readers", pa.int32(), "how many people marked it"),
]

_GOLD_SITE = [
    *_GOLD_KEY,
    _field("laterality", pa.string(), "the side that the label names and the target does not"),
    _INSTANCE,
]

GOLD_PHRASES = pa.schema(
    [
        *_GOLD_KEY,
        _field("phrase", pa.string(), "words that a person wrote or marked"),
        _field("assertion", pa.string(), "present, probable, possible or absent"),
        _ANNOTATORS[0],
    ]
)

GOLD_BOXES = pa.schema(
    [*_GOLD_SITE, *(field for field in _BOX if field.name != "score"), *_ANNOTATORS]
)

GOLD_MASKS = pa.schema(
    [*_GOLD_SITE, *(field for field in _VOXELS if field.name != "score"), *_ANNOTATORS]
)

QUESTIONS = pa.schema(
    [
        *_KEY,
        _field("image_id", pa.string(), "the image asked about"),
        _field("position", pa.int32(), "0, 1, … in the conversation about the image"),
        _field("question", pa.string(), "the question"),
        _field("answers", pa.list_(pa.string()), "the answers, each of them right"),
        _field("question_type", pa.string(), "as the dataset names it; null if it does not"),
        _field("answer_type", pa.string(), "as the dataset names it; null if it does not"),
    ]
)

SCHEMAS: dict[str, pa.Schema] = {
    "studies": STUDIES,
    "clean_reports": CLEAN_REPORTS,
    "report_words": REPORT_WORDS,
    "phrases": PHRASES,
    "positives": POSITIVES,
    "boxes": BOXES,
    "masks": MASKS,
    "grounded_reports": GROUNDED_REPORTS,
    "gold_phrases": GOLD_PHRASES,
    "gold_boxes": GOLD_BOXES,
    "gold_masks": GOLD_MASKS,
    "questions": QUESTIONS,
    "rejects": REJECTS,
}
"""Every table of the store, by name."""


def schema_digest(table: str) -> str:
    """SHA-256 of the columns of a table: shards of an earlier schema count as out of date."""
    columns = SCHEMAS[table].to_string(show_field_metadata=False, show_schema_metadata=False)
    return hashlib.sha256(columns.encode()).hexdigest()
