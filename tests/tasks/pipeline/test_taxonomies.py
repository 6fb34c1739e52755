"""The taxonomies that a store keeps."""

from dataclasses import replace
from pathlib import Path

import pytest

from storage.manifests import read_manifest, write_manifest
from storage.shards import Part
from storage.store import Store
from tasks.pipeline.taxonomies import FOLDER, as_chosen_in, built_with, outdated, remember
from taxonomy.targets import Taxonomy, TaxonomyError, load_taxonomy
from tests.storage.stores import write_part


def test_a_taxonomy_is_kept_whole() -> None:
    taxonomy = load_taxonomy()
    kept = Taxonomy.from_json(taxonomy.to_json())
    assert kept.targets == taxonomy.targets
    assert kept.digest("all") == taxonomy.digest("all")


def test_a_store_tells_what_each_data_set_was_built_with(tmp_path: Path) -> None:
    store, taxonomy = Store(str(tmp_path)), load_taxonomy()
    for name, digest in (("a", taxonomy.digest("all")), ("b", "of another version")):
        part = Part(name, "train", 0)
        write_part(store, part, ["1"])
        manifest = read_manifest(store, "assemble", part)
        assert manifest is not None
        write_manifest(store, replace(manifest, recipe={"engines": {"taxonomy": digest}}))
    assert built_with(store) == {"a": [], "b": []}  # from before stores kept taxonomies
    remember(store, taxonomy)
    found = built_with(store)
    assert [of.targets for of in found["a"]] == [taxonomy.targets]
    assert found["b"] == []
    assert outdated(store, taxonomy) == []
    kept = {name: target for name, target in taxonomy.targets.items() if name != "trachea"}
    assert outdated(store, Taxonomy(kept)) == ["a"]

    [file] = (tmp_path / FOLDER).iterdir()
    file.write_text("[{}]")
    with pytest.raises(TaxonomyError, match="no taxonomy that a store has kept"):
        built_with(store, "a")


def test_a_build_of_the_papers_targets_is_compared_with_those() -> None:
    taxonomy = load_taxonomy()
    paper = taxonomy.chosen("paper")
    assert as_chosen_in(paper, taxonomy).digest("all") == paper.digest("all")
    assert as_chosen_in(taxonomy, taxonomy).digest("all") == taxonomy.digest("all")
