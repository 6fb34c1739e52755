"""Where a store may be: a folder of this machine, or a bucket of Amazon S3 or Google Cloud.

The text that a user gives is checked without a look at the disk or the network. It may hold no key:
a store's address is kept in Prefect's database, in logs and in manifests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pyarrow import fs

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_BUCKETS = {"s3": "s3", "gs": "gs", "gcs": "gs"}
_OPTIONS = ("region", "scheme", "endpoint_override")
_KINDS = "a folder, s3://bucket/prefix or gs://bucket/prefix"
_KEYS_BELONG = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or run "
    "`gcloud auth application-default login`",
}

_CONNECT_S = 5.0
"""A server of the same continent accepts a connection in well under a second."""
_SILENCE_S = 6.0
"""How long a server may send nothing before a request counts as lost."""
_ATTEMPTS = 3
"""Three times six seconds of silence: a server that is out of reach is told within 20 s."""
_GCS_RETRIES = timedelta(seconds=10)
"""pyarrow's own limit is 15 minutes, spent in silence when there are no credentials."""


class StoreError(Exception):
    """The store cannot be used; the message says what to do.

    transient: whether the same call may go through later, as with a bucket that is out of reach.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


@dataclass(frozen=True)
class Bucket:
    """A place in a bucket; `base` is the bucket and the prefix, without a slash at the end."""

    kind: str
    base: str
    anonymous: bool
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """The bucket alone."""
        return self.base.split("/", maxsplit=1)[0]

    @property
    def keys_belong(self) -> str:
        """Where the keys of such a bucket are to be given."""
        return _KEYS_BELONG[self.kind]


def checked_root(text: str) -> str:
    """The root of a store: an absolute local path, or the URI of a bucket as it was given.

    Raises:
        StoreError: if it is neither, or holds a key.
    """
    if not text.strip() or "\0" in text:
        raise StoreError(f"the store has no name: give {_KINDS}")
    found = _SCHEME.match(text)
    if found is None:
        return _local(text)
    scheme = found[1].lower()
    if scheme == "file":
        return _local(_file_path(text))
    if scheme not in _BUCKETS:
        raise StoreError(f"{scheme}:// is not a store: give {_KINDS}")
    read_bucket(text)
    return text


def read_bucket(uri: str) -> Bucket:
    """The parts of a bucket's URI, such as `s3://bucket/prefix?region=eu-central-1`.

    Raises:
        StoreError: if it cannot be used; the message repeats no part that may be a key.
    """
    parts = urlsplit(uri)
    kind = _BUCKETS[parts.scheme]
    user, at, host = parts.netloc.rpartition("@")
    anonymous = kind == "gs" and user == "anonymous"
    if (at and not anonymous) or ":" in host or not uri.lower().startswith(f"{parts.scheme}://"):
        _refuse_key(parts, kind)
    if not host:
        raise StoreError(f"{parts.scheme}:// names no bucket: write {parts.scheme}://bucket/prefix")
    if parts.fragment:
        raise StoreError(f"{parts.scheme}://{host}: write a # of the prefix as %23")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    for name, value in options.items():
        if name not in _OPTIONS or "@" in value:
            raise StoreError(
                f"{parts.scheme}://{host}: a store takes no option {name}: there are "
                f"{', '.join(_OPTIONS)}; keys do not belong there, {_KEYS_BELONG[kind]}"
            )
    prefix = unquote(parts.path).strip("/")
    return Bucket(kind, f"{host}/{prefix}" if prefix else host, anonymous, options)


def _refuse_key(parts: SplitResult, kind: str) -> NoReturn:
    if not parts.netloc:
        raise StoreError(
            f"{parts.scheme}: is followed by two slashes: write {kind}://bucket/prefix"
        )
    raise StoreError(
        f"a store's address may hold no key or port before the bucket, as it is kept in Prefect's "
        f"database and in logs: write {kind}://bucket/prefix and {_KEYS_BELONG[kind]}"
    )


def _local(text: str) -> str:
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise StoreError(f"{text}: there is no such user on this machine") from error


def _file_path(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise StoreError(f"{uri} is a folder of another machine: write file:///folder")
    if parts.query or parts.fragment:
        raise StoreError(f"{uri}: write a ? or # of the folder's name as %3F or %23")
    return unquote(parts.path)


@cache
def open_filesystem(root: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow file system of a checked root, with time limits, and the root's path in it.

    Raises:
        StoreError: if the region of a bucket cannot be found.
    """
    if "://" not in root:
        return fs.LocalFileSystem(), root
    bucket = read_bucket(root)
    if bucket.kind == "gs":
        given = {k: v for k, v in bucket.options.items() if k != "region"}
        google = fs.GcsFileSystem(
            anonymous=bucket.anonymous, retry_time_limit=_GCS_RETRIES, **given
        )
        return google, bucket.base
    amazon = fs.S3FileSystem(
        region=_region(bucket),
        connect_timeout=_CONNECT_S,
        request_timeout=_SILENCE_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        **{k: v for k, v in bucket.options.items() if k != "region"},
    )
    return amazon, bucket.base


def _region(bucket: Bucket) -> str | None:
    """The bucket's region; None leaves it to the settings of AWS, or to a server of one's own."""
    if region := bucket.options.get("region"):
        return region
    named = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if "endpoint_override" in bucket.options or any(os.environ.get(name) for name in named):
        return None
    try:
        return str(fs.resolve_s3_region(bucket.name))
    except OSError as error:
        raise bucket_error(bucket, "find", bucket.name, error) from error


def bucket_error(bucket: Bucket, verb: str, place: str, error: OSError) -> StoreError:
    """What a failure of a bucket's server means to a person."""
    said = str(error)
    if any(word in said for word in ("NO_SUCH_BUCKET", "not found", "NoSuchBucket")):
        return StoreError(f"there is no bucket {bucket.name}: make it first, or correct --store")
    denied = ("ACCESS_DENIED", "InvalidAccessKeyId", "SIGNATURE", "OAuth2", "PERMISSION_DENIED")
    if any(word in said for word in denied):
        return StoreError(f"cannot {verb} {place}: the bucket lets us not in; {bucket.keys_belong}")
    if "NETWORK_CONNECTION" in said or "UNAVAILABLE" in said:
        reason = said.rsplit("Details: ", maxsplit=1)[-1].splitlines()[0]
        return StoreError(
            f"cannot {verb} {place}: the bucket's server cannot be reached ({reason})",
            transient=True,
        )
    return StoreError(f"cannot {verb} {place}: {said.splitlines()[0]}", transient=True)
