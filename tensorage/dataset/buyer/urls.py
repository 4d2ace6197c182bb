"""Addresses that a buyer is given: whom it may talk to, and to whom it may show a token.

Rules. A token travels over TLS, or to this very machine. An address carries no user name, no password, no
query and no fragment. What a seller names (a mirror) may not point into the buyer's own network, unless the
seller is there itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlsplit

from ...errors import UsageError
from ..names import check_id, is_id

_MOST = 2048
_IN_PATH = re.compile(r"(?P<base>.*?)/dataset/(?P<id>[^/]+)(?:/(?:versions|head|verify|download|v[0-9]+)?)?")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """One URL, taken apart. `path` is empty, or begins with a / and does not end with one."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and, where it is not the scheme's own, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        """All of it."""
        return self.origin + self.path

    @property
    def here(self) -> bool:
        """Whether it is this very machine."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def private(self) -> bool:
        """Whether nobody between here and there can read along."""
        return self.scheme == "https" or self.here


def parse(text: str) -> Address:
    """Take a URL apart.

    Raises:
        UsageError: it is none, or has parts that it may not have.
    """
    try:
        parts = _split(text)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise UsageError(
            f"{text[:80]!a} is no URL: {error}", remedy="Write it like https://host/dataset/ID"
        ) from error
    if port is None:
        port = _PORTS[parts.scheme]
    if not host or not 0 < port < 65536:
        raise UsageError(f"{text[:80]!a} names no host", remedy="Write it like https://host/dataset/ID")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"the URL of host {host!a} has a user name, a query or a fragment", remedy="Leave those out"
        )
    return Address(parts.scheme, host.lower(), port, quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"))


def _split(text: str) -> SplitResult:
    if len(text) > _MOST or not text.isprintable() or any(letter in text for letter in ' \\"<>'):
        raise ValueError("it is too long, or has characters that no URL has")
    parts = urlsplit(text)
    if parts.scheme not in _PORTS:
        raise ValueError("it is neither http nor https")
    if not text.isascii():
        raise ValueError("it is not ASCII; write the host in its xn-- form")
    return parts


@dataclass(frozen=True)
class Place:
    """Where a dataset is sold: the server's address, and the dataset's id there."""

    server: Address
    id: str

    @property
    def base(self) -> str:
        """The URL of the server; what tokens and owners are remembered under."""
        return self.server.url

    def check_private(self) -> None:
        """Check that a token may be sent there.

        Raises:
            UsageError: it could be read on the way.
        """
        if not self.server.private:
            raise UsageError(
                f"{self.base} is plain HTTP: a token sent there can be read on the way",
                remedy="Use the seller's https:// address",
            )


def place(text: str, id: str | None) -> Place:
    """The dataset that a URL and `--id` name; `--id` wins.

    Raises:
        UsageError: no URL, or no id.
    """
    address = parse(text)
    found = _IN_PATH.fullmatch(address.path)
    if found is not None and (id is not None or is_id(found["id"])):
        server = Address(address.scheme, address.host, address.port, found["base"])
        return Place(server, check_id(id if id is not None else found["id"]))
    if id is None:
        raise UsageError(f"{address.url} names no dataset", remedy="Append /dataset/ID, or use --id ID")
    return Place(address, check_id(id))


def mirror(text: str, id: str, seq: int, file_hash: bytes) -> Address:
    """Where a mirror keeps one version.

    {id}, {version} and {sha256} in the URL are replaced; a URL that ends with a / is a directory with files
    `ID-vN.jsonl` in it; any other is the file itself.

    Raises:
        UsageError: no URL.
    """
    filled = text.replace("{id}", id).replace("{version}", str(seq)).replace("{sha256}", file_hash.hex())
    if filled.endswith("/"):
        filled += f"{id}-v{seq}.jsonl"
    return parse(filled)
