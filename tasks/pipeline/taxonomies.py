"""The taxonomies that a store was built with, kept in it by their digests.

A data set's tags mean what the taxonomy of its build says. The store keeps each one, so that a
later taxonomy can be compared with it wherever the store is.
"""

from __future__ import annotations

import json

from storage.plans import current_manifests
from storage.store import Store
from tasks.pipeline.settings import BuildSettings
from taxonomy.targets import Taxonomy, TaxonomyError, load_taxonomy

FOLDER = "taxonomies"
_PUBLISHED = f"{FOLDER}/published.json"


def remember(store: Store, taxonomy: Taxonomy) -> None:
    """Keep a taxonomy in the store, unless it is there already.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    path = _path(taxonomy.digest("all"))
    if store.read(path) is None:
        store.write(path, taxonomy.to_json().encode())


def publish(store: Store, taxonomy: Taxonomy) -> str:
    """Make a taxonomy the one that data sets of the store are annotated with from now on.

    Returns:
        its digest.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    remember(store, taxonomy)
    digest = taxonomy.digest("all")
    store.write(_PUBLISHED, json.dumps({"digest": digest}).encode())
    return digest


def published(store: Store) -> str | None:
    """The digest of the taxonomy last published in a store, if any was.

    Raises:
        StoreError: if the store cannot be read.
    """
    data = store.read(_PUBLISHED)
    return None if data is None else str(json.loads(data)["digest"])


def taxonomy_of_store(store: Store) -> Taxonomy:
    """The taxonomy that a store's data sets are to be annotated with: published, or the packaged.

    Raises:
        StoreError: if the store cannot be read.
        TaxonomyError: if the taxonomy is damaged.
    """
    digest = published(store)
    return (kept(store, digest) if digest else None) or load_taxonomy()


def taxonomy_of(settings: BuildSettings) -> Taxonomy:
    """The targets that a run names.

    Raises:
        StoreError: if the store cannot be read.
        TaxonomyError: if the taxonomy is damaged, or is not kept in the store.
    """
    store = Store(settings.store)
    digest = settings.taxonomy_version or published(store)
    if digest is None:
        return load_taxonomy().chosen(settings.taxonomy)
    if (found := kept(store, digest)) is None:
        raise TaxonomyError(
            f"{store.root} keeps no taxonomy with the digest {digest}: publish it with "
            "`vividmed taxonomy publish`, or leave `taxonomy_version` out"
        )
    return found.chosen(settings.taxonomy)


def kept(store: Store, digest: str) -> Taxonomy | None:
    """The taxonomy of a digest, if the store keeps it.

    Raises:
        StoreError: if the store cannot be read.
        TaxonomyError: if it is damaged.
    """
    data = store.read(_path(digest)) if digest else None
    return None if data is None else Taxonomy.from_json(data.decode())


def built_with(store: Store, dataset: str = "") -> dict[str, list[Taxonomy]]:
    """The taxonomies of what a store holds, by data set; several where a build was interrupted.

    None of a data set that was built before stores kept taxonomies.

    Raises:
        StoreError: if the store cannot be read.
        TaxonomyError: if a taxonomy in it is damaged.
    """
    digests: dict[str, dict[str, None]] = {}
    for manifest in current_manifests(store, dataset):
        made_by = manifest.recipe.get("engines")
        if isinstance(made_by, dict) and "taxonomy" in made_by:
            digests.setdefault(manifest.part.dataset, {})[str(made_by["taxonomy"])] = None
    kept = {name: [store.read(_path(digest)) for digest in of] for name, of in digests.items()}
    return {
        name: [Taxonomy.from_json(data.decode()) for data in of if data is not None]
        for name, of in kept.items()
    }


def as_chosen_in(kept: Taxonomy, taxonomy: Taxonomy) -> Taxonomy:
    """The part of a taxonomy that a build would use that chose as an earlier one did.

    Args:
        kept: of the earlier build: the paper's targets alone, or with ours beside them.
        taxonomy: the one of today.
    """
    of_paper = all(target.origin == "paper" for target in kept.targets.values())
    return taxonomy.chosen("paper" if of_paper else "all")


def outdated(store: Store, taxonomy: Taxonomy) -> list[str]:
    """The data sets whose tags were made with other targets than those of a taxonomy.

    Raises:
        StoreError, TaxonomyError: as `built_with`.
    """
    return [
        name
        for name, of in built_with(store).items()
        if any(as_chosen_in(kept, taxonomy).digest("all") != kept.digest("all") for kept in of)
    ]


def _path(digest: str) -> str:
    return f"{FOLDER}/{digest}.json"
