"""The SDK's `Substrate` contract over a devnet: what a node is to the SDK, this is to the SDK on a devnet.

`bt.Client(network="local", substrate=open_substrate("devnet"))` is a client whose reads, intents and waits
run unchanged. Any number of processes may open the same file; each reads it for itself, and sends
transactions through the pool in it to the producer. SQLite is touched on one thread of its own, never on
the event loop.

Where a node would be gone, the producer is: reads still answer, submissions and head streams raise
`RpcConnectionError` with the command that starts one.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from bittensor import Balance, ConnectionNotReady, ExtrinsicResult, RpcConnectionError
from bittensor import ChainError as SdkChainError
from bittensor._transport.contract import SignedExtrinsic, UnsignedExtrinsic
from bittensor.settings import DEFAULT_ERA_PERIOD
from bittensor.sp_core import ss58_decode

from ...errors import TensorageError
from . import apis, constants
from .block import ChainFacts, read_extrinsic, validate
from .calls import SPEC_VERSION, Call, compose, decode
from .errors import PoolError
from .extrinsics import Era, Unsigned, extrinsic_hash
from .pallets.balances import fee
from .pallets.registry import check
from .producer import is_producing
from .state import View
from .store import Block, Receipt, Store

T = TypeVar("T")
_SIGNATURE_BYTES = 300  # what signature, nonce and era add to a call, for a fee's estimate
_RACES = 10
_WITHOUT_PRODUCER = 3.0  # seconds that a producer may be gone, for a restart, before waiting for it ends


class DevnetSubstrate:
    """A connection to the devnet in `path`; opens the file in `connect`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token_symbols: dict[int, str] = {}
        self._store: Store | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._facts: ChainFacts | None = None

    # Lifecycle ----------------------------------------------------------------

    async def connect(self) -> None:
        """Open the file. Idempotent.

        Raises:
            bittensor.RpcConnectionError: there is no devnet there, or a newer program made it.
        """
        if self._store is not None:
            return
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devnet")
        loop = asyncio.get_running_loop()
        try:
            store = await loop.run_in_executor(executor, Store, self.path)
            self._facts = await loop.run_in_executor(executor, ChainFacts.of, store)
        except TensorageError as error:
            executor.shutdown(wait=False)
            raise RpcConnectionError(str(error)) from error
        self._store, self._executor = store, executor

    async def close(self) -> None:
        store, executor = self._store, self._executor
        self._store = self._executor = None
        if store is not None and executor is not None:
            await asyncio.get_running_loop().run_in_executor(executor, store.close)
            executor.shutdown(wait=False)

    async def _run(self, function: Callable[[Store], T]) -> T:
        """Run `function` on the thread that owns the file."""
        store, executor = self._store, self._executor
        if store is None or executor is None:
            raise ConnectionNotReady(
                "The devnet is not open. Use `async with Client(...)` or call `await client.connect()` first."
            )
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, function, store)
        except sqlite3.Error as error:
            raise RpcConnectionError(f"the devnet at {self.path} cannot be read: {error}") from error

    @property
    def _chain(self) -> ChainFacts:
        if self._facts is None:
            raise ConnectionNotReady("The devnet is not open.")
        return self._facts

    async def _view(self, function: Callable[[View], T], block_hash: str | None = None) -> T:
        """Read the state as a block, or the head, left it."""
        return await self._run(lambda store: function(_at(store, block_hash)))

    def balance(self, rao: int, netuid: int = 0) -> Balance:
        """An amount with the subnet's token symbol."""
        return Balance(int(rao), netuid, self.token_symbols.get(netuid) if netuid else None)

    # Blocks -------------------------------------------------------------------

    async def block_hash(self, block: int | None = None) -> str:
        """0x-hex hash of a block, by default the head.

        Raises:
            bittensor.ChainError: there is no such block yet.
        """
        return (await self._run(lambda store: _block(store, block))).hash

    async def block_number(self) -> int:
        return await self._run(lambda store: store.head())

    async def finalized_block_number(self) -> int:
        return max(0, await self.block_number() - self._chain.finality_lag)

    async def block_time(self) -> float:
        """Seconds a block."""
        return self._chain.block_time

    async def spec_version(self) -> int:
        return SPEC_VERSION

    async def get_block(
        self, block_number: int | None = None, block_hash: str | None = None
    ) -> dict[str, Any] | None:
        """A block's header and decoded extrinsics, by default the head's; None for no such block."""
        if block_number is not None and block_hash is not None:
            raise ValueError("Provide either block_hash or block_number, not both")

        def read(store: Store) -> dict[str, Any] | None:
            if block_hash is not None:
                block = store.block_by_hash(block_hash)
            else:
                block = store.block(store.head() if block_number is None else block_number)
            if block is None:
                return None
            bodies = [{"extrinsic_hash": r.hash, **r.body} for r in store.receipts(block.number)]
            return {"header": {**_header(block), "hash": block.hash}, "extrinsics": bodies}

        return await self._run(read)

    async def blocks(self, *, finalized: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The head, or the finalized head, and then each block that follows, as `{"header": {...}}`.

        Raises:
            bittensor.RpcConnectionError: nobody makes blocks any more.
        """
        lag = self._chain.finality_lag if finalized else 0
        last: int | None = None
        alone = 0.0
        while True:
            head = max(0, await self.block_number() - lag)
            first = head if last is None else last + 1
            for number in range(first, head + 1):
                block = await self._run(lambda store, number=number: _block(store, number))  # type: ignore[misc]
                yield {"header": _header(block)}
            last, alone = (head, 0.0) if last is None or head > last else (last, alone + self._poll)
            if alone > _WITHOUT_PRODUCER:
                alone = 0.0
                self._ensure_producer()
            await asyncio.sleep(self._poll)

    async def events(self, block_hash: str | None = None) -> list[dict[str, Any]]:
        return await self._view(lambda view: view.store.events(view.block), block_hash)

    @property
    def _poll(self) -> float:
        """Seconds between looks at the file: soon after a block, and not more than fifty a second."""
        block = self._chain.block_time
        return min(max(0.1, block / 8), max(0.02, block / 4))

    def _ensure_producer(self) -> None:
        if not is_producing(self.path):
            raise RpcConnectionError(
                f"nobody makes blocks for the devnet at {self.path}; "
                f"start with `tensorage devnet up --path {self.path}`"
            )

    # State --------------------------------------------------------------------

    async def query(
        self,
        module: str,
        storage_function: str,
        params: list[Any] | None = None,
        block_hash: str | None = None,
    ) -> Any:
        """One storage value, or its default."""
        key = _key(params)
        return await self._view(lambda view: view.read(module, storage_function, *key), block_hash)

    async def map_has_entries(
        self, module: str, storage_function: str, params: list[Any], block_hash: str | None = None
    ) -> bool:
        return bool(await self.query_map(module, storage_function, params, block_hash))

    async def query_map(
        self,
        module: str,
        storage_function: str,
        params: list[Any] | None = None,
        block_hash: str | None = None,
    ) -> list[tuple[Any, Any]]:
        """All (key, value) of a map; a key is what `params` leaves open, a scalar if that is one part."""
        prefix = _key(params)

        def read(view: View) -> list[tuple[Any, Any]]:
            view.get(module, storage_function, *prefix)  # an unknown item is an error, not an empty map
            pairs = view.items(module, storage_function, *prefix)
            rests = [(key[len(prefix) :], value) for key, value in pairs]
            return [(rest[0] if len(rest) == 1 else rest, value) for rest, value in rests]

        return await self._view(read, block_hash)

    async def query_batch(
        self,
        module: str,
        storage_function: str,
        param_sets: list[list[Any]],
        block_hash: str | None = None,
    ) -> list[Any]:
        """One storage map for many keys, in their order, at one block."""
        keys = [_key(params) for params in param_sets]
        return await self._view(
            lambda view: [view.read(module, storage_function, *key) for key in keys], block_hash
        )

    async def runtime_call(
        self, api: str, method: str, params: list[Any] | dict[str, Any], block_hash: str | None = None
    ) -> Any:
        return await self._view(lambda view: apis.call(view, api, method, params), block_hash)

    async def constant(self, module: str, name: str) -> Any:
        return await self._view(lambda view: constants.constant(view, self._chain.block_time, module, name))

    async def decode_scale(self, type_string: str, data: Any) -> Any:
        """Only calls can be decoded: a devnet encodes nothing else.

        Raises:
            bittensor.ChainError: another type.
        """
        if type_string != "Call":
            raise SdkChainError(f"the devnet does not encode in SCALE and cannot decode {type_string!r}")
        raw = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data)
        return _decode_call(raw).to_decoded()

    # Calls and fees -----------------------------------------------------------

    async def compose(self, call: Any) -> Call:
        """A call ready to sign, from a builder of `bittensor.calls`.

        Raises:
            bittensor.ChainError: the devnet has no such call, or a parameter does not fit.
        """
        module, function, params = call
        return check(compose(module, function, params))

    async def estimate_fee(self, call: Call, keypair: Any) -> Balance:
        return Balance.from_rao(fee(len(call.data) + _SIGNATURE_BYTES))

    async def estimate_weight(self, call: Call, keypair: Any) -> dict[str, int]:
        return {"ref_time": 10**9, "proof_size": 0}

    async def account_next_index(self, address: str) -> int:
        """The next nonce of an account, counting what waits in the pool."""
        return await self._run(lambda store: _next_nonce(store, address))

    # Writes -------------------------------------------------------------------

    async def mev_next_key(self) -> bytes | None:
        value = await self.query("MevShield", "NextKey")
        return bytes.fromhex(value[2:]) if value else None

    async def _unsigned(self, call: Call, address: str, nonce: int | None, period: int | None) -> Unsigned:
        number = nonce if nonce is not None else await self.account_next_index(address)
        genesis = self._chain.genesis_hash
        if period is None:
            return Unsigned(call, address, number, None, genesis, genesis)
        head = await self._run(lambda store: _block(store, None))
        return Unsigned(call, address, number, Era(int(period), head.number), genesis, head.hash)

    async def sign_extrinsic(self, call: Call, keypair: Any, *, nonce: int, period: int) -> tuple[bytes, str]:
        """(bytes, 0x-hex hash) of a signed extrinsic, without submitting it."""
        return await self._sign(await self._unsigned(call, keypair.ss58_address, nonce, period), keypair)

    async def _sign(self, unsigned: Unsigned, keypair: Any) -> tuple[bytes, str]:
        signature = keypair.sign(unsigned.payload)
        if inspect.isawaitable(signature):
            signature = await signature
        data = unsigned.sign(bytes(signature), int(getattr(keypair, "crypto_type", 1)))
        return data, extrinsic_hash(data)

    async def find_extrinsic(self, extrinsic_hash: str, block_hash: str) -> ExtrinsicResult | None:
        """The outcome of an extrinsic in a block; None when the block does not hold it."""

        def read(store: Store) -> ExtrinsicResult | None:
            block = _block_by_hash(store, block_hash)
            receipt = store.receipt(extrinsic_hash, block.number)
            return None if receipt is None else _result(store, receipt)

        return await self._run(read)

    async def submit(
        self,
        call: Call,
        keypair: Any,
        *,
        nonce: int | None = None,
        period: int | None = DEFAULT_ERA_PERIOD,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        """Sign a call, send it, and wait for what becomes of it.

        A refusal by the pool and a failed call are results, not exceptions. Without a nonce, losing a race
        for one against another submission of the account is not seen by the caller.

        Raises:
            bittensor.RpcConnectionError: nobody makes blocks. The transaction has then been withdrawn.
        """
        for attempt in range(_RACES):
            unsigned = await self._unsigned(call, keypair.ss58_address, nonce, period)
            data, name = await self._sign(unsigned, keypair)
            refusal = await self._send(data, name)
            lost_race = refusal is not None and refusal.name in ("PriorityTooLow", "Stale")
            if not lost_race or nonce is not None or attempt == _RACES - 1:
                break
        if refusal is not None:
            return _refused(refusal)
        return await self._follow(name, inclusion=wait_for_inclusion, finalization=wait_for_finalization)

    async def _send(self, data: bytes, name: str) -> PoolError | None:
        """Put an extrinsic into the pool; why it does not belong there, if so."""
        self._ensure_producer()

        def send(store: Store) -> PoolError | None:
            try:
                extrinsic = read_extrinsic(data)
                with store.transaction():  # no block between the look at the nonce and the entry
                    validate(store, self._chain, View(store, store.head()), extrinsic, len(data))
                    added = store.add_to_pool(name, extrinsic.signer, extrinsic.nonce, data)
            except PoolError as error:
                return error
            return None if added else PoolError("PriorityTooLow")

        return await self._run(send)

    async def _follow(self, name: str, *, inclusion: bool, finalization: bool) -> ExtrinsicResult:
        """Wait until an extrinsic is in a block, and that block final if asked for."""
        if not inclusion and not finalization:
            return ExtrinsicResult(success=True, message="Submitted (not waiting).")
        lag = self._chain.finality_lag if finalization else 0

        def look(store: Store) -> ExtrinsicResult | None:
            receipt = store.receipt(name)
            if receipt is not None:
                return _result(store, receipt) if store.head() - lag >= receipt.block else None
            refusal = store.refusal(name)
            return None if refusal is None else _refused(PoolError(refusal))

        while True:
            result = await self._run(look)
            if result is not None:
                return result
            if not is_producing(self.path):
                await self._give_up(name)
            await asyncio.sleep(self._poll)

    async def _give_up(self, name: str) -> None:
        """Withdraw a transaction that nobody will include, unless a producer comes back in time."""
        for _ in range(int(_WITHOUT_PRODUCER / 0.1)):
            await asyncio.sleep(0.1)
            if is_producing(self.path):
                return
        if await self._run(lambda store: store.withdraw(name)):
            self._ensure_producer()

    async def prepare(
        self,
        call: Call,
        *,
        address: str,
        crypto_type: int = 1,
        nonce: int | None = None,
        period: int | None = DEFAULT_ERA_PERIOD,
        tip: int = 0,
        metadata_hash: bytes | None = None,
    ) -> UnsignedExtrinsic:
        """An extrinsic to be signed elsewhere. `tip` must be 0 and there is no metadata to prove."""
        if tip or metadata_hash is not None:
            raise SdkChainError("the devnet takes no tip and has no metadata to prove")
        unsigned = await self._unsigned(call, address, nonce, period)
        era = "00" if unsigned.era is None else {"period": unsigned.era.period, "current": unsigned.era.birth}
        return UnsignedExtrinsic(
            call_data=call.data,
            address=address,
            public_key=bytes(ss58_decode(address)),
            crypto_type=crypto_type,
            era=era,
            nonce=unsigned.nonce,
            tip=0,
            tip_asset_id=None,
            genesis_hash=unsigned.genesis_hash,
            era_block_hash=unsigned.birth_hash,
            spec_version=SPEC_VERSION,
            transaction_version=1,
            metadata_hash=None,
            payload=unsigned.payload,
            payload_json={"address": address, "method": f"0x{call.data.hex()}", "nonce": unsigned.nonce},
            included_in_extrinsic=unsigned.included,
            included_in_signed_data=unsigned.implied,
        )

    async def submit_signature(
        self,
        unsigned: UnsignedExtrinsic,
        signature: bytes | str,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        """Put a signature that was made elsewhere onto a prepared extrinsic and send it."""
        raw = bytes.fromhex(signature.removeprefix("0x")) if isinstance(signature, str) else bytes(signature)
        crypto_type = unsigned.crypto_type
        if len(raw) == 65:  # the scheme stands in front
            crypto_type, raw = raw[0], raw[1:]
        era = unsigned.era
        rebuilt = Unsigned(
            call=_decode_call(unsigned.call_data),
            signer=unsigned.address,
            nonce=unsigned.nonce,
            era=Era(int(era["period"]), int(era["current"])) if isinstance(era, dict) else None,
            genesis_hash=unsigned.genesis_hash,
            birth_hash=unsigned.era_block_hash,
        )
        data = rebuilt.sign(raw, crypto_type)
        return await self._submit_bytes(
            data, inclusion=wait_for_inclusion, finalization=wait_for_finalization
        )

    async def submit_signed(
        self,
        extrinsic: SignedExtrinsic,
        keypair: Any,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> ExtrinsicResult:
        """Send an extrinsic that is signed already."""
        return await self._submit_bytes(
            bytes(extrinsic.data), inclusion=wait_for_inclusion, finalization=wait_for_finalization
        )

    async def _submit_bytes(self, data: bytes, *, inclusion: bool, finalization: bool) -> ExtrinsicResult:
        name = extrinsic_hash(data)
        refusal = await self._send(data, name)
        if refusal is not None:
            return _refused(refusal)
        return await self._follow(name, inclusion=inclusion, finalization=finalization)

    # Multisig -----------------------------------------------------------------

    def multisig_account(self, signatories: list[str], threshold: int) -> NoReturn:
        """Always raises ChainError: see `submit_multisig`."""
        raise SdkChainError("the devnet has no multisig pallet")

    async def submit_multisig(
        self,
        call: Call,
        keypair: Any,
        multisig_account: Any,
        *,
        wait_for_inclusion: bool = True,
        wait_for_finalization: bool = True,
    ) -> NoReturn:
        """Always raises ChainError: a devnet has no multisig pallet."""
        raise SdkChainError("the devnet has no multisig pallet")


def _key(params: list[Any] | None) -> tuple[Any, ...]:
    """The parts of a storage key, as they are stored."""
    return tuple(f"0x{bytes(p).hex()}" if isinstance(p, (bytes, bytearray)) else p for p in params or ())


def _block(store: Store, number: int | None) -> Block:
    block = store.block(store.head() if number is None else int(number))
    if block is None:
        raise SdkChainError(f"block {number} is not there; the head is {store.head()}")
    return block


def _block_by_hash(store: Store, block_hash: str) -> Block:
    block = store.block_by_hash(block_hash)
    if block is None:
        raise SdkChainError(f"UnknownBlock: no block has the hash {block_hash}")
    return block


def _at(store: Store, block_hash: str | None) -> View:
    if block_hash is None:
        return View(store, store.head())
    block = _block_by_hash(store, block_hash)
    if block.number < int(store.meta("oldest") or 0):
        raise SdkChainError(f"State already discarded for block {block_hash}")
    return View(store, block.number)


def _header(block: Block) -> dict[str, Any]:
    return {
        "number": block.number,
        "parentHash": block.parent,
        "stateRoot": block.root,
        "extrinsicsRoot": block.root,
        "digest": {"logs": []},
    }


def _next_nonce(store: Store, address: str) -> int:
    nonce = int(View(store, store.head()).get("System", "Account", address)["nonce"])
    pooled = store.pooled_nonces(address)
    while nonce in pooled:
        nonce += 1
    return nonce


def _decode_call(data: bytes) -> Call:

    try:
        return check(decode(json.loads(data)))
    except ValueError as error:
        raise SdkChainError(f"no call of a devnet: {error}") from error


def _refused(error: PoolError) -> ExtrinsicResult:
    return ExtrinsicResult(success=False, message=str(error), error=error.to_sdk())


def _result(store: Store, receipt: Receipt) -> ExtrinsicResult:
    """A receipt as the SDK reports it."""
    block = _block(store, receipt.block)
    events = [event for event in store.events(receipt.block) if event["extrinsic_idx"] == receipt.position]
    place = f"{receipt.block}-{receipt.position:04d}"
    if receipt.error is None:
        return ExtrinsicResult(
            success=True,
            message="Success",
            block_hash=block.hash,
            extrinsic_id=place,
            fee=Balance.from_rao(receipt.fee),
            events=events,
        )
    text, name = receipt.error["docs"], receipt.error["name"]
    return ExtrinsicResult(
        success=False,
        message=text,
        block_hash=block.hash,
        extrinsic_id=place,
        fee=Balance.from_rao(receipt.fee),
        events=events,
        error=SdkChainError(text, name),
    )
