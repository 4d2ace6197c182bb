"""A seller with a signed log, honest until a test changes what it serves."""

from __future__ import annotations

import json
import random
import time

from dataset_seller import Seller

from tensorage.dataset import wire
from tensorage.dataset.chunks import CHUNK_SIZE, hash_stream
from tensorage.dataset.entry import HEAD_SECONDS, Entry, Head, Signed, SignedHead
from tensorage.dataset.identity import EthSigner
from tensorage.dataset.log import Log
from tensorage.dataset.manifest import File, manifest_hash, manifest_json

TOKEN = "tensorage-member-" + "5" * 64
ID = "chats"


def made(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest_of(data):
    view = memoryview(data)
    at = iter(range(0, len(data) + CHUNK_SIZE, CHUNK_SIZE))
    return hash_stream(lambda size: bytes(view[(start := next(at)) : start + size]))


class Shop(Seller):
    """Serves dataset `chats`; what a member sees needs TOKEN."""

    def __init__(self, *versions, key=b"\1" * 32, id=ID, log=()):
        super().__init__()
        self.signer = EthSigner(key)
        self.id = id
        self.data = []
        self.signed = list(log)
        self.mirrors = []
        self.subnet = None
        self.tokens = {TOKEN}
        self.document = None
        self.leaves = {}
        self.manifests = {}
        for data in versions:
            self.add(data)

    @property
    def owner(self):
        return self.signer.owner

    def add(self, data):
        digest = digest_of(data)
        seq = len(self.signed) + 1
        files = [File("sft.jsonl", len(data), digest.sha256)]
        entry = Entry(
            self.id,
            self.owner,
            seq,
            self.signed[-1].entry.hash if self.signed else bytes(32),
            manifest_hash(files),
            digest.sha256,
            len(data),
            digest.chunk_root,
            1_700_000_000 + seq,
        )
        self.signed.append(Signed(entry, self.signer.sign(entry.hash)))
        self.leaves[seq] = b"".join(digest.leaves)
        self.manifests[seq] = manifest_json(files)
        self.files[f"/data/{seq}"] = data
        self.data.append(data)
        self.publish()

    def log(self, count=None):
        return Log(self.id, tuple(self.signed[:count]))

    def head(self, count=None, *, issued=None, life=HEAD_SECONDS):
        newest = self.signed[:count][-1].entry
        issued = int(time.time()) if issued is None else issued
        head = Head(self.id, self.owner, newest.seq, newest.hash, issued, issued + life)
        return SignedHead(head, self.signer.sign(head.hash))

    def publish(self, count=None, **head):
        self.document = wire.log_json(self.log(count), self.head(count, **head))

    async def honest(self, asked, writer):
        if asked.path.startswith("/data/"):
            await super().honest(asked, writer)
            return
        base = f"/dataset/{self.id}/"
        if asked.path == base + "versions":
            await self.say(writer, 200, self.document)
            return
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            await self.say(writer, 401, {"error": "auth_required", "message": "show a token"})
            return
        version = int(asked.target.partition("version=")[2] or 0)
        if asked.path == base + "download":
            asked.target = f"/data/{version}"
            await super().honest(asked, writer)
        elif asked.path == base + "chunks":
            await self.answer(writer, 200, self.leaves[version])
        elif asked.path == base + "manifest":
            await self.say(writer, 200, self.manifests[version])
        elif asked.path == base + "sources":
            await self.say(writer, 200, {"mirrors": self.mirrors, "subnet": self.subnet})
        else:
            await self.say(writer, 404, {"error": "not_found", "message": "no such thing"})

    async def say(self, writer, status, document, headers=None):
        before = self.sent
        await self.answer(writer, status, json.dumps(document).encode(), headers)
        self.sent = before  # bytes of files are counted

    @property
    def place(self):
        return f"{self.url}/dataset/{self.id}"

    @property
    def paths(self):
        return [asked.path for asked in self.asked]
