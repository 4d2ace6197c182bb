"""Bundles: what is chosen, what is hashed, and what never gets into the store."""

import hashlib
import json
import os

import pytest

from tensorage.dataset.artifacts import Artifacts
from tensorage.dataset.bundle import MAX_MANIFEST_BYTES, choose_artifact, ingest, read_bundle
from tensorage.dataset.files import Disk
from tensorage.dataset.manifest import canonical
from tensorage.dataset.pipeline import BLOCK_SIZE
from tensorage.errors import StorageError, UsageError


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "sft.jsonl").write_bytes(b'{"a": 1}\n')
    (path / "readme").write_bytes(b"hello")
    return path


@pytest.fixture
def artifacts(tmp_path):
    return Artifacts(tmp_path / "store" / "artifacts", Disk())


def manifest(directory, files=("sft.jsonl", "readme"), **more):
    (directory / "manifest.json").write_text(json.dumps({"files": list(files), **more}))
    return directory


def take(directory, artifacts, **options):
    return ingest(read_bundle(directory), artifacts, **options)


def is_empty(artifacts):
    return not any(path.is_file() for path in artifacts.directory.parent.rglob("*"))


def test_the_manifest_hash_is_over_all_files_and_the_copy_is_the_artifact(directory, artifacts):
    taken = take(manifest(directory, ["sft.jsonl", "readme"], exporter="x", hash=None), artifacts)
    document = [
        {"name": name, "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest(), "size": size}
        for name, size in (("readme", 5), ("sft.jsonl", 9))
    ]
    assert taken.manifest_hash == hashlib.sha256(canonical({"files": document})).digest()
    assert [file.name for file in taken.files] == ["readme", "sft.jsonl"] and taken.name == "sft.jsonl"
    (directory / "sft.jsonl").write_bytes(b"edited")
    assert taken.path.read_bytes() == b'{"a": 1}\n'
    assert artifacts.leaves(taken.digest.sha256, 9, taken.digest.chunk_root) == taken.digest.leaves


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.jsonl", "b_SFT.JSONL"], "b_SFT.JSONL"),
        (["a.jsonl", "my-instruct.jsonl", "sft.jsonl"], "my-instruct.jsonl"),
        (["sft.txt", "b.jsonl", "a.jsonl"], "b.jsonl"),
    ],
)
def test_the_artifact_is_the_first_for_tuning_or_else_the_first(names, chosen):
    assert choose_artifact(names) == chosen


def test_a_bundle_without_lines_has_no_artifact(directory):
    with pytest.raises(UsageError, match=r"no \.jsonl artifact listed in manifest"):
        read_bundle(manifest(directory, ["readme"]))


@pytest.mark.parametrize(
    "name",
    ["../x.jsonl", "/etc/passwd.jsonl", "a/b.jsonl", "..", "", "a\0.jsonl", "a\\b.jsonl", "\u202e.jsonl"],
)
def test_names_that_are_no_plain_file_names_are_refused(directory, name):
    with pytest.raises(UsageError, match="file name"):
        read_bundle(manifest(directory, ["sft.jsonl", name]))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"null",
        b'{"files": []}',
        b'{"files": "sft.jsonl"}',
        b'{"files": [1]}',
        b'{"files": ["\\ud800.jsonl"]}',
        b'{"files": ["sft.jsonl", "sft.jsonl"]}',
        b'{"files": ["sft.jsonl"], "hash": 5}',
        b'{"files": ["sft.jsonl"], "hash": "abc"}',
        b"[" * 100_000,
        b'{"files": ["' + b"a" * MAX_MANIFEST_BYTES + b'"]}',
    ],
    ids=range(13),
)
def test_a_manifest_that_is_none_is_refused_in_one_line(directory, raw):
    (directory / "manifest.json").write_bytes(raw)
    with pytest.raises(UsageError) as refused:
        read_bundle(directory)
    assert "manifest.json" in str(refused.value) and "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_claimed_hash_is_compared_and_never_believed(directory, artifacts):
    right = take(manifest(directory), artifacts).manifest_hash
    assert take(manifest(directory, hash=right.hex().upper()), artifacts).manifest_hash == right
    wrong = hashlib.sha256(b"").hexdigest()
    (directory / "sft.jsonl").write_bytes(b"new\n")
    with pytest.raises(UsageError, match=f"claims the hash {wrong}, its files have [0-9a-f]{{64}}"):
        take(manifest(directory, hash=wrong), artifacts)
    assert not artifacts.path(hashlib.sha256(b"new\n").digest()).exists()
    assert take(manifest(directory, hash=wrong), artifacts, ignore_hash=True).manifest_hash not in (
        right,
        wrong,
    )


@pytest.mark.parametrize("victim", ["sft.jsonl", "readme", "manifest.json"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "directory", "missing"])
def test_only_regular_files_are_read_and_a_pipe_does_not_block(directory, artifacts, tmp_path, victim, kind):
    manifest(directory)
    path = directory / victim
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(UsageError, match=victim):
        take(directory, artifacts)
    assert is_empty(artifacts)


@pytest.mark.parametrize("change", ["shrink", "grow", "edit"])
@pytest.mark.parametrize("victim", ["sft.jsonl", "readme"])
def test_a_file_that_changes_while_it_is_read_is_refused(directory, artifacts, victim, change):
    size = 3 * BLOCK_SIZE
    path = directory / victim
    path.write_bytes(bytes(size))
    told = []

    def meddle(count):
        told.append(count)
        if told.count(BLOCK_SIZE) == 1 and count == BLOCK_SIZE:
            with path.open("r+b") as file:
                if change == "shrink":
                    file.truncate(BLOCK_SIZE)
                elif change == "grow":
                    file.seek(0, os.SEEK_END)
                    file.write(b"more")
                else:
                    file.write(b"edited")

    with pytest.raises(UsageError, match=f"{victim} changed while it was being read"):
        take(manifest(directory), artifacts, tell=meddle)
    assert is_empty(artifacts)


def test_what_was_edited_behind_the_store_is_found_even_with_its_old_times(directory, artifacts):
    taken = take(manifest(directory), artifacts)
    fd, found = artifacts.open(taken.digest.sha256, 9)
    os.close(fd)
    before = taken.path.stat()
    taken.path.chmod(0o600)
    taken.path.write_bytes(b'{"a": 2}\n')
    os.utime(taken.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(StorageError, match="was changed after it was signed"):
            artifacts.open(taken.digest.sha256, 9)
    taken.path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        artifacts.open(taken.digest.sha256, 9)
    taken.path.symlink_to(directory / "sft.jsonl")
    with pytest.raises(StorageError, match="symbolic link"):
        artifacts.open(taken.digest.sha256, 9)
    take(directory, artifacts)
    fd, again = artifacts.open(taken.digest.sha256, 9)
    os.close(fd)
    assert again.st_size == found.st_size == 9


def test_a_chunk_list_that_was_edited_is_not_served(directory, artifacts):
    taken = take(manifest(directory), artifacts)
    listed = taken.path.with_name(taken.path.name + ".chunks")
    good = listed.read_bytes()
    listed.chmod(0o600)
    for bad in (bytes(32), good + bytes(32), b"", good[:31]):
        listed.write_bytes(bad)
        with pytest.raises(StorageError, match="chunk list"):
            artifacts.leaves(taken.digest.sha256, 9, taken.digest.chunk_root)
