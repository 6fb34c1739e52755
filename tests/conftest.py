"""Fixtures that several folders of tests share."""

from pathlib import Path

import pytest

from storage import inputs


@pytest.fixture(scope="session")
def real_input():
    """Gives the cached path of a real input, fetching its artefact on first use."""

    def get(name: str) -> Path:
        artefact = name.split("/", maxsplit=1)[0]
        if not inputs.is_fetched(artefact):
            try:
                inputs.fetch([artefact])
            except inputs.InputError as error:
                pytest.skip(f"real input not to be had here: {error}")
        return inputs.input_path(name)

    return get
