from hypothesis import given
from hypothesis import strategies as st

from dashboard.sampling import BUDGET, Candidate, choose_studies

TARGETS = st.frozensets(st.sampled_from("edema effusion nodule fracture mass".split()))
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        study_id=st.text(min_size=1),
        abnormalities=TARGETS,
        grounded=st.integers(0, 5),
        cost=st.sampled_from([1, 4]),
    ),
    unique_by=lambda candidate: candidate.study_id,
    max_size=60,
)


@given(CANDIDATES)
def test_a_small_dataset_is_shown_whole_and_a_large_one_within_the_budget(
    candidates: list[Candidate],
) -> None:
    chosen = choose_studies(candidates)
    costs = {candidate.study_id: candidate.cost for candidate in candidates}
    if sum(costs.values()) <= BUDGET:
        assert chosen == list(costs)
    else:
        assert len(chosen) == len(set(chosen)) > 0
        assert sum(costs[study_id] for study_id in chosen) <= BUDGET


@given(CANDIDATES, st.randoms())
def test_the_order_of_a_large_dataset_does_not_matter(candidates, random) -> None:
    if sum(candidate.cost for candidate in candidates) > BUDGET:
        shuffled = random.sample(candidates, len(candidates))
        assert choose_studies(shuffled) == choose_studies(candidates)


def test_a_sample_shows_every_abnormality_before_it_repeats_and_ends_with_normal_reports() -> None:
    common = [Candidate(f"common{i}", frozenset({"edema", "mass"}), 0, 1) for i in range(500)]
    normal = [Candidate(f"normal{i}", frozenset(), 0, 1) for i in range(500)]
    rare = [Candidate(name, frozenset({name}), 0, 1) for name in ("hernia", "fracture", "cyst")]
    chosen = choose_studies([*common, *normal, *rare])
    assert chosen[0].startswith("common")
    assert set(chosen[1:4]) == {"hernia", "fracture", "cyst"}
    assert [name[:6] for name in chosen[-4:]] == ["normal"] * 4
    assert len(chosen) == BUDGET
