import pytest

from model.data.balancing import has_findings, weight_without_findings


def test_studies_without_findings_are_drawn_as_often_as_asked() -> None:
    labels = [{"chexpert:Edema": 1}] * 30 + [{"chexpert:No Finding": 1}] * 70
    positive = [has_findings(of_study) for of_study in labels]
    weight = weight_without_findings(0.2, sum(positive), len(positive) - sum(positive))
    assert weight == pytest.approx(0.2 * 30 / (0.8 * 70))
    weights = [1.0 if found else weight for found in positive]
    without = sum(w for w, found in zip(weights, positive, strict=True) if not found)
    assert without / sum(weights) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="cannot be drawn"):
        weight_without_findings(1.0, 1, 1)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"chexpert:Edema": 0, "chexpert:Pneumonia": -1}, False),
        ({"chexpert:No Finding": 1, "chexpert:Support Devices": 1}, False),
        ({"negbio:Edema": 1}, False),
        ({"chexpert:Edema": -1, "chexpert:Lung Opacity": 1}, True),
    ],
)
def test_what_counts_as_a_finding(labels: dict[str, int], found: bool) -> None:
    assert has_findings(labels) == found
