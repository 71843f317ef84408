"""Objects in a bucket of S3, or of a server that speaks it.

Endpoint, region, credentials, certificates and addressing style come from the usual AWS chain
(environment, ~/.aws, the cloud's identity); the last of them from $STEERLM_S3_ADDRESSING first. Requests
are retried by botocore with back-off and jitter; what it leaves out, a body that breaks off, is retried here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
import tenacity
from boto3.exceptions import Boto3Error, S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
)

from steerlm_core.errors import ConfigError, StoreError, StoreRefusedError
from steerlm_core.platform import ADDRESSING
from steerlm_core.store import ranges
from steerlm_core.store.moved import Count, uncounted
from steerlm_core.store.objects import Listed

CONNECT_SECONDS, READ_SECONDS = 5, 20
ATTEMPTS = 8  # with one request in five failing, one operation in 400,000 fails
_TRANSFER = TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20, max_concurrency=8)
_DELETED_TOGETHER = 1000
_STYLES = ("auto", "path", "virtual")
_PIECE = 512 << 10  # bytes of a large answer that are read at once

_Answer = TypeVar("_Answer")

_WAYS_OUT = {
    "NoSuchBucket": "Create the bucket, or correct its name.",
    "AccessDenied": "Allow s3:GetObject, PutObject, DeleteObject and ListBucket there, or use other credentials.",
    "403": "Allow s3:GetObject, PutObject, DeleteObject and ListBucket there, or use other credentials.",
    "InvalidAccessKeyId": "Correct the credentials (AWS_ACCESS_KEY_ID).",
    "SignatureDoesNotMatch": "Correct the credentials (AWS_SECRET_ACCESS_KEY).",
    "NoCredentialsError": "Give credentials by the usual AWS chain, such as AWS_ACCESS_KEY_ID.",
}
_ELSE = "Look at the server and the network; `steerlm resume` goes on from what is committed."


class S3Objects:
    """The `Objects` protocol below a prefix of a bucket."""

    def __init__(self, root: str, attempts: int | None = None) -> None:
        """Name the root, `s3://BUCKET[/PREFIX]`; nothing is asked of the server yet.

        Args:
            root: The root.
            attempts: At a request, before it is an error; None: as many as bad hours take.

        Raises:
            ConfigError: The root names no bucket.
        """
        self.root = plain_root(root)
        self._bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client(attempts)

    def url(self, key: str) -> str:
        """The object's full name."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def path(self, key: str) -> None:
        """None: objects are no files."""

    def size(self, key: str) -> int | None:
        """Bytes of the object; None where there is none."""
        found = self._head(key)
        return None if found is None else found[0]

    def read(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        found = self.read_versioned(key)
        return None if found is None else found[0]

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag; None where there is none."""
        with self._named(key):
            try:
                return _again(lambda: self._get(key))
            except ClientError as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return None
                raise

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing an older one."""
        with self._named(key):
            self._client.put_object(**self._at(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless one exists. True as well where `data` stands there already."""
        return self._put_if(key, data, IfNoneMatch="*")

    def swap(self, key: str, data: bytes, version: str) -> bool:
        """Replace an object if its ETag is still that. True as well where `data` stands there already."""
        return self._put_if(key, data, IfMatch=version)

    def upload(self, key: str, path: Path, count: Count = uncounted) -> None:
        """Write an object from a file, a large one in parts and in parallel."""
        with self._named(key):
            self._client.upload_file(str(path), self._bucket, self._prefix + key, Config=_TRANSFER, Callback=count)

    def download(self, key: str, path: Path, count: Count = uncounted) -> str | None:
        """Write an object's bytes to a file, by ranges and in parallel; returns their sha256, None where it is none.

        boto3's own transfer would have every byte read again to be hashed.
        """
        found = self._head(key)
        if found is None:
            return None
        size, version = found
        with self._named(key):
            return ranges.download(lambda *to: _again(lambda: self._fill(key, version, *to)), path, size, count)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are left out."""
        every = list(keys)
        for start in range(0, len(every), _DELETED_TOGETHER):
            some = every[start : start + _DELETED_TOGETHER]
            with self._named(some[0]):
                wanted: Any = [{"Key": self._prefix + key} for key in some]
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": wanted, "Quiet": True})
            for failed in answer.get("Errors", []):
                raise StoreError(f"s3://{self._bucket}/{failed.get('Key')}: not removed ({failed.get('Code')}).")

    def listing(self, prefix: str) -> Iterator[Listed]:
        """List the objects whose keys start with a prefix."""
        with self._named(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._prefix)
                    yield Listed(key, found["Size"], found["LastModified"].timestamp(), found["ETag"])

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _head(self, key: str) -> tuple[int, str] | None:
        """Size and ETag of an object."""
        with self._named(key):
            try:
                found = self._client.head_object(**self._at(key))
            except ClientError as error:
                if _code(error) in ("404", "NoSuchKey"):
                    return None
                raise
        return int(found["ContentLength"]), str(found["ETag"])

    def _get(self, key: str) -> tuple[bytes, str]:
        answer = self._client.get_object(**self._at(key))
        try:
            return answer["Body"].read(), answer["ETag"]
        except (BotoCoreError, OSError) as error:
            raise _BrokenOffError(cause=str(error)) from error

    def _fill(self, key: str, version: str, start: int, into: memoryview) -> None:
        """Fill a buffer with the bytes of that version of an object from `start` on."""
        wanted = f"bytes={start}-{start + len(into) - 1}"
        body = self._client.get_object(**self._at(key), Range=wanted, IfMatch=version)["Body"]
        try:
            while into:
                count = body.readinto(into[:_PIECE])
                if not count:
                    raise OSError(f"{len(into)} bytes are missing")
                into = into[count:]
        except (BotoCoreError, OSError) as error:
            raise _BrokenOffError(cause=str(error)) from error
        finally:
            body.close()

    def _put_if(self, key: str, data: bytes, **condition: str) -> bool:
        """Put under a condition; an answer that got lost makes the repeated request fail, so look who won."""
        with self._named(key):
            try:
                _again(lambda: self._client.put_object(**self._at(key), Body=data, **condition))
            except ClientError as error:
                if _code(error) not in ("412", "PreconditionFailed", "404", "NoSuchKey"):
                    raise
                return self.read(key) == data
        return True

    @contextmanager
    def _named(self, key: str) -> Iterator[None]:
        """Name bucket, key and cause in every error of the server or the network."""
        try:
            yield
        except (BotoCoreError, Boto3Error, ClientError) as error:
            found = _cause(error)
            cause = _code(found) if isinstance(found, ClientError) else type(found).__name__
            kind = StoreRefusedError if cause in _WAYS_OUT else StoreError
            raise kind(f"{self.url(key)}: {_words(found)} [{cause}]. {_WAYS_OUT.get(cause, _ELSE)}") from error


class _BrokenOffError(BotoCoreError):
    """The body of an answer ended before its end."""

    fmt = "the answer broke off: {cause}"


def plain_root(root: str) -> str:
    """Return a root without slashes at its end.

    Raises:
        ConfigError: It names no bucket.
    """
    if re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?", root) is None:
        raise ConfigError(f"'{root}' is no run root: expected s3://BUCKET/PREFIX.")
    return root.rstrip("/")


def endpoint() -> str:
    """Return the address that this process asks, as the AWS chain gives it."""
    return str(_client().meta.endpoint_url)


def _client(attempts: int | None = None) -> Any:
    # The standard mode has a quota of about a hundred retries, which no "404" and no "412" gives back: here many a
    # request is answered so, and after some bad hours the next failure would be the end of the run.
    retries: Any = {
        "mode": os.environ.get("AWS_RETRY_MODE", "legacy"),
        "total_max_attempts": attempts or int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS)),
    }
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries=retries,
        max_pool_connections=32,
        s3=_addressing(),
    )
    return boto3.session.Session().client("s3", config=config)


def _addressing() -> Any:
    """How buckets are named in requests; None: as the AWS chain says."""
    style = os.environ.get(ADDRESSING)
    if style and style not in _STYLES:
        raise ConfigError(f"{ADDRESSING}: '{style}' is none of {', '.join(_STYLES)}.")
    return {"addressing_style": style} if style else None


def _again(action: Callable[[], _Answer]) -> _Answer:
    """Repeat an action whose answer broke off, or that collided with another's conditional put."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        retry=tenacity.retry_if_exception(
            lambda error: (
                isinstance(error, _BrokenOffError)
                or (isinstance(error, ClientError) and _code(error) in ("409", "ConditionalRequestConflict"))
            )
        ),
        reraise=True,
    )
    return retrying(action)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _cause(error: Exception) -> BaseException:
    """What lies behind an error of a transfer."""
    if isinstance(error, S3UploadFailedError):  # boto3 hides it
        return error.__context__ or error
    return error.__cause__ or error if isinstance(error, _BrokenOffError) else error


def _words(error: BaseException) -> str:
    """The cause in words, without what a URL may carry before its host."""
    return re.sub(r"//[^/@\s]*@", "//", str(error)).rstrip(".")
