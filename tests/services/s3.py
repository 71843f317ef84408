"""A real S3 server for tests: SeaweedFS, on one address of this machine, gone with the process that started it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steerlm_core.processes import end_with_parent
from tests.services.processes import free_ports

BUCKET = "test"
ACCESS_KEY, SECRET_KEY = "steerlm-tests", "only-for-tests-of-this-machine"
_START_SECONDS = 60
_PORTS = ("master.port", "filer.port", "volume.port", "s3.port", "admin.port")


@dataclass(frozen=True)
class S3Server:
    """A server that answers.

    Attributes:
        endpoint: Its URL.
        folder: Where its files lie.
        process: Its process group's leader.
    """

    endpoint: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, in the names of the AWS chain."""
        return client_environment(self.endpoint)


def client_environment(endpoint: str) -> dict[str, str]:
    """Return the environment of a client of this server, or of a proxy before it."""
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server(folder: Path, address: str = "127.0.0.1", memory: str = "300MiB") -> Iterator[S3Server]:
    """Start a server whose files lie in `folder`, with an empty bucket `BUCKET`; stop it at the end.

    Args:
        folder: Removed at the end.
        address: Where it listens.
        memory: What it may use before it slows down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"name": "tests", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Read", "Write", "List", "Tagging"]}  # fmt: skip
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = dict(zip(_PORTS, free_ports(address, len(_PORTS)), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"), "-logtostderr", "mini", f"-dir={folder}", f"-ip={address}",
        f"-ip.bind={address}", f"-s3.config={folder / 's3.json'}", f"-bucket={BUCKET}", "-webdav=false",
        "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    limits = {"GOMEMLIMIT": memory, "GOGC": "50"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **limits}, preexec_fn=end_with_parent
        )
    try:
        endpoint = f"http://{address}:{ports['s3.port']}"
        _wait_until_it_answers(endpoint, process, folder / "log")
        yield S3Server(endpoint, folder, process)
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1", config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    end = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        except (BotoCoreError, ClientError):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the S3 server does not answer:\n{log.read_text()[-3000:]}") from None
            time.sleep(0.2)
