"""The keys of a file, all from one: 32 random bytes that are drawn for every file anew.

    key  HKDF-SHA256(file key, no salt, info = tag(name)), 32 bytes (RFC 5869)

    tensorage/file-content/v1   AES-256-GCM key of the file's bytes (`stream`)
    tensorage/file-spread/v1    of the shards' outer layers (`spread`); a validator that repairs gets it
    tensorage/file-access/v1    seed of the Ed25519 key that asks miners for shards; its public half stands in
                                the tickets, and a validator that repairs gets it
    tensorage/file-manifest/v1  HMAC-SHA256 key of the manifest

    file id  the first 16 bytes of H(public access key)

None of them tells another or the file key, so that whoever repairs a file, and may know spread and access,
cannot read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..encoding import fixed, sha256, tag
from ..keyauth import SigningKey

FILE_KEY_SIZE = 32
FILE_ID_SIZE = 16


def derive(key: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869) without salt."""
    return HKDF(SHA256(), 32, salt=None, info=info).derive(key)


def file_id(access: bytes) -> bytes:
    """The 16 bytes that name the file whose access key has the 32-byte public key `access`."""
    return sha256(access)[:FILE_ID_SIZE]


@dataclass(frozen=True)
class FileKeys:
    """What a file's key gives; see the module. Secrets are not shown by repr."""

    file_id: bytes
    content: bytes = field(repr=False)
    spread: bytes = field(repr=False)
    access: SigningKey = field(repr=False, compare=False)
    manifest: bytes = field(repr=False)

    @classmethod
    def of(cls, file_key: bytes) -> FileKeys:
        """The keys of the file with this key.

        Raises:
            ValueError: the key has not 32 bytes.
        """
        fixed(file_key, FILE_KEY_SIZE, "key of a file")
        access = SigningKey(derive(file_key, tag("tensorage/file-access/v1")))
        return cls(
            file_id(access.public_key),
            derive(file_key, tag("tensorage/file-content/v1")),
            derive(file_key, tag("tensorage/file-spread/v1")),
            access,
            derive(file_key, tag("tensorage/file-manifest/v1")),
        )
