"""The trained model and its images."""

from pathlib import Path

import pytest

from tests.model.inference.memorized import Memorized, memorized, write_images


@pytest.fixture(scope="session")
def trained() -> Memorized:
    return memorized()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("pictures"))
