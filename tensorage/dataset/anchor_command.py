"""The command that puts the heads of an owner's datasets on chain, where every buyer sees the same."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import typer

from .. import config
from ..chain.client import Chain
from ..chain.network import ChainSettings
from ..chain.wallet import Hotkey, load_hotkey
from ..errors import UsageError
from .anchor import Heads, anchor_root, payload, root_in
from .identity import kind_of
from .options import DEFAULT_HOME, AsJson, DatasetHome, DatasetId, open_store
from .store import Store

app = typer.Typer(add_completion=False)


@app.command()
def anchor(
    id: DatasetId,
    check: Annotated[
        bool,
        typer.Option("--check", help="Publish nothing: compare with what is on chain.", show_default=False),
    ] = False,
    home: DatasetHome = DEFAULT_HOME,
    netuid: config.Netuid = None,
    network: config.Network = config.DEFAULT_NETWORK,
    chain_endpoint: config.ChainEndpoint = None,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Put one hash over the newest versions of all datasets of ID's owner on chain, after each version.

    The owner must be a hotkey that is registered on the subnet. With --check no key is needed, and the exit
    code is 1 unless the chain has the newest versions.

    Example: dataset anchor chats --subtensor.network devnet --wallet.name owner
    """
    settings = ChainSettings(network, chain_endpoint, config.netuid_of(network, netuid, chain_endpoint))
    with open_store(home, id=id) as store:
        owner = store.dataset(id).owner
        if kind_of(owner) != "sr25519":
            raise UsageError(
                f'dataset "{id}" is signed by {owner}, which is no hotkey',
                remedy="Hand it on to a registered hotkey with: dataset keys rotate",
            )
        heads = store.heads_of(owner)
        if id not in heads:
            raise UsageError(f'dataset "{id}" has no versions yet', remedy="There is nothing to anchor")
        if check:
            found = asyncio.run(_on_chain(settings, owner))
            if found is not None:
                store.finish_anchor(owner, found)  # where a publishing was cut off before it was noted
        else:
            hotkey = load_hotkey(wallet_name, wallet_hotkey, wallet_path)
            found = _publish(store, settings, hotkey, owner, heads)
        anchored = store.anchored_heads(owner) if found is not None else None
    _show(owner, heads, anchored or {}, found, as_json)
    if found != anchor_root(heads):
        raise typer.Exit(1)


def _publish(store: Store, settings: ChainSettings, hotkey: Hotkey, owner: str, heads: Heads) -> bytes:
    if hotkey.ss58 != owner:
        raise UsageError(
            f"the owner is {owner}, this hotkey is {hotkey.ss58}", remedy="Name the owner's --wallet.hotkey"
        )
    root = store.begin_anchor(owner, heads)
    asyncio.run(_commit(settings, hotkey, payload(root)))
    store.finish_anchor(owner, root)
    return root


async def _commit(settings: ChainSettings, hotkey: Hotkey, text: str) -> None:
    async with Chain(settings, hotkey) as chain:
        if (await chain.commitments()).get(hotkey.ss58) != text.encode():
            await chain.set_commitment(text.encode())


async def _on_chain(settings: ChainSettings, owner: str) -> bytes | None:
    async with Chain(settings) as chain:
        raw = (await chain.commitments()).get(owner)
    return root_in(raw.decode("ascii", "replace")) if raw is not None else None


def _show(owner: str, heads: Heads, anchored: Heads, root: bytes | None, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"id": id, "version": seq, "anchored": anchored[id][0] if id in anchored else None}
        for id, (seq, _) in sorted(heads.items())
    ]
    if as_json:
        is_newest = root == anchor_root(heads)
        document = {
            "owner": owner,
            "root": root.hex() if root else None,
            "newest": is_newest,
            "datasets": rows,
        }
        typer.echo(json.dumps(document))
        return
    typer.echo(f"{owner}: {payload(root) if root else 'nothing is anchored'}")
    for row in rows:
        reached = f"anchored up to v{row['anchored']}" if row["anchored"] else "not anchored"
        typer.echo(f"  {row['id']} v{row['version']}: {reached}")
    if root != anchor_root(heads):
        typer.echo(
            f"the chain does not have the newest versions: run dataset anchor {rows[0]['id']}", err=True
        )
