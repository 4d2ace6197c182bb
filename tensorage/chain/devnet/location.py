"""Where a devnet lives: one SQLite file, named by a network, an endpoint or the environment.

network "devnet"            the file that TENSORAGE_DEVNET names, else ~/.tensorage/devnet.sqlite
"sqlite:///absolute/path"   that file, as a network or as a chain endpoint
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import UsageError

NETWORK = "devnet"
SCHEME = "sqlite://"
ENVIRONMENT = "TENSORAGE_DEVNET"


def default_path() -> Path:
    """The devnet file when nobody names another one."""
    named = os.environ.get(ENVIRONMENT)
    return parse(named) if named else Path.home() / ".tensorage" / "devnet.sqlite"


def is_devnet(network: str | None, endpoint: str | None = None) -> bool:
    """Whether this network or endpoint means a devnet. An endpoint wins over a network."""
    if endpoint:
        return endpoint.startswith(SCHEME)
    return network == NETWORK or (network or "").startswith(SCHEME)


def parse(text: str) -> Path:
    """The file that `text`, a plain path or a `sqlite:///absolute/path`, names.

    Raises:
        UsageError: the URL has no absolute path, or the scheme is another one.
    """
    if text.startswith(SCHEME):
        path = Path(text[len(SCHEME) :])
        if not path.is_absolute():
            raise UsageError(
                f"{text!r} is no devnet endpoint", remedy="Write sqlite:///absolute/path, with three slashes."
            )
        return path
    if "://" in text:
        raise UsageError(f"{text!r} is no devnet endpoint", remedy="Write sqlite:///absolute/path.")
    return Path(text).expanduser()


def locate(network_or_endpoint: str | Path | None) -> Path:
    """The devnet file of a network name, an endpoint or a path; the default file for None and `devnet`."""
    if isinstance(network_or_endpoint, Path):
        return network_or_endpoint
    if not network_or_endpoint or network_or_endpoint == NETWORK:
        return default_path()
    return parse(network_or_endpoint)


def url(path: Path) -> str:
    """The chain endpoint of the devnet in `path`."""
    return f"{SCHEME}{path.absolute()}"
