"""Manifests and links: what a reader needs of a file besides its key, and with it.

    manifest  {"mac": hex, "manifest": {...}}
    link      {"key": hex, "mac": hex, "manifest": {...}, "tensorage_link": 1}

    mac       HMAC-SHA256 (RFC 2104) under the file's manifest key over the inner object's bytes

Both are JSON (RFC 8259) in one spelling: keys sorted, no spaces, ASCII with escapes. Other spellings are
refused, so that not one bit can differ. Whoever has a link can read the file, and could write another
manifest under its key: a link is worth as much as the one who gave it. So what it says is checked against
itself too: the stripes are those that the size demands (`layout`), the tickets are the file's, and the name
is no way out of a directory.

A manifest says where the shards were when it was written. The gateway knows of repairs since then.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import category

from ..encoding import HASH_SIZE
from ..ticket import SignedTicket
from .erasure import MOST_SHARDS, check_code
from .fields import (
    ManifestError,
    canonical,
    read_canonical,
    read_hex,
    read_hotkey,
    read_ip,
    read_list,
    read_number,
    read_object,
    read_port,
    read_text,
)
from .keys import FILE_ID_SIZE, FILE_KEY_SIZE, FileKeys
from .layout import full_stripe, stripes
from .stream import MOST_BYTES, SEGMENT_SIZE, ciphertext_size

VERSION = 1
LINK = "tensorage_link"
#: Bytes that a manifest or a link may have; 400 GB of a file in stripes of 10 of 30.
MOST_MANIFEST = 256 << 20
MOST_NAME = 1024
KINDS = ("file", "directory")

_NO_CATEGORY = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class Gateway:
    """The validator whose gateway keeps the file, and where it served."""

    hotkey: str
    ip: str
    port: int


@dataclass(frozen=True)
class ShardAt:
    """A shard, its ticket (whose signature is unchecked), and where it lay.

    Attributes:
        hotkey: the miner's address; whose it is, `ticket.miner` decides.
        ip, port: None while it served nowhere.
    """

    number: int
    signed: SignedTicket
    hotkey: str
    ip: str | None
    port: int | None


@dataclass(frozen=True)
class StripeAt:
    """A stripe and its shards in ascending number; there may be less than N of them."""

    number: int
    leaves: int
    shards: Sequence[ShardAt]


@dataclass(frozen=True)
class Manifest:
    """What a file is and where it lies.

    Attributes:
        id: the file's 16 bytes (`keys.file_id`).
        name: as its owner calls it: parts between slashes.
        kind: "file"; or "directory", whose bytes are a tar stream that a reader lays out again.
        size: bytes of the file.
        sha256: of the file.
        data_shards, parity_shards: K, and N - K.
        created, expires: seconds since 1970.
        genesis, netuid: the subnet.
    """

    id: bytes
    name: str
    size: int
    sha256: bytes
    data_shards: int
    parity_shards: int
    created: int
    expires: int
    genesis: bytes
    netuid: int
    gateway: Gateway
    stripes: tuple[StripeAt, ...]
    kind: str = "file"

    @property
    def shards(self) -> int:
        """N, the shards of a stripe."""
        return self.data_shards + self.parity_shards

    @cached_property
    def ciphertext(self) -> int:
        """Bytes of the file's segments."""
        return ciphertext_size(self.size)

    def seal(self, file_key: bytes) -> bytes:
        """The manifest as bytes, with its mac.

        Raises:
            ProofError: it contradicts itself, or is of another key.
        """
        return canonical(self._sealed(file_key))

    def link(self, file_key: bytes) -> bytes:
        """The bytes of a link file: the manifest and the key; ProofError as in `seal`."""
        return canonical({LINK: 1, "key": file_key.hex(), **self._sealed(file_key)})

    def _sealed(self, file_key: bytes) -> dict[str, Any]:
        keys = FileKeys.of(file_key)
        self._check(keys)
        body = self._body()
        return {"manifest": body, "mac": _mac(keys, body).hex()}

    @classmethod
    def parse(cls, data: bytes, file_key: bytes) -> Manifest:
        """The manifest that `seal` wrote with this key.

        Raises:
            ProofError: it is not, to the bit.
        """
        return cls._open(read_canonical(data, {"manifest", "mac"}, MOST_MANIFEST), FileKeys.of(file_key))

    @classmethod
    def parse_link(cls, data: bytes) -> tuple[Manifest, bytes]:
        """The manifest and the file's key that `link` wrote.

        Raises:
            ProofError: it wrote something else.
        """
        outer = read_canonical(data, {"manifest", "mac", "key", LINK}, MOST_MANIFEST)
        if type(outer[LINK]) is not int or outer[LINK] != 1:
            raise ManifestError("a link of a version that is not known here")
        file_key = read_hex(outer, "key", FILE_KEY_SIZE)
        return cls._open(outer, FileKeys.of(file_key)), file_key

    @classmethod
    def _open(cls, outer: Mapping[str, Any], keys: FileKeys) -> Manifest:
        body = outer["manifest"]
        if not hmac.compare_digest(read_hex(outer, "mac", HASH_SIZE), _mac(keys, body)):
            raise ManifestError("the manifest is not the one that was written with this key")
        manifest = _manifest(body)
        manifest._check(keys)
        return manifest

    def _check(self, keys: FileKeys) -> None:
        if self.id != keys.file_id:
            raise ManifestError(f"the key is not that of the file {self.id.hex()}")
        check_name(self.name)
        if self.kind not in KINDS:
            raise ManifestError(f"{self.kind[:40]!r} is no kind of file")
        if not 0 <= self.size <= MOST_BYTES:
            raise ManifestError(f"a file of {self.size} bytes")
        check_code(self.data_shards, self.shards)
        if self.ciphertext // full_stripe(self.data_shards) > len(self.stripes):
            raise ManifestError(f"{len(self.stripes)} stripes are too few for {self.size} bytes")
        due = [(stripe.number, stripe.leaves) for stripe in stripes(self.ciphertext, self.data_shards)]
        if [(stripe.number, stripe.leaves) for stripe in self.stripes] != due:
            raise ManifestError(
                f"the stripes are not those of {self.size} bytes, {self.data_shards} data shards"
            )
        for stripe in self.stripes:
            self._check_shards(stripe, keys.access.public_key)

    def _check_shards(self, stripe: StripeAt, access: bytes) -> None:
        numbers = [shard.number for shard in stripe.shards]
        if numbers != sorted(set(numbers)) or not all(0 <= number < self.shards for number in numbers):
            raise ManifestError(f"stripe {stripe.number} has shards {numbers}")
        for shard in stripe.shards:
            ticket = shard.signed.ticket
            told = (ticket.client, ticket.leaves, ticket.genesis, ticket.netuid)
            if told != (access, stripe.leaves, self.genesis, self.netuid):
                raise ManifestError(
                    f"the ticket of shard {shard.number}, stripe {stripe.number} is of another file"
                )

    def _body(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "id": self.id.hex(),
            "name": self.name,
            "kind": self.kind,
            "size": self.size,
            "sha256": self.sha256.hex(),
            "data_shards": self.data_shards,
            "parity_shards": self.parity_shards,
            "segment": SEGMENT_SIZE,
            "created": self.created,
            "expires": self.expires,
            "genesis": self.genesis.hex(),
            "netuid": self.netuid,
            "gateway": vars(self.gateway),
            "stripes": [
                {
                    "number": stripe.number,
                    "leaves": stripe.leaves,
                    "shards": [
                        {
                            "number": shard.number,
                            "ticket": shard.signed.encode().hex(),
                            "hotkey": shard.hotkey,
                            "ip": shard.ip,
                            "port": shard.port,
                        }
                        for shard in stripe.shards
                    ],
                }
                for stripe in self.stripes
            ],
        }


def check_name(name: str) -> None:
    """Check that a file may be called so.

    A name has 1 to 1,024 characters, none of which controls a terminal or cannot be encoded; no part of it
    between slashes is empty, "." or "..".

    Raises:
        ManifestError: it may not.
    """
    controls = any(category(character) in _NO_CATEGORY for character in name)
    if len(name) > MOST_NAME or {"", ".", ".."} & set(name.split("/")) or controls:
        raise ManifestError(f"{name[:80]!r} is no name of a file")


# Bytes


def _mac(keys: FileKeys, body: Mapping[str, Any]) -> bytes:
    return hmac.digest(keys.manifest, canonical(body), "sha256")


_FIELDS = {
    *("version", "id", "name", "kind", "size", "sha256", "data_shards", "parity_shards", "segment"),
    *("created", "expires", "genesis", "netuid", "gateway", "stripes"),
}


def _manifest(value: object) -> Manifest:
    fields = read_object(value, _FIELDS, "the manifest")
    if read_number(fields, "version") != VERSION or read_number(fields, "segment") != SEGMENT_SIZE:
        raise ManifestError("a manifest of a version that is not known here")
    gateway = read_object(fields["gateway"], {"hotkey", "ip", "port"}, "the gateway")
    return Manifest(
        id=read_hex(fields, "id", FILE_ID_SIZE),
        name=read_text(fields, "name"),
        kind=read_text(fields, "kind"),
        size=read_number(fields, "size"),
        sha256=read_hex(fields, "sha256", HASH_SIZE),
        data_shards=read_number(fields, "data_shards", MOST_SHARDS),
        parity_shards=read_number(fields, "parity_shards", MOST_SHARDS),
        created=read_number(fields, "created"),
        expires=read_number(fields, "expires"),
        genesis=read_hex(fields, "genesis", HASH_SIZE),
        netuid=read_number(fields, "netuid", 0xFFFF),
        gateway=Gateway(read_hotkey(gateway), read_ip(gateway), read_port(gateway)),
        stripes=tuple(_stripe(stripe) for stripe in read_list(fields, "stripes", 1 << 32)),
    )


def _stripe(value: object) -> StripeAt:
    fields = read_object(value, {"number", "leaves", "shards"}, "a stripe")
    shards = tuple(_shard(shard) for shard in read_list(fields, "shards", MOST_SHARDS))
    return StripeAt(read_number(fields, "number"), read_number(fields, "leaves"), shards)


def _shard(value: object) -> ShardAt:
    fields = read_object(value, {"number", "ticket", "hotkey", "ip", "port"}, "a shard")
    nowhere = fields["ip"] is None and fields["port"] is None
    return ShardAt(
        number=read_number(fields, "number"),
        signed=SignedTicket.from_hex(read_text(fields, "ticket")),
        hotkey=read_hotkey(fields),
        ip=None if nowhere else read_ip(fields),
        port=None if nowhere else read_port(fields),
    )
