"""An owner with bundles and a store, for the tests of datasets."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tensorage.config import run
from tensorage.dataset import identity
from tensorage.dataset.command import app
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.log import verify_log
from tensorage.dataset.store import Store

ALICE = EthSigner(b"\1" * 32)
BOB = EthSigner(b"\2" * 32)
NOW = 1_800_000_000


def bundle(directory: Path, data: bytes = b'{"text": "hello"}\n', *, manifest=None, **files: bytes) -> Path:
    """A bundle with sft.jsonl and other files by name."""
    directory.mkdir(parents=True)
    (directory / "sft.jsonl").write_bytes(data)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    document = {"files": ["sft.jsonl", *files]} if manifest is None else manifest
    (directory / "manifest.json").write_text(json.dumps(document))
    return directory


def open_store(home: Path, **options) -> Store:
    return Store(home, clock=lambda: NOW, **options)


def record(store: Store, directory: Path, signer=ALICE, *, id="chats", time=NOW):
    """What `from` and `version` do."""
    with store.alone():
        store.create(id, signer.owner)
        return store.append(id, store.ingest(directory), signer, time)


def check_whole(store: Store, id="chats") -> int:
    """That the log holds, and every version's artifact, chunk list and manifest too; how many there are."""
    log = store.log(id)
    if not log.entries:
        return 0
    verify_log(log, owner=store.dataset(id).root_owner, verify=identity.verify, id=id)
    for signed in log.entries:
        artifact = store.artifact(id, signed.entry.seq)
        store.check_artifact(artifact)
        assert artifact.leaves is not None
        assert artifact.name in {file.name for file in artifact.manifest_files}
    return len(log.entries)


def leftovers(home: Path) -> list[Path]:
    """Files that were not finished."""
    return list(home.rglob("*.unfinished"))


def dataset(*arguments) -> int:
    """Run `dataset` in this process; its exit code."""
    return run(app, [str(argument) for argument in arguments], program="dataset")


def start_dataset(*arguments, home: Path) -> subprocess.Popen:
    """Start `python -m dataset` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dataset", *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TENSORAGE_DATASET_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def key_file(path: Path, secret: bytes = b"\1" * 32) -> Path:
    """A key file as --key wants it."""
    path.write_text(secret.hex() + "\n")
    path.chmod(0o600)
    return path
