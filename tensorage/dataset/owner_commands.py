"""The commands that record versions and show them: from, version, status, head.

Exit codes: 0 done; 1 it failed; 2 something that the user can put right; 130 interrupted.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import config
from ..errors import TensorageError, UsageError
from . import wire
from .bundle import bundle_size, read_bundle
from .entry import HEAD_SECONDS, Signed
from .identity import Signer
from .names import check_id
from .options import DEFAULT_HOME, AsJson, DatasetHome, DatasetId, meter, open_store, signer_choice
from .signing import KeyOption, SignerOption, load_signer
from .store import Store

app = typer.Typer(add_completion=False, no_args_is_help=True)

IgnoreHash = Annotated[
    bool,
    typer.Option(
        "--ignore-manifest-hash",
        help="Record the bundle although its manifest.json claims another hash.",
        show_default=False,
    ),
]


@app.command("from")
def from_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory with manifest.json.")],
    name: Annotated[str, typer.Option("--name", metavar="ID", help="The dataset, new or known.")],
    ignore_manifest_hash: IgnoreHash = False,
    signer: SignerOption = None,
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Record a bundle as the next version of a dataset, which is made where it is missing.

    The artifact is copied into the home: the bundle is not needed any more. With --signer secp256k1 a key is
    made where there is none.

    Example: dataset from ./bundle --name chats --wallet.name owner --wallet.hotkey default
    """
    check_id(name)
    choice = signer_choice(signer, key, home, (wallet_name, wallet_hotkey, wallet_path))
    with open_store(home, make=True) as store:
        known = any(dataset.id == name for dataset in store.datasets())
        _record(store, name, bundle, load_signer(choice, make=not known), ignore_manifest_hash, as_json)


@app.command()
def version(
    id: DatasetId,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="DIR", help="Directory with manifest.json.")
    ] = None,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Record the version that was begun and cut off.", show_default=False),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Record nothing: put the bundle's artifact back where the home's is damaged or missing.",
            show_default=False,
        ),
    ] = False,
    ignore_manifest_hash: IgnoreHash = False,
    signer: SignerOption = None,
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Record a bundle as the next version of a dataset. A server that is running serves it at once.

    Example: dataset version chats --bundle ./bundle-2
    """
    if (bundle is None) != finish or (finish and repair):
        raise UsageError("one of --bundle and --finish is needed", remedy="See --help")
    choice = signer_choice(signer, key, home, (wallet_name, wallet_hotkey, wallet_path))
    with open_store(home, id=id) as store:
        store.dataset(id)
        if repair and bundle is not None:
            _repair(store, id, bundle, as_json)
        elif bundle is not None:
            _record(store, id, bundle, load_signer(choice), ignore_manifest_hash, as_json)
        else:
            owner = load_signer(choice)
            signed = store.finish(id, owner)
            if signed is None:
                raise UsageError(
                    f'no version of dataset "{id}" was cut off', remedy="There is nothing to finish"
                )
            _recorded(store, signed, owner, as_json)


@app.command()
def status(
    id: DatasetId,
    check: Annotated[
        bool, typer.Option("--check", help="Hash every artifact anew.", show_default=False)
    ] = False,
    home: DatasetHome = DEFAULT_HOME,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Show the versions of a dataset and how many members it has. Asks nobody.

    With --check the exit code is 1 where an artifact is missing or damaged.

    Example: dataset status chats
    """
    with open_store(home, id=id) as store:
        dataset, log, head = store.dataset(id), store.log(id), store.head(id)
        begun, members = store.unfinished(id), store.count_members(id, int(time.time()))
        states = {signed.entry.seq: _state(store, id, signed.entry.seq, check) for signed in log.entries}
    if as_json:
        document: dict[str, Any] = wire.log_json(log, head)
        for line, state in zip(document["versions"], states.values(), strict=True):
            line["artifact"] = state
        document |= {"owner": dataset.owner, "rootOwner": dataset.root_owner, "members": members}
        document["unfinished"] = None if begun is None else begun.seq
        typer.echo(json.dumps(document))
    else:
        for signed in log.entries:
            entry, state = signed.entry, states[signed.entry.seq]
            typer.echo(
                f"v{entry.seq}  {entry.manifest_hash.hex()[:12]}  {entry.size}  {signed.signature.hex()[:12]}"
                + ("" if state in ("there", "good") else f"  artifact {state}")
            )
        typer.echo(f"Entitled members: {members}")
        if begun is not None:
            _tell(f"version {begun.seq} was begun and cut off: dataset version {id} --finish")
    if check and any(state != "good" for state in states.values()):
        raise typer.Exit(1)


@app.command()
def head(
    id: DatasetId,
    signer: SignerOption = None,
    key: KeyOption = None,
    home: DatasetHome = DEFAULT_HOME,
    wallet_name: config.WalletName = "default",
    wallet_hotkey: config.WalletHotkey = "default",
    wallet_path: config.WalletPath = config.DEFAULT_WALLET_PATH,
    as_json: AsJson = False,
    config_file: config.Config = None,
) -> None:
    """Print the signed statement of which version is the newest.

    When half of its day is over a new one is signed; the key is needed only for that.

    Example: dataset head chats --json
    """
    now = int(time.time())
    with open_store(home, id=id) as store:
        signed = store.head(id)
        if signed is None or not signed.head.issued <= now <= signed.head.expires - HEAD_SECONDS // 2:
            choice = signer_choice(signer, key, home, (wallet_name, wallet_hotkey, wallet_path))
            signed = store.sign_head(id, load_signer(choice), now)
    if as_json:
        typer.echo(json.dumps(wire.head_json(signed)))
        return
    stated = signed.head
    typer.echo(f"{stated.id} v{stated.seq} {stated.entry_hash.hex()}")
    typer.echo(f"  Owner:     {stated.owner}")
    typer.echo(f"  Issued:    {stated.issued}, expires {stated.expires}")
    typer.echo(f"  Signature: {signed.signature.hex()}")


def _record(store: Store, id: str, directory: Path, signer: Signer, ignore_hash: bool, as_json: bool) -> None:
    bundle = read_bundle(directory, ignore_hash=ignore_hash)
    with store.alone():
        store.check_owner(id, signer.owner)  # before gigabytes are copied
        with meter(f"recording {id}", bundle_size(bundle), quiet=as_json) as bar:
            ingested = store.ingest(bundle, ignore_hash=ignore_hash, tell=bar.add)
        store.create(id, signer.owner)
        signed = store.append(id, ingested, signer, int(time.time()))
    _recorded(store, signed, signer, as_json)


def _recorded(store: Store, signed: Signed, signer: Signer, as_json: bool) -> None:
    entry = signed.entry
    store.sign_head(entry.id, signer, int(time.time()))
    if as_json:
        document = {"id": entry.id, "version": entry.seq, "entry": entry.hash.hex()}
        typer.echo(json.dumps({**document, **wire.entry_json(signed)}))
        return
    typer.echo(f'Dataset "{entry.id}" version {entry.seq} recorded')
    typer.echo(f"  Manifest: {entry.manifest_hash.hex()}")
    typer.echo(f"  File:     {entry.file_hash.hex()}")
    typer.echo(f"  Size:     {entry.size} bytes")
    typer.echo(f"  Owner:    {entry.owner}")
    _tell(f"Next: dataset publish {entry.id}")


def _repair(store: Store, id: str, directory: Path, as_json: bool) -> None:
    bundle = read_bundle(directory)
    with meter(f"repairing {id}", None, quiet=as_json) as bar:
        versions = store.repair(id, bundle, bar.add)
    if as_json:
        typer.echo(json.dumps({"id": id, "repaired": versions}))
    else:
        typer.echo(f'Dataset "{id}": the artifact of {", ".join(f"v{seq}" for seq in versions)} is good')


def _state(store: Store, id: str, seq: int, check: bool) -> str:
    """there or missing; after hashing good, missing or damaged."""
    artifact = store.artifact(id, seq)
    if not artifact.path.is_file():
        return "missing"
    if not check:
        return "there"
    try:
        store.check_artifact(artifact)
    except TensorageError as error:
        _tell(f"v{seq}: {error}")
        return "damaged"
    return "good"


def _tell(line: str) -> None:
    typer.echo(line, err=True)
