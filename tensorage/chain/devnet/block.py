"""Making a block: the schedule first, then the extrinsics that wait in the pool, in order of arrival.

Everything a block does is one transaction of the store. An extrinsic enters it if it can be decoded, its
signature is its signer's, its nonce is the next and the fee can be paid; then it uses up its nonce and its
fee whether its call succeeds or not. One that can never enter is refused, with the reason kept for who
submitted it. Opening a shielded extrinsic happens in the carrier's block, right after the carrier.

One rule is looser than on the real chain: an extrinsic lives at least ten seconds, even where its era's
blocks are over sooner, because devnet blocks can be shorter than a busy machine needs to sign and submit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from bittensor import ChainError as SdkChainError

from . import epoch
from .calls import encode
from .errors import DispatchError, PoolError
from .extrinsics import Era, Extrinsic, decode_extrinsic, extrinsic_hash
from .pallets import balances, registration
from .pallets.registry import check, dispatch, lookup
from .shield import ShieldKey
from .state import State, View
from .store import Block, Receipt, Store, encode_value

MAX_EXTRINSICS = 256
LEAST_LIFE_SECONDS = 10.0
_WEIGHT = {"ref_time": 10**9, "proof_size": 0}


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What stays the same for the life of a devnet. `block_time` is in seconds."""

    genesis_hash: str
    block_time: float
    finality_lag: int

    @classmethod
    def of(cls, store: Store) -> ChainFacts:
        """Read from the file; cheap enough to read anew."""
        genesis = store.block(0)
        assert genesis is not None, "a devnet is created together with its genesis block"
        return cls(genesis.hash, float(store.meta("block_time")), int(store.meta("finality_lag")))

    def alive(self, era: Era | None, block: int) -> bool:
        """Whether an extrinsic of that era may still enter `block`."""
        if era is None:
            return True
        least = math.ceil(LEAST_LIFE_SECONDS / self.block_time)
        return era.birth <= block < era.birth + max(era.period, least)


def fee_payer(view: View, extrinsic: Extrinsic) -> str:
    """Who pays: the signer, or, for calls that hotkeys sign, the coldkey that owns the hotkey."""
    owner = view["Owner", extrinsic.signer]
    return str(owner) if owner and lookup(extrinsic.call).pays == "owner" else extrinsic.signer


def validate(store: Store, facts: ChainFacts, view: View, extrinsic: Extrinsic, size: int) -> None:
    """What the pool asks of an extrinsic on top of the state in `view`.

    Raises:
        PoolError: it cannot enter a block.
    """
    if not facts.alive(extrinsic.era, view.block + 1):
        raise PoolError("AncientBirthBlock")
    birth = store.block(0 if extrinsic.era is None else extrinsic.era.birth)
    if birth is None or not extrinsic.verify(facts.genesis_hash, birth.hash):
        raise PoolError("BadProof")
    if extrinsic.nonce < int(view.get("System", "Account", extrinsic.signer)["nonce"]):
        raise PoolError("Stale")
    payer = fee_payer(view, extrinsic)
    if view.get("System", "Account", payer)["data"]["free"] < balances.fee(size) + extrinsic.tip:
        stranger = payer == extrinsic.signer and lookup(extrinsic.call).pays == "owner"
        raise PoolError("HotKeyNotRegisteredInNetwork" if stranger else "Payment")


def read_extrinsic(data: bytes) -> Extrinsic:
    """Decode an extrinsic and check its call.

    Raises:
        PoolError: it is none that this runtime knows.
    """
    try:
        extrinsic = decode_extrinsic(data)
        call = check(extrinsic.call)
    except (ValueError, SdkChainError) as error:
        raise PoolError("Malformed") from error
    if call.data != extrinsic.call.data:
        raise PoolError("Malformed")
    return Extrinsic(
        call,
        extrinsic.signer,
        extrinsic.nonce,
        extrinsic.era,
        extrinsic.tip,
        extrinsic.signature,
        extrinsic.crypto_type,
    )


class BlockMaker:
    """Makes the blocks of one devnet; there must be only one at a time on a file."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.facts = ChainFacts.of(store)
        self._shield = ShieldKey(bytes.fromhex(store.meta("shield_seed")))

    def make(self, *, time_ms: int, entropy: bytes) -> Block:
        """Make and store the next block.

        Args:
            time_ms: Unix time in milliseconds; kept above the parent's.
            entropy: what makes the block's hash unpredictable.
        """
        parent = self.store.block(self.store.head())
        assert parent is not None
        if self.blocks_to_epoch() == 0:
            epoch.load()  # before the transaction, which would hold up submissions for as long
        with self.store.transaction():
            time_ms = max(time_ms, parent.time_ms + 1)
            state = State(self.store, parent.number, time_ms=time_ms)
            receipts = [_timestamp(state.block, time_ms)]
            self._initialize(state)
            state.emit(
                "System", "ExtrinsicSuccess", {"dispatch_info": {"weight": _WEIGHT, "class": "Mandatory"}}
            )
            for pending in self.store.pool()[:MAX_EXTRINSICS]:
                try:
                    extrinsic = read_extrinsic(pending.data)
                    validate(self.store, self.facts, _Latest(state), extrinsic, len(pending.data))
                except PoolError as error:
                    self.store.take_from_pool(pending.id, pending.hash, error.name)
                    continue
                if extrinsic.nonce > balances.next_nonce(state, extrinsic.signer):
                    continue  # it waits for the ones before it
                self.store.take_from_pool(pending.id, pending.hash)
                receipts.append(self._apply(state, extrinsic, pending.hash, pending.data, len(receipts)))
                receipts.extend(self._open(state, extrinsic, receipts[-1]))
            block = _seal(parent, state, receipts, entropy)
            self.store.write_block(block, state.changes, receipts, state.events)
        return block

    def blocks_to_epoch(self) -> float:
        """How many blocks come before the one in which the next epoch of any subnet runs."""
        view = View(self.store, self.store.head())
        starts = [epoch.next_start(view, netuid) for netuid in _subnets(view)]
        left = [max(0, start - view.block - 1) for start in starts if start is not None]
        return min(left, default=math.inf)

    def _initialize(self, state: State) -> None:
        """What happens in a block before any extrinsic, with events that belong to none."""
        for netuid in _subnets(state):
            registration.update_price(state, netuid)
            if epoch.is_due(state, netuid):
                epoch.run(state, netuid)
        state.position = 0

    def _apply(self, state: State, extrinsic: Extrinsic, name: str, data: bytes, position: int) -> Receipt:
        """Charge and run an extrinsic that may enter."""
        state.position, state.nested = position, None
        fee = balances.fee(len(data)) + extrinsic.tip
        balances.use_nonce(state, extrinsic.signer)
        payer = fee_payer(state, extrinsic)
        paid = balances.withdraw(state, payer, fee)
        assert paid, "validated before"
        balances.issue(state, -fee)
        error: dict[str, str] | None = None
        try:
            dispatch(state, extrinsic.signer, extrinsic.call)
        except DispatchError as failure:
            error = failure.to_record()
            outcome, attributes = "ExtrinsicFailed", {"dispatch_error": failure.to_value()}
        else:
            outcome, attributes = "ExtrinsicSuccess", {}
            if state.nested is not None:
                error = state.nested.to_record()
        state.emit(
            "TransactionPayment",
            "TransactionFeePaid",
            {"who": payer, "actual_fee": fee, "tip": extrinsic.tip},
        )
        info = {"weight": _WEIGHT, "class": "Normal", "pays_fee": "Yes"}
        state.emit("System", outcome, {"dispatch_info": info, **attributes})
        return Receipt(name, state.block, position, extrinsic.to_decoded(), error, fee)

    def _open(self, state: State, carrier: Extrinsic, receipt: Receipt) -> list[Receipt]:
        """The receipt of what a shielded carrier held, if it did."""
        if (carrier.call.module, carrier.call.function) != ("MevShield", "submit_encrypted") or receipt.error:
            return []
        try:
            data = self._shield.open(bytes.fromhex(carrier.call.params["ciphertext"][2:]))
            inner = read_extrinsic(data)
            validate(self.store, self.facts, _Latest(state), inner, len(data))
        except (ValueError, PoolError) as error:
            state.emit("MevShield", "ExtrinsicDecodeFailed", {"id": receipt.hash, "reason": str(error)})
            return []
        if inner.nonce != balances.next_nonce(state, inner.signer):
            reason = str(PoolError("Future"))
            state.emit("MevShield", "ExtrinsicDecodeFailed", {"id": receipt.hash, "reason": reason})
            return []
        return [self._apply(state, inner, extrinsic_hash(data), data, receipt.position + 1)]


def _subnets(view: View) -> list[int]:
    return [key[0] for key, added in view.items("SubtensorModule", "NetworksAdded") if added and key[0]]


class _Latest(View):
    """What the pool's rules see while a block is made: the parent's height, the newest values."""

    def __init__(self, state: State) -> None:
        super().__init__(state.store, state.block - 1)
        self._state = state

    def get(self, pallet: str, item: str, *key: Any) -> Any:
        return self._state.get(pallet, item, *key)


def _timestamp(block: int, time_ms: int) -> Receipt:
    """The inherent that every block begins with."""
    call = {
        "call_module": "Timestamp",
        "call_function": "set",
        "call_args": [{"name": "now", "value": time_ms}],
    }
    digest = blake2b(encode([block, time_ms]), digest_size=32).hexdigest()
    return Receipt(f"0x{digest}", block, 0, {"call": call}, None, 0)


def _seal(parent: Block, state: State, receipts: list[Receipt], entropy: bytes) -> Block:
    """The block's header. Its root stands for what the block changed, its hash for all of it."""
    changed = sorted(
        (pallet, item, encode_value(list(key)), encode_value(value))
        for (pallet, item, key), value in state.changes.items()
    )
    root = blake2b(encode(changed), digest_size=32).hexdigest()
    contents = [parent.hash, state.block, state.time_ms, root, [receipt.hash for receipt in receipts]]
    digest = blake2b(encode(contents) + entropy, digest_size=32).hexdigest()
    return Block(state.block, f"0x{digest}", parent.hash, state.time_ms, f"0x{root}")
