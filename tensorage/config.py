"""What operators type: the flags that several commands share, and how a value of one is found.

A flag has a dotted or underscored spelling, which is the settled one, and a dashed one. Its value is, in
this order: the flag, the environment, the file named by --config (TOML, keys as the flags are spelt:
`"wallet.name" = "miner"`, or tables: `[wallet]` with `name`), the default.

Every command is run by `run`, which turns what goes wrong on purpose into one line on stderr and an exit
code: 2 for something that the operator can put right in the command or on the machine, 1 otherwise.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from .errors import TensorageError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NETUIDS = {"finney": 7, "test": 12, "devnet": 1}

DbRootPath = Annotated[
    list[Path],
    typer.Option("--db_root_path", "--db-root-path", help="Where to keep data; repeat it for several disks."),
]
SizeInGb = Annotated[
    float | None,
    typer.Option(
        "--size_in_gb",
        "--size-in-gb",
        min=0,
        max=1 << 30,
        help="Space to fill, in GiB, over all disks; less than before drops what is too much.",
        show_default="100, or what is there already",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", min=0, max=1, help="Share of the free space to fill, instead of a size."),
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Drop the database and start over; asks first.", show_default=False)
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes.", show_default="CPU threads")
]
Netuid = Annotated[
    int | None,
    typer.Option(
        "--netuid", min=0, max=65535, help="The subnet.", show_default="7 on finney, 12 on test, 1 on devnet"
    ),
]
Network = Annotated[
    str,
    typer.Option(
        "--subtensor.network",
        "--subtensor-network",
        "--network",
        envvar="BT_NETWORK",
        help="finney, test, local, devnet, or a ws:// endpoint.",
    ),
]
ChainEndpoint = Annotated[
    str | None,
    typer.Option(
        "--subtensor.chain_endpoint",
        "--subtensor-chain-endpoint",
        "--subtensor.chain-endpoint",
        envvar="BT_CHAIN_ENDPOINT",
        help="ws://, wss:// or sqlite:///path; wins over the network.",
    ),
]
WalletName = Annotated[
    str, typer.Option("--wallet.name", "--wallet-name", envvar="BT_WALLET", help="The coldkey's name.")
]
WalletHotkey = Annotated[
    str,
    typer.Option("--wallet.hotkey", "--wallet-hotkey", envvar="BT_WALLET_HOTKEY", help="The hotkey's name."),
]
WalletPath = Annotated[
    Path,
    typer.Option("--wallet.path", "--wallet-path", envvar="BT_WALLET_PATH", help="Where wallets are kept."),
]
AxonPort = Annotated[
    int, typer.Option("--axon.port", "--axon-port", min=0, max=65535, help="Port to listen on; 0 takes any.")
]
AxonExternalIp = Annotated[
    str | None,
    typer.Option(
        "--axon.external_ip", "--axon-external-ip", "--axon.external-ip", help="Address that others reach."
    ),
]
AxonExternalPort = Annotated[
    int | None,
    typer.Option(
        "--axon.external_port",
        "--axon-external-port",
        "--axon.external-port",
        min=1,
        max=65535,
        help="Port that others reach.",
        show_default="the port listened on",
    ),
]
LoggingDebug = Annotated[
    bool, typer.Option("--logging.debug", "--logging-debug", help="Log more.", show_default=False)
]
LoggingTrace = Annotated[
    bool, typer.Option("--logging.trace", "--logging-trace", help="Log everything.", show_default=False)
]
LoggingDir = Annotated[
    Path,
    typer.Option(
        "--logging.logging_dir",
        "--logging-logging-dir",
        "--logging.logging-dir",
        help="Where logs are kept.",
    ),
]
MetricsPort = Annotated[
    int,
    typer.Option("--metrics.port", "--metrics-port", min=0, max=65535, help="Prometheus port; 0 is off."),
]

DEFAULT_DB_ROOT = Path("~/tensorage-db")
DEFAULT_WALLET_PATH = Path("~/.bittensor/wallets")
DEFAULT_LOGGING_DIR = Path("~/.bittensor/miners")
DEFAULT_NETWORK = "finney"
DEFAULT_AXON_PORT = 8091
DEFAULT_SIZE_IN_GB = 100.0
DEFAULT_SECONDS_PER_REALLOCATE = 600

_DURATION = re.compile(r"([0-9]{1,6})([hdwy])", re.ASCII)
_SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}


def netuid_of(network: str, netuid: int | None, endpoint: str | None = None) -> int:
    """The subnet to use: the one given, or the network's own.

    Raises:
        UsageError: none was given and the network has none of its own.
    """
    if netuid is not None:
        return netuid
    if endpoint and endpoint.startswith("sqlite://"):
        network = "devnet"
    if endpoint and not endpoint.startswith("sqlite://"):
        network = endpoint
    if network not in NETUIDS:
        raise UsageError(f"no subnet is known for network {network!r}", remedy="Name it with --netuid")
    return NETUIDS[network]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How much is logged, and where besides stderr."""

    debug: bool = False
    trace: bool = False
    directory: Path | None = None


def setup_logging(settings: LogSettings, name: str) -> None:
    """Log key=value lines on stderr and, where a directory is given, to `name`.log in it.

    Raises:
        UsageError: the directory cannot be written.
    """
    level = logging.DEBUG if settings.debug or settings.trace else logging.INFO
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.directory is not None:
        directory = settings.directory.expanduser()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(directory / f"{name}.log"))
        except OSError as error:
            raise UsageError(
                f"logs cannot be written to {directory}: {error.strerror}",
                remedy="Name a writable directory with --logging.logging_dir",
            ) from error
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s.%(msecs)03d level=%(levelname)s source=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        handlers=handlers,
        force=True,
    )
    logging.getLogger("tensorage").setLevel(level)
    if settings.trace:
        logging.getLogger().setLevel(logging.DEBUG)


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    """The --config option: values of the file become the command's defaults."""
    if path is None:
        return None
    try:
        table = _flatten(tomllib.loads(path.expanduser().read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read as TOML: {error}", remedy="Correct it or leave --config out"
        ) from error
    names = {
        spelling.lstrip("-").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for spelling in parameter.opts
    }
    unknown = sorted(key for key in table if key.replace("-", "_") not in names)
    if unknown:
        raise UsageError(f"{path} sets {unknown[0]!r}, which is no flag", remedy="See --help for the flags")
    defaults = {str(names[key.replace("-", "_")]): value for key, value in table.items()}
    repeated = {
        parameter.name for parameter in context.command.params if getattr(parameter, "multiple", False)
    }
    defaults |= {
        name: [value] for name, value in defaults.items() if name in repeated and not isinstance(value, list)
    }
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


Config = Annotated[
    Path | None,
    typer.Option("--config", is_eager=True, callback=_load_config, help="TOML file with values for flags."),
]


def seconds_of(text: str) -> int:
    """Seconds that `12h`, `30d`, `4w` or `1y` stands for.

    Raises:
        UsageError: it stands for none.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(f"{text[:40]!r} is no duration", remedy="Write it like 12h, 30d, 4w or 1y")
    return int(found[1]) * _SECONDS[found[2]]


def confirmed(question: str, *, err: bool = False) -> bool:
    """Whether the operator, or what is piped in, answers the question with y or yes.

    Args:
        err: ask on stderr, where stdout is for a script.

    Raises:
        UsageError: nobody is there to ask.
    """
    typer.echo(f"{question} [y/N] ", nl=False, err=err)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer:
        typer.echo(err=err)
        raise UsageError("nobody is there to ask", remedy="Use --disable_prompt to go on without asking")
    return answer.strip().lower() in ("y", "yes")


def read_json(path: Path) -> Any:
    """The JSON value in a file, or on stdin for `-`.

    Raises:
        UsageError: the file cannot be read, or is not JSON.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        return json.loads(sys.stdin.read() if name == "stdin" else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{name} cannot be read: {error.strerror}", remedy="Name a JSON file, or -"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}", remedy="Name a JSON file, or -") from error


def run(app: typer.Typer, arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Run a command; returns its exit code. Errors become one line on stderr; no command gets the help."""
    try:
        result = get_command(app).main(arguments, prog_name=program, standalone_mode=False)
    except TensorageError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    except typer.Exit as leave:
        return leave.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped", err=True)
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own errors: a flag that is wrong
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            if shown := error.format_message():  # where rich has not printed it
                typer.echo(shown, err=True)
            return 2
        typer.echo(f"error: {' '.join(error.format_message().split()).rstrip('.')}. See --help", err=True)
        return 2
    return result if isinstance(result, int) else 0
