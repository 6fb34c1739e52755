"""The settings that a data set was last built with, kept in the store.

A re-annotation runs without a person: it builds each data set as it was built before.
"""

from __future__ import annotations

from pydantic import ValidationError

from storage.shards import dataset_folder
from storage.store import Store
from tasks.pipeline.settings import BuildSettings, SettingsError

FOLDER = "settings"


def keep_settings(store: Store, settings: BuildSettings) -> None:
    """Keep the settings of a build; no key or password is among a build's settings.

    Raises:
        StoreError: if the store cannot be written.
    """
    store.write(_path(settings.dataset), settings.model_dump_json(indent=1).encode())


def settings_of(store: Store, dataset: str) -> BuildSettings:
    """The settings that a data set was last built with, for the store where it is now.

    Raises:
        StoreError: if the store cannot be read.
        SettingsError: if it keeps none, or they are of another version of the product.
    """
    data = store.read(_path(dataset))
    again = f"build it once with `vividmed build {dataset} --store {store.root}`"
    if data is None:
        raise SettingsError(f"{store.root} does not keep the settings of {dataset}: {again}")
    try:
        found = BuildSettings.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        raise SettingsError(
            f"the settings that {store.root} keeps of {dataset} cannot be used "
            f"({'.'.join(map(str, fault['loc']))}: {fault['msg']}): {again}"
        ) from None
    return found.model_copy(update={"store": store.root, "taxonomy_version": None})


def _path(dataset: str) -> str:
    return f"{FOLDER}/{dataset_folder(dataset)}.json"
