"""The real btcli with a devnet behind it: `python -m tensorage.chain.devnet.btcli ARGUMENTS OF BTCLI`.

Nothing of btcli is changed but the class that it makes its chain connection from: for the network `devnet`,
or `sqlite:///absolute/path`, that is the devnet; for any other network it is the SDK's own. Flags, prompts,
JSON on stdout and stderr, and exit codes are btcli's.

    python -m tensorage.chain.devnet.btcli query metagraph --netuid 1 -n devnet --json
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import bittensor.client
import bittensor.settings
from bittensor import RpcSubstrate, Substrate
from bittensor.cli import main as btcli

from ...errors import TensorageError
from . import open_substrate
from .location import NETWORK, SCHEME, default_path, is_devnet, parse, url


def _substrate(endpoint: str, **options: Any) -> Substrate:
    """What `bittensor.Client` makes its connection from."""
    if is_devnet(None, endpoint):
        return open_substrate(endpoint)
    return RpcSubstrate(endpoint, **options)


def _networks(arguments: Sequence[str]) -> dict[str, str]:
    """The devnets that the command line or the environment may name, as the SDK's table of networks.

    Raises:
        UsageError: one of them names no file.
    """
    words = {text.split("=", 1)[-1] for text in arguments}
    names = {word for word in words if word.startswith(SCHEME)}
    return {NETWORK: url(default_path()), **{name: url(parse(name)) for name in names}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run btcli on `arguments`, by default the program's; ends the process as btcli does."""

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        bittensor.settings.NETWORKS.update(_networks([*given, os.environ.get("BT_NETWORK", "")]))
    except TensorageError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    vars(bittensor.client)["RpcSubstrate"] = _substrate
    sys.argv = ["btcli", *given]
    btcli.main()


if __name__ == "__main__":
    main()
