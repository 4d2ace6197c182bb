"""The commands of buyers: buy, join, verify, receipt show. Flags in, outcome out.

Exit codes: 0 done; 1 it failed, or what was verified is INVALID; 2 something that the user can put right; 130
interrupted. What a script reads is on stdout, all else on stderr.
"""

from __future__ import annotations

import asyncio
import json
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ... import config
from ...chain.network import ChainSettings
from ...errors import ProofError, UsageError
from ...transport.refusals import one_line
from .. import wire
from ..log import Log
from ..options import DEFAULT_HOME, AsJson, DatasetHome, day, meter
from . import receipts
from .api import Seller
from .book import Book
from .buying import Buy, Request
from .checking import is_file, verify_at, verify_file, verify_own
from .entitling import given_token
from .joining import join as join_as_worker
from .target import hash_file
from .trust import Trusted, check_pin
from .urls import place as place_of
from .wallets import BITTENSOR, Money

app = typer.Typer(add_completion=False, no_args_is_help=True)
receipt_app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Show what was bought.\n\nExample: dataset receipt show chats-v1.jsonl",
)
app.add_typer(receipt_app, name="receipt")

Url = Annotated[str, typer.Argument(metavar="URL", help="The seller's address; may end in /dataset/ID.")]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="The dataset; wins over the URL.")]
Owner = Annotated[
    str | None,
    typer.Option(
        "--owner",
        metavar="OWNER",
        help="The owner's id, SS58 or 0x...; the log must be by that key.",
        show_default="whom you trusted before at that address",
    ),
]
TokenText = Annotated[
    str | None,
    typer.Option(
        "--member-token",
        metavar="TOKEN",
        help="Your token. Others see it here: better in TENSORAGE_DATASET_TOKEN, or a file.",
    ),
]
TokenFile = Annotated[
    Path | None, typer.Option("--member-token-file", metavar="FILE", help="File with your token.")
]
Anchored = Annotated[
    bool,
    typer.Option("--anchor", help="Check it against what the owner anchored on chain.", show_default=False),
]


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _now() -> int:
    return int(time.time())


def _chain(network: str, endpoint: str | None, netuid: int | None) -> ChainSettings:
    return ChainSettings(network, endpoint, config.netuid_of(network, netuid, endpoint))


@app.command()
def buy(
    url: Url,
    id: Id = None,
    version: Annotated[
        int, typer.Option("--version", min=0, max=2**53 - 1, help="Which version; 0 is the newest.")
    ] = 0,
    member_token: TokenText = None,
    member_token_file: TokenFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Where to.", show_default="ID-vN.jsonl"),
    ] = None,
    owner: Owner = None,
    join: Annotated[
        bool, typer.Option("--join", help="Pay for access, if you have none.", show_default=False)
    ] = False,
    pay_again: Annotated[
        bool,
        typer.Option(
            "--pay-again",
            help="With --join: pay anew although it was paid before. Nothing else does.",
            show_default=False,
        ),
    ] = False,
    max_price: Annotated[
        int | None,
        typer.Option(
            "--max-price",
            min=1,
            metavar="AMOUNT",
            help="The most to pay, in the smallest unit: rao (10^9 are a TAO), or a millionth of a USDC.",
        ),
    ] = None,
    pay_to: Annotated[
        list[str] | None,
        typer.Option("--pay-to", metavar="ADDRESS", help="Pay nobody else; repeat it for several."),
    ] = None,
    chain: Annotated[
        str,
        typer.Option(
            "--chain", metavar="NAME", help="What to pay on: bittensor, base, base-sepolia or eip155:N."
        ),
    ] = BITTENSOR,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="File with the secp256k1 key that pays on an EVM chain."),
    ] = None,
    rpc: Annotated[str | None, typer.Option("--rpc", metavar="URL", help="A node of that EVM chain.")] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            "--mirror",
            metavar="URL",
            help="Another place with the file; {id}, {version} and {sha256} are filled in. Repeat it.",
        ),
    ] = None,
    anchor: Anchored = False,
    moved_from: Annotated[
        str | None,
        typer.Option("--moved-from", metavar="URL", help="The seller's old address, whose tokens to use."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another file at --out.", show_default=False)
    ] = False,
    home: DatasetHome = DEFAULT_HOME,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Fetch a version of a dataset, verified from its log to its last byte; pay for it first with --join.

    If it breaks off, the same command goes on with it, and pays nothing twice.

    Example: dataset buy https://data.example/dataset/chats --owner 5Grw... --join --max-price 2000000000
    """
    given = given_token(member_token, member_token_file, _tell)
    if join and (member_token is not None or member_token_file is not None):
        raise UsageError("--join and --member-token exclude each other", remedy="Give one of them")
    if pay_again and not join:
        raise UsageError("--pay-again pays, and only --join may", remedy="Give both, or neither")
    pays = join and chain == BITTENSOR
    settings = _chain(network, chain_endpoint, netuid) if pays or anchor else None
    request = Request(
        place=place_of(url, id),
        version=version,
        token=None if join else given,
        out=out,
        owner=check_pin(owner),
        join=join,
        money=Money(chain, max_price, tuple(pay_to or ()), settings, (wallet_name, wallet_path), key, rpc),
        mirrors=tuple(mirror or ()),
        anchor=settings if anchor else None,
        moved_from=moved_from,
        force=force,
        pay_again=pay_again,
        network=ChainSettings(network, chain_endpoint, netuid or 0),
    )
    with Book(home) as book:
        work = Buy(
            book, request, clock=_now, tell=_tell, meter=lambda verb, size: meter(verb, size, quiet=as_json)
        )
        outcome = asyncio.run(work.run())
    if as_json:
        typer.echo(json.dumps(outcome))
        return
    if outcome["alreadyThere"]:
        _tell(f"{outcome['path']} is there already, whole and as signed")
    elif outcome["resumed"]:
        _tell(f"(resumed an interrupted download: {outcome['resumed']} bytes were there)")
    typer.echo(f"Verified v{outcome['seq']}: {outcome['size']} bytes, file hash {outcome['fileHash']}")
    typer.echo(f"Manifest: {outcome['manifestHash']}")
    _tell(f"{outcome['path']}; its receipt: {receipts.beside(Path(outcome['path'])).name}")


@app.command()
def join(
    url: Url,
    id: Id = None,
    worker: Annotated[
        str, typer.Option("--worker", metavar="NAME", help="What the owner sees beside your code.")
    ] = "",
    home: DatasetHome = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Ask an owner for access: shows a code, waits until the owner approves it, and keeps the token.

    With --json, the first line on stdout has the code and the second the outcome.

    Example: dataset join https://data.example/dataset/chats
    """
    place = place_of(url, id)
    place.check_private()

    def show(code: str, seconds: int) -> None:
        if as_json:
            typer.echo(json.dumps({"user_code": code, "expires_in": seconds}))
        _tell(f"Your code: {code}\nHave the owner run: dataset approve {code}")
        _tell(f"Waiting for at most {seconds // 60} minutes ...")

    async def run() -> None:
        async with Seller(place) as seller:
            name = worker or platform.node()
            await join_as_worker(seller, book, worker=name[:64], show=show, clock=_now, sleep=asyncio.sleep)

    with Book(home) as book:
        asyncio.run(run())
    if as_json:
        typer.echo(json.dumps({"id": place.id, "url": place.base, "status": "authorized"}))
    else:
        _tell(f"You are in. Your token is kept; fetch with: dataset buy {place.base}/dataset/{place.id}")


@app.command()
def verify(
    what: Annotated[
        str, typer.Argument(metavar="ID|URL|LOG.json", help="A dataset of yours, a seller's, or a log.")
    ],
    id: Id = None,
    owner: Owner = None,
    anchor: Anchored = False,
    member_token: TokenText = None,
    member_token_file: TokenFile = None,
    home: DatasetHome = DEFAULT_HOME,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Verify a version log: its chain, its owner, that it is the newest and was never another.

    A seller's log must come with a fresh statement of its newest version. Exits with 1 when it is INVALID.

    Example: dataset verify https://data.example/dataset/chats --owner 5Grw... --anchor
    """
    pin = check_pin(owner)
    settings = _chain(network, chain_endpoint, netuid) if anchor else None
    token = given_token(member_token, member_token_file, _tell)
    try:
        if "://" in what:
            place = place_of(what, id)
            with Book(home) as book:
                found = asyncio.run(
                    verify_at(book, place, owner=pin, token=token, anchor=settings, clock=_now, tell=_tell)
                )
        elif is_file(what):
            if anchor:
                raise UsageError(
                    "a log in a file has no path to the chain",
                    remedy="Verify the seller's URL, or your own ID",
                )
            with Book(home) as book:
                found = verify_file(book, Path(what), owner=pin, id=id, now=_now(), tell=_tell)
            if found.head is None and isinstance(found.log, Log):
                _tell("WARNING: no statement of the owner's is in it: later versions may have been cut off")
        else:
            found = asyncio.run(verify_own(home, what, owner=pin, anchor=settings))
    except ProofError as error:
        _invalid(error, as_json)
        raise typer.Exit(1) from error
    _valid(found, as_json)


def _invalid(error: ProofError, as_json: bool) -> None:
    if as_json:
        reason = getattr(error, "reason", "malformed")
        typer.echo(json.dumps({"valid": False, "reason": reason, "error": str(error)}))
    else:
        typer.echo(f"chain INVALID: {error}")


def _valid(found: Trusted, as_json: bool) -> None:
    verified = found.verified
    if as_json:
        document: dict[str, Any] = {
            "valid": True,
            "id": verified.id,
            "versions": verified.seq,
            "head": verified.seq,
            "owner": verified.owner,
            "rootOwner": verified.root_owner,
            "pinned": verified.pinned,
            "entry": verified.entry_hash.hex(),
            "format": verified.version,
            "statement": None if found.head is None else wire.head_json(found.head),
            "anchored": found.anchored,
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(found.says)
    if found.head is not None and isinstance(found.log, Log):
        _tell(f"The owner says so until {day(found.head.head.expires)} UTC")
    elif not isinstance(found.log, Log):
        _tell(
            "Format 1: nothing says that v" + str(verified.seq) + " is the newest, or which dataset this is"
        )
    if found.anchored is not None:
        _tell(f"Anchored on chain up to v{found.anchored}")


@receipt_app.command()
def show(
    what: Annotated[
        str | None,
        typer.Argument(metavar="ID|FILE", help="A dataset, a file that was bought, or its receipt."),
    ] = None,
    home: DatasetHome = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Show what was bought, newest first, and check what the receipts prove.

    For a FILE, it is hashed: exits with 1 when it is not what its receipt says.

    Example: dataset receipt show chats-v3.jsonl
    """
    found = _receipts(what, home)
    for document in found:
        receipts.check(document)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for document in found:
        for line in receipts.lines(document):
            typer.echo(one_line(line, 500))


def _receipts(what: str | None, home: Path) -> list[dict[str, Any]]:
    path = Path(what) if what is not None else None
    if path is not None and path.is_file():
        if path.name.endswith(".json") and _is_receipt(path):
            return [receipts.read(path)]
        digest = hash_file(path, path.stat().st_size)
        with Book(home) as book:
            found = book.receipts(file_hash=digest)
        beside = receipts.beside(path)
        if not found and beside.is_file():
            document = receipts.read(beside)
            if document.get("fileHash") != digest.hex():
                raise ProofError(f"{path} is not the file of its receipt: it hashes to {digest.hex()}")
            found = [document]
        if not found:
            raise UsageError(f"there is no receipt for {path}", remedy="See what there is with: receipt show")
        return found
    with Book(home) as book:
        found = book.receipts(id=what)
    if what is not None and not found:
        raise UsageError(f"there is no receipt for {what!r}", remedy="See what there is with: receipt show")
    return found


def _is_receipt(path: Path) -> bool:
    return path.name.endswith(receipts.beside(Path("x")).name[1:])
