"""The audit: what tags name, how halves are scored, and the real even half."""

import pyarrow as pa
import pyarrow.compute
import pytest

from storage.schemas import SCHEMAS
from storage.shards import table_from_rows
from tasks.annotate import annotate
from tasks.audit.disagreements import disagreements, load_judgments
from tasks.audit.mesh import (
    MINIMUM_SUPPORT,
    audit,
    coded_targets,
    load_tag_rules,
    manual_tags,
    report_number,
)
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()
REQUIRED = {
    "cardiomegaly", "pleural effusion", "atelectasis", "pneumothorax", "pulmonary emphysema",
    "pulmonary edema", "lung nodule", "hiatal hernia", "pulmonary consolidation",
    "pulmonary infiltrate", "pulmonary opacification", "fracture",
}  # fmt: skip


def study(number, *tags):
    labels = [(f"mesh_major:{tag}", 1) for tag in tags]
    return {"study_id": f"CXR{number}", "labels": [*labels, ("mesh_automatic:opacity", 1)]}


def positive(number, target):
    return {"study_id": f"CXR{number}", "target": target}


def scored(studies, positives):
    return audit(
        table_from_rows("studies", studies), table_from_rows("positives", positives), TAXONOMY
    )


def test_every_rule_names_an_abnormality_and_the_required_ones_are_there():
    targets = {rule.target for rule in load_tag_rules()}
    assert targets >= REQUIRED
    assert all(TAXONOMY[target].category == "abnormality" for target in targets)


@pytest.mark.parametrize(
    ("tag", "targets"),
    [
        ("Cardiomegaly/mild", {"cardiomegaly"}),
        ("Fractures, Bone/ribs/left", {"fracture", "rib fracture"}),
        ("Opacity/lung/base/left", {"pulmonary opacification"}),
        ("Opacity/lung/base/left/round", {"pulmonary opacification", "lung nodule"}),
        ("Calcified Granuloma/lung/apex/right", {"calcification"}),
        ("Hydropneumothorax/right", {"pleural effusion", "pneumothorax"}),
        ("Mediastinum/paratracheal/enlarged ", set()),
        ("Cicatrix/pleura/bilateral", {"pleural thickening"}),
        ("Cicatrix/lung/base/left", {"pulmonary fibrosis"}),
        ("Subcutaneous Emphysema", set()),
        ("normal", set()),
    ],
)
def test_what_a_tag_names(tag, targets):
    assert coded_targets([tag], load_tag_rules()) == targets


def test_scores_of_a_half():
    studies = [study(2, "Cardiomegaly"), study(4, "normal"), study(6, "Pleural Effusion/right")]
    positives = [
        positive(2, "cardiomegaly"),
        positive(4, "cardiomegaly"),
        positive(8, "cardiomegaly"),
    ]
    result = scored(studies, positives)
    assert result.even.reports == 3
    assert result.odd.reports == 0
    assert result.even.overall.precision == 0.5
    assert result.even.overall.recall == 0.5
    assert result.even.targets["cardiomegaly"].f1 == pytest.approx(2 / 3)
    assert result.as_json()["even"]["micro_f1"] == 0.5
    assert set(result.as_json()) == {"even", "odd"}


def test_a_narrower_finding_agrees_with_the_broader_tag():
    result = scored([study(2, "Fractures, Bone")], [positive(2, "rib fracture")])
    assert result.even.targets["fracture"].agreed == 1
    assert result.even.targets["rib fracture"].agreed == 0


def test_rare_targets_stay_out_of_the_macro_average_alone():
    studies = [study(2 * i, "Cardiomegaly") for i in range(MINIMUM_SUPPORT)]
    studies.append(study(100, "Pneumothorax"))
    result = scored(studies, [positive(2 * i, "cardiomegaly") for i in range(MINIMUM_SUPPORT)])
    assert result.even.macro_f1 == 1
    assert result.even.mean_f1(1) == 0.5
    assert result.even.overall.recall == MINIMUM_SUPPORT / (MINIMUM_SUPPORT + 1)


def test_uncoded_reports_are_left_out():
    assert manual_tags([("mesh_major:No Indexing", 1)]) == []
    assert scored([study(2, "No Indexing"), study(4)], []).even.reports == 0


def test_a_study_without_a_number_is_in_no_half():
    with pytest.raises(ValueError, match="no number"):
        report_number("chest-ct")


@pytest.fixture(scope="module")
def even_half(even_studies):
    studies = even_studies
    engines = choose_engines(BuildSettings(dataset="openi"), TAXONOMY)
    found = annotate(studies, engines, TAXONOMY, require="both", positive={"present"})
    kept = pa.array(found.reports["study_id"].to_pylist())
    mask = pa.compute.is_in(studies["study_id"], value_set=kept)
    return studies.filter(mask), found.reports, found.phrases, found.positives


def test_the_even_half_agrees_with_its_coders(even_half):
    studies, _, _, positives = even_half
    result = audit(studies, positives, TAXONOMY)
    assert result.even.reports > 1500
    assert result.odd.reports == 0
    assert result.even.micro_f1 >= 0.955
    assert result.even.macro_f1 >= 0.93


def test_the_most_frequent_disagreements_are_judged(even_half):
    found = disagreements(*even_half, TAXONOMY)
    assert len(found) == 30
    counts = [one.count for one in found]
    assert counts == sorted(counts, reverse=True)
    assert [one for one in found if one.judgment is None] == []


def test_judgments_name_a_side_and_a_reason():
    for (kind, target, _), (wrong, reason) in load_judgments().items():
        assert kind in ("missed", "extra")
        assert target in TAXONOMY
        assert wrong in ("ours", "theirs", "neither")
        assert len(reason) > 20
    assert SCHEMAS["studies"].field("labels").type == pa.map_(pa.string(), pa.int8())
