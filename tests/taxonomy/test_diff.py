"""Changes between two taxonomies, target by target."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from taxonomy.diff import Change, diff
from taxonomy.targets import Taxonomy, TaxonomyError, load_taxonomy

BASE: dict[str, dict[str, Any]] = {
    "lung": {"sat": "lung"},
    "heart": {"sat": "heart"},
    "lung nodule": {"parents": ["lung"], "synonyms": ["coin lesion"], "vindr": "Nodule/Mass"},
    "lung mass": {"parents": ["lung"]},
    "ground glass": {"parents": ["lung"]},
}


def _taxonomy(folder: Path, entries: dict[str, dict[str, Any]]) -> Taxonomy:
    file = folder / "targets.yaml"
    file.write_text(yaml.safe_dump({"abnormality": {"Lungs": entries}}))
    return load_taxonomy(file)


@pytest.mark.parametrize(
    ("removed", "changed", "expected"),
    [
        ([], {}, []),
        ([], {"cavity": {}}, ["cavity: added"]),
        (["lung mass"], {}, ["lung mass: removed"]),
        (
            ["lung nodule"],
            {"pulmonary nodule": BASE["lung nodule"] | {"replaces": "lung nodule"}},
            ["pulmonary nodule: renamed, was lung nodule"],
        ),
        (
            ["lung nodule", "lung mass"],
            {"lung lesion": {"replaces": ["lung nodule", "lung mass"]}},
            ["lung lesion: merged from lung nodule, lung mass"],
        ),
        (
            ["lung mass"],
            {"lung nodule": BASE["lung nodule"] | {"replaces": "lung mass"}},
            [
                "lung nodule: merged from lung nodule, lung mass",
                "lung nodule: synonym added: lung mass",
            ],
        ),
        (
            ["ground glass"],
            {
                "ground glass nodule": {"replaces": "ground glass"},
                "haze": {"replaces": "ground glass"},
            },
            ["ground glass: split into ground glass nodule, haze"],
        ),
        (
            [],
            {"lung nodule": {"parents": ["heart"], "synonyms": ["Nodulus"], "vindr": "Mass"}},
            [
                "lung nodule: synonym added: Nodulus",
                "lung nodule: synonym removed: coin lesion",
                "lung nodule: parent added: heart",
                "lung nodule: parent removed: lung",
                "lung nodule: vindr was Nodule/Mass, is Mass",
            ],
        ),
        ([], {"lung nodule": BASE["lung nodule"] | {"synonyms": ["coin lesions"]}}, []),
        (
            ["lung"],
            {
                "lungs and airways": {"sat": "lung", "replaces": "lung"},
                **{
                    name: BASE[name] | {"parents": ["lungs and airways"]}
                    for name in ("lung nodule", "lung mass", "ground glass")
                },
            },
            ["lungs and airways: renamed, was lung"],
        ),
    ],
)
def test_each_kind_of_change_is_said_once(
    tmp_path: Path, removed: list[str], changed: dict[str, Any], expected: list[str]
) -> None:
    old = _taxonomy(tmp_path, BASE)
    kept = {name: entry for name, entry in BASE.items() if name not in removed}
    new = _taxonomy(tmp_path, kept | changed)
    assert [str(change) for change in diff(old, new)] == expected


def test_the_name_of_a_replaced_target_stays_a_word_for_its_heir(tmp_path: Path) -> None:
    entries = {"pulmonary nodule": {"replaces": "lung nodule"}, "haze": {"replaces": "veil"}}
    renamed = _taxonomy(tmp_path, entries | {"fog": {"replaces": "veil"}})
    assert renamed["pulmonary nodule"].phrases == ("pulmonary nodule", "lung nodule")
    assert renamed["haze"].phrases == ("haze",)  # a split: nobody knows which one is meant


def test_a_target_that_is_still_there_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="replaces 'lung', which is still there"):
        _taxonomy(tmp_path, BASE | {"lobe": {"replaces": "lung"}})


NAMES = st.sampled_from(["lung", "heart", "lung nodule", "cavity", "haze"])


@given(st.dictionaries(NAMES, st.lists(st.sampled_from(["alpha", "beta"]), max_size=1), min_size=1))
def test_a_taxonomy_has_no_difference_from_itself_and_every_other_has_one(
    tmp_path_factory: pytest.TempPathFactory, synonyms: dict[str, list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("taxonomy")
    used = set[str]()
    entries = {}
    for name, words in synonyms.items():
        entries[name] = {"synonyms": [word for word in words if word not in used]}
        used.update(words)
    taxonomy, base = _taxonomy(folder, entries), _taxonomy(folder, BASE)
    assert diff(taxonomy, taxonomy) == []
    changes = diff(base, taxonomy)
    assert {c.target for c in changes if c.kind == "added"} == entries.keys() - BASE.keys()
    assert {c.target for c in changes if c.kind == "removed"} == BASE.keys() - entries.keys()
    assert all(isinstance(change, Change) for change in changes)
