"""The command about owners' keys: show who signs, and hand datasets on to another key."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from .. import config
from ..errors import UsageError
from .identity import Signer, kind_of
from .options import DEFAULT_HOME, AsJson, DatasetHome, open_store, signer_choice
from .schema import STORE_NAME
from .signing import KeyOption, SignerChoice, SignerOption, load_signer
from .store import Store

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Show who signs, or hand datasets on.\n\nExample: dataset keys show",
)


@app.command()
def show(
    signer: SignerOption = None,
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Print the owner id of a key, which buyers pin with --owner, and the datasets that it signs. No secret.

    Example: dataset keys show --wallet.name owner
    """
    owner = load_signer(signer_choice(signer, key, home, (wallet_name, wallet_hotkey, wallet_path))).owner
    ids: list[str] = []
    if (home.expanduser() / STORE_NAME).exists():
        with open_store(home) as store:
            ids = [dataset.id for dataset in store.datasets() if dataset.owner == owner]
    if as_json:
        typer.echo(json.dumps({"owner": owner, "kind": kind_of(owner), "datasets": ids}))
        return
    typer.echo(owner)
    for id in ids:
        typer.echo(f"signs {id}", err=True)


@app.command()
def rotate(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The dataset.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every dataset that the key signs.", show_default=False)
    ] = False,
    new_wallet_name: Annotated[
        str | None,
        typer.Option(
            "--new-wallet.name", metavar="NAME", help="The new hotkey's wallet.", show_default="the same"
        ),
    ] = None,
    new_wallet_hotkey: Annotated[
        str | None, typer.Option("--new-wallet.hotkey", metavar="NAME", help="The new hotkey.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", metavar="FILE", help="The new secp256k1 key; made where it is missing."),
    ] = None,
    signer: SignerOption = None,
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Hand a dataset on to another key, which signs it from the next version on. It is for good.

    Both keys sign that. Restart a server of that dataset with the new key. If this breaks off, the same
    command goes on with it.

    Example: dataset keys rotate chats --new-wallet.hotkey second
    """
    if (id is None) != all_:
        raise UsageError("one of ID and --all is needed", remedy="Name a dataset, or --all")
    wallet = (wallet_name, wallet_hotkey, wallet_path)
    old = load_signer(signer_choice(signer, key, home, wallet))
    new = load_signer(_new(new_wallet_name, new_wallet_hotkey, new_key, wallet), make=True)
    if new.owner == old.owner:
        raise UsageError(f"{new.owner} is the old key and the new one", remedy="Name another key")
    with open_store(home, id=id) as store, store.alone():
        ids = [id] if id is not None else _of(store, old, new)
        if not ids:
            raise UsageError(f"{old.owner} signs no dataset in {home}", remedy="See: dataset keys show")
        rotated = []
        for each in ids:
            rotation = store.rotate(each, old, new, int(time.time())).rotation
            store.sign_head(each, new, int(time.time()))
            rotated.append({"id": each, "from": rotation.old, "to": rotation.new, "after": rotation.after})
            if not as_json:
                typer.echo(f'Dataset "{each}": {rotation.new} signs from version {rotation.after + 1} on')
    if as_json:
        typer.echo(json.dumps(rotated))


def _of(store: Store, old: Signer, new: Signer) -> list[str]:
    """The datasets that the old key signs, or has handed on to the new one already."""
    found = [dataset for dataset in store.datasets() if dataset.versions]
    handed_on = [d for d in found if d.owner == new.owner and old.owner in store.log(d.id).keys]
    return [d.id for d in found if d.owner == old.owner or d in handed_on]


def _new(
    name: str | None, hotkey: str | None, key: Path | None, wallet: tuple[str, str, Path]
) -> SignerChoice:
    if (key is None) == (name is None and hotkey is None):
        raise UsageError(
            "one new key is needed", remedy="Name --new-wallet.hotkey (and --new-wallet.name), or --new-key"
        )
    if key is not None:
        return SignerChoice("secp256k1", wallet, key)
    return SignerChoice("hotkey", (name or wallet[0], hotkey or wallet[1], wallet[2]), Path())
