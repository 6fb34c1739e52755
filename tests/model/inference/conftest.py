"""The trained model and its images."""

from pathlib import Path

import pytest

from tests.model.inference.memorised import Memorised, memorised, write_images


@pytest.fixture(scope="session")
def trained() -> Memorised:
    return memorised()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("pictures"))
