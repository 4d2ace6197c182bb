"""The command that serves a dataset.

Exit codes: 0 done; 1 it failed; 2 something that the user can put right; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from ... import config
from ...chain.address import public_key
from ...client.command import DEFAULT_HOME as CLIENT_HOME
from ...client.command import ApiKeyText, GatewayUrl, access_of
from ...client.gateway import Access
from ...errors import UsageError
from ...service import lifetime
from ...transport.refusals import one_line
from ..identity import kind_of
from ..options import DEFAULT_HOME, AsJson, DatasetHome, DatasetId, open_store, signer_choice
from ..payments.pricing import price as check_price
from ..payments.pricing import shown
from ..signing import KeyOption, SignerOption, load_signer
from .context import Membership
from .depot import Rent
from .publishing import TAO, Plan, Price, Publishing, is_loopback

app = typer.Typer(add_completion=False)

_EVM_CHAIN = re.compile(r"eip155:[1-9][0-9]{0,18}", re.ASCII)
_EVM_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_URL = re.compile(r"https?://[\x21-\x7e]{1,2000}", re.ASCII)


@app.command()
def publish(
    id: DatasetId,
    membership: Annotated[
        str,
        typer.Option(metavar="open|invite", help="Whether everybody gets in who asks, or whom you approve."),
    ] = "invite",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own need TLS.")
    ] = "127.0.0.1",
    tunnel: Annotated[
        bool | None,
        typer.Option(
            "--tunnel/--no-tunnel",
            help="Let others in through a tunnel of cloudflared.",
            show_default="where cloudflared is installed",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", "--tls_cert", metavar="PEM", help="Certificate, and its chain."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", "--tls_key", metavar="PEM", help="Key of the certificate.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option("--public-url", "--public_url", metavar="URL", help="Where others reach this server."),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", metavar="URL", help="Where the same bytes are to be had; repeat it."),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Sell access, in TAO or USDC.", show_default="not sold"),
    ] = None,
    price_per_mb: Annotated[
        str | None,
        typer.Option(
            "--price-per-mb", "--price_per_mb", metavar="AMOUNT", help="The same, for each 2^20 bytes."
        ),
    ] = None,
    pay_to: Annotated[
        str | None,
        typer.Option("--pay-to", "--pay_to", metavar="ADDRESS", help="Payee.", show_default="the owner"),
    ] = None,
    chain: Annotated[
        str | None,
        typer.Option(
            "--chain",
            metavar="NAME",
            help="Where it is paid: bittensor, base, base-sepolia, eip155:N.",
            show_default=TAO,
        ),
    ] = None,
    facilitator: Annotated[
        str | None, typer.Option(metavar="URL", help="Who settles payments on an EVM chain.")
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(
            "--rpc", metavar="URL", help="A node of the EVM chain, to see whether a payment in doubt arrived."
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(metavar="local|subnet", help="Whether the bytes are put into the storage subnet too."),
    ] = "local",
    expires: Annotated[
        str | None,
        typer.Option(
            help="For how long the subnet keeps them, 12h, 30d, 4w, 1y; while this runs, it is prolonged.",
            show_default="30d",
        ),
    ] = None,
    gateway: GatewayUrl = None,
    api_key: ApiKeyText = None,
    client_home: Annotated[
        Path,
        typer.Option(
            "--client-home",
            "--client_home",
            envvar="TENSORAGE_HOME",
            help="Where the keys of files in the subnet are kept, as of tensorage put.",
        ),
    ] = CLIENT_HOME,
    signer: SignerOption = "hotkey",
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    as_json: AsJson = False,
    logging_debug: config.LoggingDebug = False,
    config_file: config.Config = None,
) -> None:
    """Serve a dataset to its members until interrupted; new versions are served without a restart.

    Example: dataset publish chats --price 0.5 --wallet.name owner
    """
    config.setup_logging(config.LogSettings(debug=logging_debug), "publish")
    wallet = (wallet_name, wallet_hotkey, wallet_path)
    rent = _rent(
        store,
        expires,
        client_home,
        lambda: access_of(gateway, api_key, wallet, (network, chain_endpoint, netuid)),
    )
    with open_store(home, id=id) as opened:
        owner = load_signer(signer_choice(signer, key, home, wallet))
        settings = (network, chain_endpoint)
        plan = Plan(
            id=id,
            membership=_membership(membership),
            host=host,
            port=port,
            tls=_tls(tls_cert, tls_key),
            tunnel=tunnel,
            public_url=None if public_url is None else _public(public_url),
            mirrors=tuple(_url(url, "--mirror") for url in mirror or ()),
            price=_price(price, price_per_mb, pay_to, chain, (facilitator, rpc), owner.owner, settings),
            rent=rent,
        )
        publishing = Publishing(
            plan,
            opened,
            owner,
            clock=lambda: int(time.time()),
            rng=os.urandom,
            tell=_print_json if as_json else _print_text,
            warn=lambda line: typer.echo(f"warning: {one_line(line, 1000)}", err=True),
            say=lambda line: typer.echo(one_line(line, 1000), err=True),
        )
        asyncio.run(lifetime.serve(publishing.run))


def _membership(text: str) -> Membership:
    if text == "open":
        return "open"
    if text == "invite":
        return "invite"
    raise UsageError(f"there is no membership {text[:40]!r}", remedy="Take --membership open or invite")


def _rent(store: str, expires: str | None, home: Path, access: Callable[[], Access]) -> Rent | None:
    """How the bytes are kept in the storage subnet; None where they are not.

    Raises:
        UsageError: there is no such place, or nobody to put them as.
    """
    if store == "local":
        if expires is not None:
            raise UsageError("--expires is about the storage subnet", remedy="Add --store subnet")
        return None
    if store != "subnet":
        raise UsageError(f"there is no store {store[:40]!r}", remedy="Take --store local or subnet")
    found = access()
    found.signer()
    return Rent(found, home, config.seconds_of(expires or "30d"))


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("one of --tls-cert and --tls-key is missing", remedy="Name both, or neither")
    return certificate.expanduser(), key.expanduser()


def _url(text: str, flag: str) -> str:
    if not _URL.fullmatch(text):
        raise UsageError(f"{flag} {text[:80]!r} is no URL", remedy="Write it like https://example.org/data")
    return text


def _public(text: str) -> str:
    url = _url(text, "--public-url").rstrip("/")
    if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
        raise UsageError(
            f"{url[:80]} is no TLS, and tokens must not travel in the clear", remedy="Take https://"
        )
    return url


def _price(
    flat: str | None,
    per_mb: str | None,
    pay_to: str | None,
    chain: str | None,
    services: tuple[str | None, str | None],
    owner: str,
    settings: tuple[str, str | None],
) -> Price | None:
    """What access costs; None where it is not sold.

    Raises:
        UsageError: no price where one is meant, no such chain, or a payee that cannot be paid there.
    """
    facilitator, rpc = services
    if flat is None and per_mb is None:
        for flag, value in (
            ("--pay-to", pay_to),
            ("--chain", chain),
            ("--facilitator", facilitator),
            ("--rpc", rpc),
        ):
            if value is not None:
                raise UsageError(f"{flag} is there and no price", remedy="Add --price or --price-per-mb")
        return None
    if flat is not None and per_mb is not None:
        raise UsageError("there are two prices", remedy="Take --price or --price-per-mb")
    check_price(flat if per_mb is None else per_mb)
    chain = chain or TAO
    payee = pay_to or owner
    if chain == TAO:
        try:
            fits = kind_of(payee) == "sr25519"
            public_key(payee)
        except ValueError:
            fits = False
        if facilitator is not None or rpc is not None:
            raise UsageError(
                "nobody else settles payments in TAO", remedy="Leave out --facilitator and --rpc"
            )
    else:
        from ..payments.evm import NAMES  # noqa: PLC0415 - for sales on an EVM chain only

        if chain not in NAMES and not _EVM_CHAIN.fullmatch(chain):
            raise UsageError(
                f"there is no paying on chain {chain[:40]!r}",
                remedy="Take bittensor, base, base-sepolia or eip155:N",
            )
        fits = _EVM_ADDRESS.fullmatch(payee) is not None
    if not fits:
        raise UsageError(
            f"{payee[:80]!r} cannot be paid on {chain[:40]}",
            remedy="Name an address of that chain with --pay-to",
        )
    network, endpoint = settings

    def till() -> Any:
        from ...chain.network import ChainSettings  # noqa: PLC0415 - loads the chain's SDK
        from .tills import open_till  # noqa: PLC0415 - likewise

        return open_till(chain, facilitator, rpc, lambda: ChainSettings(network, endpoint, 0))

    unit, text = ("flat", flat) if flat is not None else ("mb", per_mb)
    return Price(str(text), "flat" if unit == "flat" else "mb", payee, facilitator, till)


def _print_json(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)


def _print_text(found: dict[str, Any]) -> None:
    url = found["public_url"] or found["local_addr"]
    reached = "none, only this machine can reach it"
    if found["reached"] != "this machine":
        reached = f"not known, tell it with --public-url; listening on {found['reached']}"
    price, buying = "not sold", ""
    if found["amount"] is not None:
        amount = int(found["amount"])
        price = f"{shown(amount, found['network'])} for v{found['head']}, to {found['pay_to']}"
        price += f"\n               on {found['network']}"
        if found["price_per_mb"]:
            price += f", {found['price']} for each 2^20 bytes"
        buying = f" --join --max-price {amount}"
    lines = [
        f'Publishing "{found["id"]}", head v{found["head"]}',
        f"  public URL:  {found['public_url'] or reached}",
        f"  local URL:   {found['local_addr']}",
        f"  owner:       {found['owner']}",
        f"  membership:  {found['membership']}",
        f"  price:       {price}",
        f"  buyers:      dataset buy {url}/dataset/{found['id']} --owner {found['owner']}{buying}",
    ]
    if found["membership"] == "invite":
        lines.append(f"  let in:      dataset approve CODE --dataset {found['id']}")
    print("\n".join(lines), flush=True)
