"""The packaged taxonomy keeps its promises; a broken one is told what is wrong, and where."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from taxonomy import TaxonomyError, load_taxonomy
from taxonomy.targets import PACKAGED

VINDR_CLASSES = {
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
}  # fmt: skip
"""The 21 local findings of VinDr-CXR that have a name (Nguyen et al. 2022, table 2)."""

TAXONOMY = load_taxonomy()
CASES = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text(encoding="utf-8"))
GOOD = CASES["good"]


def test_counts_by_category():
    counts = Counter((target.origin, target.category) for target in TAXONOMY.targets.values())
    assert counts["paper", "anatomy"] == 257
    assert counts["paper", "abnormality"] == 50
    assert counts["vividmed", "anatomy"] + counts["vividmed", "abnormality"] > 50


def test_the_papers_part_names_its_307_targets_and_nothing_broader():
    part = TAXONOMY.chosen("paper")
    assert len(part.targets) == 307
    assert {t.origin for t in part.targets.values()} == {"paper"}
    assert part["rib fracture"].parents == ()
    assert "calcified granuloma" in part["calcification"].synonyms
    assert TAXONOMY.chosen("all") is TAXONOMY


def test_left_and_right_are_mirror_images():
    def mirrored(text):
        swap = {"left": "right", "right": "left"}
        return "".join(swap.get(part, part) for part in _split(text)) if text else text

    for target in TAXONOMY.targets.values():
        # The middle lobe is the right lung's, the appendage the left atrium's.
        if target.name in ("right lung middle lobe", "left atrial appendage"):
            continue
        if "left" in target.name or "right" in target.name:
            twin = TAXONOMY[mirrored(target.name)]
            assert twin.parents == tuple(mirrored(parent) for parent in target.parents)
            assert twin.sat == mirrored(target.sat)
            assert twin.totalsegmentator == mirrored(target.totalsegmentator)


def _split(text):
    separated = text
    for mark in " _":
        separated = separated.replace(mark, f"\0{mark}\0")
    return separated.split("\0")


def test_each_vindr_class_boxes_exactly_one_target():
    classes = [target.vindr for target in TAXONOMY.targets.values() if target.vindr]
    assert Counter(classes) == Counter(VINDR_CLASSES)


def test_each_totalsegmentator_class_segments_exactly_one_target():
    keys = [t.totalsegmentator for t in TAXONOMY.targets.values() if t.totalsegmentator]
    assert len(keys) == len(set(keys)) == 117


def test_parents_are_of_the_same_category():
    for target in TAXONOMY.targets.values():
        for parent in target.parents:
            assert TAXONOMY[parent].category == target.category


def test_ancestors_and_descendants():
    assert TAXONOMY.ancestors("left rib 5") == {"left rib", "rib"}
    assert TAXONOMY.ancestors("left lung lower lobe") == {"lung lower lobe", "left lung", "lung"}
    assert "arterial calcification" in TAXONOMY.descendants("calcification")
    assert TAXONOMY.descendants("fracture") == {
        "rib fracture",
        "clavicle fracture",
        "vertebral compression fracture",
    }


def test_digests_see_their_part_and_not_the_layout(tmp_path):
    source = PACKAGED.read_text(encoding="utf-8")

    def changed(old, new):
        assert old in source
        path = tmp_path / "targets.yaml"
        path.write_text(source.replace(old, new), encoding="utf-8")
        other = load_taxonomy(path)
        return {
            p for p in ("lexicon", "groundings", "all") if other.digest(p) != TAXONOMY.digest(p)
        }

    assert changed("    glioma: {parents: tumor}", "    'glioma':\n      parents: [tumor]") == set()
    assert (
        changed("synonyms: [ILD, interstitial disease,", "synonyms: [interstitial disease, ILD,")
        == set()
    )
    assert changed("vindr: ILD", "vindr: Lung disease") == {"groundings", "all"}
    assert changed("windpipe", "wind pipe") == {"lexicon", "all"}


def test_loading_is_light():
    code = "import sys, taxonomy; taxonomy.load_taxonomy(); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"numpy", "pandas", "pyarrow", "prefect", "scipy"} & set(modules)


@pytest.mark.parametrize("mistake", CASES["mistakes"], ids=lambda mistake: mistake["told"])
def test_each_mistake_gets_one_sentence(tmp_path, mistake):
    assert mistake["change"] in GOOD
    path = tmp_path / "targets.yaml"
    path.write_text(GOOD.replace(mistake["change"], mistake["to"], 1), encoding="utf-8")
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(path)
    message = str(caught.value)
    assert message.startswith("targets.yaml, ")
    assert mistake["told"] in message
    assert len(message.splitlines()) == 1


def test_all_mistakes_are_told_at_once(tmp_path):
    path = tmp_path / "targets.yaml"
    path.write_text(GOOD.replace("lung}", "heart}").replace("edema: {}", "edema: {sats: x}"))
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "anatomy:\n", "just words", "anatomy: [a, b]"])
def test_a_file_without_targets_is_refused(tmp_path, text):
    path = tmp_path / "targets.yaml"
    path.write_text(text)
    with pytest.raises(TaxonomyError):
        load_taxonomy(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TaxonomyError, match="cannot be read"):
        load_taxonomy(tmp_path / "nothing.yaml")
