"""The audit: what tags name, how halves are scored, and the real even half."""

import pytest

from storage.shards import table_from_rows
from tasks.annotate import annotate
from tasks.audit.automatic import audit_automatic, audit_coders, load_terms
from tasks.audit.disagreements import disagreements, load_judgments
from tasks.audit.gold import load_gold
from tasks.audit.mesh import audit, coded_targets, load_tag_rules, manual_tags
from tasks.audit.scores import MINIMUM_SUPPORT, report_number
from tasks.pipeline.engine_choice import choose_engines
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import load_taxonomy

TAXONOMY = load_taxonomy()
REQUIRED = {
    "cardiomegaly", "pleural effusion", "atelectasis", "pneumothorax", "pulmonary emphysema",
    "pulmonary edema", "lung nodule", "hiatal hernia", "pulmonary consolidation",
    "pulmonary infiltrate", "pulmonary opacification", "fracture",
}  # fmt: skip


def label(name):
    return {"name": name, "value": 1}


def study(number, *tags):
    labels = [label(f"mesh_major:{tag}") for tag in tags]
    return {"study_id": f"CXR{number}", "labels": [*labels, label("mesh_automatic:opacity")]}


def positive(number, target):
    return {"study_id": f"CXR{number}", "target": target}


def scored(studies, positives, rejected=()):
    kept = [{"study_id": s["study_id"]} for s in studies if s["study_id"] not in rejected]
    return audit(
        table_from_rows("studies", studies),
        table_from_rows("clean_reports", kept),
        table_from_rows("positives", positives),
        TAXONOMY,
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
        ("Calcified Granuloma/lung/apex/right", {"calcified granuloma"}),
        ("Hydropneumothorax/right", {"pleural effusion", "pneumothorax"}),
        ("Mediastinum/paratracheal/enlarged ", set()),
        ("Cicatrix/pleura/bilateral", {"pleural thickening"}),
        ("Cicatrix/lung/base/left", {"pulmonary fibrosis"}),
        ("Subcutaneous Emphysema", {"subcutaneous emphysema"}),
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


def test_a_report_that_cleaning_rejected_counts_as_missed():
    studies = [study(2, "Cardiomegaly"), study(4, "Cardiomegaly"), study(6, "normal")]
    half = scored(studies, [positive(2, "cardiomegaly")], rejected={"CXR4"}).even
    assert half.overall.recall == 0.5
    assert half.overall.precision == 1
    assert half.coverage == pytest.approx(2 / 3)
    assert half.as_json()["coverage"] == half.coverage


def test_a_narrower_finding_agrees_with_the_broader_tag():
    result = scored([study(2, "Fractures, Bone")], [positive(2, "rib fracture")])
    assert result.even.targets["fracture"].agreed == 1
    assert result.even.targets["rib fracture"].agreed == 0


def test_rare_targets_stay_out_of_the_second_macro_average_alone():
    studies = [study(2 * i, "Cardiomegaly") for i in range(MINIMUM_SUPPORT)]
    studies.append(study(100, "Pneumothorax"))
    result = scored(studies, [positive(2 * i, "cardiomegaly") for i in range(MINIMUM_SUPPORT)])
    assert result.even.macro_f1 == 0.5
    assert result.even.mean_f1(MINIMUM_SUPPORT) == 1
    assert result.even.overall.recall == MINIMUM_SUPPORT / (MINIMUM_SUPPORT + 1)


def test_uncoded_reports_are_left_out():
    assert manual_tags([label("mesh_major:No Indexing")]) == []
    assert scored([study(2, "No Indexing"), study(4)], []).even.reports == 0


def test_automatic_tags_are_a_reference_of_their_own():
    def automatic(number, *tags):
        return {
            "study_id": f"CXR{number}",
            "labels": [label(f"mesh_automatic:{tag}") for tag in tags],
        }

    studies = table_from_rows(
        "studies",
        [automatic(2, "Hernia, Hiatal", "piercing"), study(4, "Cardiomegaly"), automatic(6)],
    )
    reports = table_from_rows("clean_reports", [{"study_id": f"CXR{n}"} for n in (2, 4, 6)])
    positives = table_from_rows(
        "positives", [positive(2, "hiatal hernia"), positive(4, "atelectasis")]
    )
    half = audit_automatic(studies, reports, positives, TAXONOMY).even
    assert half.reports == 2  # the third was not coded, and has no term
    assert half.targets["hiatal hernia"].f1 == 1
    assert half.targets["pulmonary opacification"].support == 1  # study() has the term opacity
    assert half.targets["atelectasis"].predicted == 1


def test_terms_of_the_automatic_tags_name_targets_of_the_taxonomy_or_new_ones():
    named = {target for targets in load_terms().values() for target in targets}
    new = load_gold(TAXONOMY).new_targets["abnormality"]
    assert {target for target in named if target not in TAXONOMY} <= set(new)


def test_a_study_without_a_number_is_in_no_half():
    with pytest.raises(ValueError, match="no number"):
        report_number("chest-ct")


@pytest.fixture(scope="module")
def even_half(even_studies):
    studies = even_studies
    settings = BuildSettings(dataset="openi")
    engines = choose_engines(settings, TAXONOMY)
    found = annotate(studies, engines, TAXONOMY, positive=settings.positive)
    return studies, found.reports, found.phrases, found.positives


def test_the_even_half_agrees_with_its_coders(even_half):
    studies, reports, _, positives = even_half
    result = audit(studies, reports, positives, TAXONOMY)
    assert result.even.reports > 1900
    assert result.even.coverage >= 0.99
    assert result.odd.reports == 0
    assert result.even.macro_f1 >= 0.85
    assert result.even.mean_f1(MINIMUM_SUPPORT) >= 0.88
    assert result.even.micro_f1 >= 0.93


def test_the_even_half_agrees_with_the_automatic_tags_as_its_coders_do(even_half):
    studies, reports, _, positives = even_half
    ours = audit_automatic(studies, reports, positives, TAXONOMY).even
    coders = audit_coders(studies, TAXONOMY).even
    assert ours.reports > 1900
    assert ours.micro_f1 >= coders.micro_f1 - 0.02


def test_the_most_frequent_disagreements_are_judged(even_half):
    studies, reports, phrases, positives = even_half
    found = disagreements(studies, reports, phrases, positives, TAXONOMY)
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
