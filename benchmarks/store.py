"""How fast models go to a bucket and back: the run store, which hashes every byte, against boto3's transfer alone.

    python benchmarks/store.py                     10 GB in 5 files, 3 rounds; needs 31 GB of disk
    python benchmarks/store.py --gb 1 --rounds 5   less
    python benchmarks/store.py --json figures.json

Every transfer is a process of its own with a client and a TransferConfig like the run store's, against a SeaweedFS of
its own on loopback. The two take turns, so that a busy machine slows both. `ours` is `RunStore.write_folder` and
`RunStore.local_folder`: sha256 of every file before it goes up, and of every file that has come down.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.services.s3 import BUCKET, s3_server

FILES = 5
ARMS = ("ours", "boto3")
_BLOCK = 64 << 20


def main() -> None:
    """Run the rounds, and print medians and ratios."""
    options = _options()
    if options.arm:
        print(json.dumps(_transfer(options.arm, Path(options.folder))))
        return
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="steerlm-benchmark-", dir=options.dir) as name:
        folder = Path(name)
        _write_model(folder / "model", int(options.gb * 1e9))
        for number in range(options.rounds):
            for arm in ARMS if number % 2 == 0 else reversed(ARMS):
                with s3_server(folder / "server", memory="2GiB") as server:
                    figures += _child(arm, folder, server.environment, number)
                    print(figures[-2], figures[-1], sep="\n", flush=True)
    _print(figures, options.gb)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=10.0, help="size of the model, in 10^9 bytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="where the files may lie")
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _write_model(folder: Path, size: int) -> None:
    """Files of random bytes; no two blocks are the same."""
    folder.mkdir()
    block = bytearray(os.urandom(_BLOCK))
    for number in range(FILES):
        with (folder / f"model-{number}.safetensors").open("wb") as file:
            while (left := size // FILES - file.tell()) > 0:
                block[:16] = os.urandom(16)
                file.write(memoryview(block)[:left])


def _child(arm: str, folder: Path, environment: dict[str, str], number: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--arm", arm, "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    return [{"round": number, "arm": arm, **figure} for figure in json.loads(done.stdout)]


def _transfer(arm: str, folder: Path) -> list[dict[str, Any]]:
    """Bring the model up and down again; the copy is removed."""
    up, down = _ours(folder) if arm == "ours" else _boto3(folder)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        os.environ["STEERLM_MODEL_CACHE"] = name
        return [_timed("up", up), _timed("down", lambda: down(Path(name)))]


def _ours(folder: Path) -> tuple[Callable[[], None], Callable[[Path], object]]:
    from steerlm_core.store import open_store
    from steerlm_core.store.manifest import Manifest, Part

    store, parts = open_store(f"s3://{BUCKET}/run"), list[Part]()
    return (
        lambda: parts.extend(store.write_folder("model", folder / "model")),
        lambda _: store.local_folder(Manifest(step="train", run_id="", input_digest="", parts=parts)),
    )


def _boto3(folder: Path) -> tuple[Callable[[], None], Callable[[Path], None]]:
    from steerlm_core.store.s3 import _TRANSFER, _client

    client, names = _client(), sorted(path.name for path in (folder / "model").iterdir())

    def up() -> None:
        for name in names:
            client.upload_file(str(folder / "model" / name), BUCKET, name, Config=_TRANSFER)

    def down(into: Path) -> None:
        for name in names:
            client.download_file(BUCKET, name, str(into / name), Config=_TRANSFER)

    return up, down


def _timed(way: str, action: Callable[[], object]) -> dict[str, Any]:
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    action()
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"way": way, "seconds": seconds, "processor_seconds": processor, "peak_mb": after.ru_maxrss / 1024}


def _print(figures: list[dict[str, Any]], gb: float) -> None:
    def of(arm: str, way: str, what: str) -> list[float]:
        return [figure[what] for figure in figures if (figure["arm"], figure["way"]) == (arm, way)]

    print(f"{'':12}{'seconds':>9}{'MB/s':>8}{'processor s':>13}{'peak MB':>9}")
    for way in ("up", "down"):
        for arm in ARMS:
            seconds, processor, peak = (median(of(arm, way, w)) for w in ("seconds", "processor_seconds", "peak_mb"))
            print(f"{way:5}{arm:7}{seconds:9.1f}{1000 * gb / seconds:8.0f}{processor:13.1f}{peak:9.0f}")
        both = zip(of("ours", way, "seconds"), of("boto3", way, "seconds"), strict=True)
        shares = [theirs / ours for ours, theirs in both]
        rounds = ", ".join(f"{share:.0%}" for share in shares)
        print(f"{way:5}ours reaches {median(shares):.0%} of boto3 alone (median of the rounds: {rounds})")


if __name__ == "__main__":
    main()
