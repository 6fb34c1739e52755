"""Fixtures that several folders of tests share."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage import inputs
from storage.store import Store


@pytest.fixture(scope="session")
def bucket() -> Iterator[Store]:
    """A store in an S3 bucket, on a server of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="archive")
        yield Store(f"s3://archive/store?endpoint_override={host}:{port}&scheme=http")
        server.stop()


@pytest.fixture(scope="session")
def real_input() -> Callable[[str], Path]:
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
