"""A subnet for the validator tests: a chain that is driven by hand, and miners with real sockets and keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from transport_net import neuron

from tensorage import commitment as commitments
from tensorage import merkle, seal
from tensorage.chain.auth import verify
from tensorage.chain.types import BlockRef, Endpoint, Epoch, Metagraph, Neuron, WeightsOutcome
from tensorage.chain.wallet import Hotkey
from tensorage.challenge import Challenge, Opening, answer
from tensorage.commitment import Commitment, SignedCommitment
from tensorage.encoding import sha256, u64
from tensorage.errors import RequestError
from tensorage.transport.axon import Access, Axon, Call, Reply
from tensorage.transport.dendrite import Dendrite
from tensorage.transport.limits import Limits, Rate
from tensorage.transport.messages import ChallengeMessage, CommitmentMessage, SectorsPage
from tensorage.transport.nonces import SqliteNonceStore
from tensorage.validator.audit import Auditor
from tensorage.validator.book import Book
from tensorage.validator.exchange import Exchange
from tensorage.validator.lag import LagMeter
from tensorage.validator.ledger import LedgerIdentity, open_ledger
from tensorage.validator.parameters import Parameters
from tensorage.validator.pool import SealPool
from tensorage.validator.round import Report, Rounds
from tensorage.validator.standing import Miner

GENESIS = sha256(b"genesis of the validator tests")
NETUID = 7
TEMPO = 20
VALIDATOR = Hotkey.from_uri("//Validator")
PARAMETERS = Parameters(
    hops=8, deadline=1.0, audit_seconds=60.0, profiles=frozenset({0, 1}), private=True, concurrency=16
)

Answer = Callable[["TestMiner", Commitment, ChallengeMessage], Awaitable[bytes]]


class HandChain:
    """A chain whose blocks come when the test says so. Every block is final at once."""

    block_time = 1.0

    def __init__(self) -> None:
        self.height = 100
        self.miners: list[TestMiner] = []
        self.weights: list[dict[int, float]] = []
        self.permit = True
        self.last_epoch = 100
        self.stakes: dict[Hotkey, float] = {VALIDATOR: 1000.0}  # of the validators
        self.unix = 1_800_000_000

    def advance(self, blocks: int = 5) -> None:
        self.height += blocks

    def block(self, number: int) -> BlockRef:
        return BlockRef(number, sha256(b"block" + u64(number)))

    async def head(self) -> BlockRef:
        return self.block(self.height)

    async def finalized(self) -> BlockRef:
        return self.block(self.height)

    async def metagraph(self, *, max_age: float) -> Metagraph:
        return self.metagraph_now()

    def metagraph_now(self) -> Metagraph:
        ours = neuron(0, VALIDATOR, None, permit=self.permit)
        others = [miner.neuron(uid) for uid, miner in enumerate(self.miners, start=1)]
        if self.permit:
            ours = replace(ours, total_stake=self.stakes[VALIDATOR])
        for uid, (key, stake) in enumerate(self.stakes.items(), start=100):
            if key is not VALIDATOR:
                others.append(replace(neuron(uid, key, None, permit=True), total_stake=stake))
        return Metagraph(NETUID, self.block(self.height), TEMPO, VALIDATOR.ss58, (ours, *others))

    async def epoch(self) -> Epoch:
        return Epoch(self.height, TEMPO, self.last_epoch, self.last_epoch + TEMPO)

    async def set_weights(self, weights: Mapping[int, float], version_key: int) -> WeightsOutcome:
        self.weights.append(dict(weights))
        return WeightsOutcome("set", "ok", block=self.height)


@lru_cache(maxsize=256)
def sealed(miner: bytes, index: int) -> bytes:
    """The bytes of a profile 0 sector."""
    identity = seal.sector_id(GENESIS, NETUID, miner, seal.DEV, index)
    return bytes(seal.Sealer(seal.DEV).seal(identity))


@lru_cache(maxsize=256)
def leaves_of(data: bytes) -> list[bytes]:
    return merkle.leaf_hashes(data, seal.LEAF_SIZE)


class TestMiner:
    """A miner in memory. Honest, unless a test changes what it has or how it answers.

    Attributes:
        disk: what is on its disk: sector index to bytes.
        listed: what it lists for the newest commitment.
        intercept: answers challenges in place of `honest`.
        asked: the challenges that came.
        roots_served: sector indices whose chunk roots were asked for.
        refuse_audits: whether it refuses to give chunk roots.
    """

    __test__ = False

    def __init__(self, name: str, indices: range | list[int] = range(2)) -> None:
        self.key = Hotkey.from_uri(f"//Miner/{name}")
        self.disk = {index: sealed(self.key.public_key, index) for index in indices}
        self.committed: dict[int, bytes] = {}
        self.chain: list[SignedCommitment] = []
        self.listed: list[tuple[int, bytes]] = []
        self.intercept: Answer | None = None
        self.asked: list[ChallengeMessage] = []
        self.roots_served: list[int] = []
        self.refuse_audits = False
        self.registered_at = 1
        self.endpoint: Endpoint | None = None
        self.show: SignedCommitment | None = None

    def neuron(self, uid: int) -> Neuron:
        return neuron(uid, self.key, self.endpoint, registered_at=self.registered_at)

    def entries(self) -> list[tuple[int, bytes]]:
        return [(index, merkle.root(leaves_of(data))) for index, data in sorted(self.disk.items())]

    def commit(self, block: int) -> SignedCommitment:
        """Commit to what is on the disk."""
        entries = self.entries()
        if self.chain:
            new = commitments.next_commitment(self.chain[-1].commitment, entries, block)
        else:
            new = commitments.first_commitment(GENESIS, NETUID, self.key.public_key, 0, entries, block)
        return self.publish(new, entries)

    def publish(self, new: Commitment, listed: list[tuple[int, bytes]]) -> SignedCommitment:
        """Sign any commitment and show it as the newest."""
        signed = SignedCommitment(new, self.key.sign(new.hash))
        self.chain.append(signed)
        self.listed = listed
        return signed

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        """The right answer from what is on the disk; refused when a sector is not there."""
        entries = self.listings[commitment.hash]
        hashes = [commitments.capacity_leaf(index, root) for index, root in entries]

        def read(entry: int, leaf: int) -> Opening:
            index, root = entries[entry]
            data = self.kept(index, root)
            if data is None:
                raise RequestError("unknown", f"sector {index} is not here")
            at = leaf * seal.LEAF_SIZE
            return Opening(
                index,
                data[at : at + seal.LEAF_SIZE],
                merkle.path(leaves_of(data), leaf),
                merkle.path(hashes, entry),
            )

        challenge = Challenge(
            message.block_hash,
            NETUID,
            VALIDATOR.public_key,
            self.key.public_key,
            commitment.hash,
            message.round,
        )
        return answer(challenge.nonce, message.hops, commitment, read, self.key.sign)

    def kept(self, index: int, root: bytes) -> bytes | None:
        """What it has of the sector that was committed with this root, None for nothing."""
        return self.disk.get(index)

    @property
    def listings(self) -> dict[bytes, list[tuple[int, bytes]]]:
        known = self.__dict__.setdefault("_listings", {})
        if self.chain:
            known[self.chain[-1].commitment.hash] = self.listed
        return known

    async def serve(self, chain: HandChain, directory: Path, stack: AsyncExitStack) -> None:
        store = SqliteNonceStore(directory / f"{self.key.ss58}.nonces.sqlite")
        stack.callback(store.close)
        axon = Axon(
            self.key.ss58,
            role="miner",
            host="127.0.0.1",
            port=0,
            metagraph=chain.metagraph_now,
            nonces=store,
            limits=Limits(per_address=Rate(1000, 1000), per_hotkey=Rate(1000, 1000)),
        )
        axon.route("GET", "/v1/commitment", self._commitment, access=Access.VALIDATOR)
        axon.route("GET", "/v1/sectors", self._sectors, access=Access.VALIDATOR)
        axon.route("GET", "/v1/sectors/{index}/chunk-roots", self._chunk_roots, access=Access.VALIDATOR)
        axon.route("POST", "/v1/challenge", self._challenge, access=Access.VALIDATOR)
        self.attach(axon)
        await axon.start()
        stack.push_async_callback(axon.stop)
        self.endpoint = Endpoint("127.0.0.1", axon.port)

    def attach(self, axon: Axon) -> None:
        """Serve more than that."""

    async def _commitment(self, call: Call) -> Reply:
        if not self.chain:
            raise RequestError("unknown", "nothing is committed yet")
        if "seq" in call.query:
            seq = call.number("seq")
            for signed in self.chain:
                if signed.commitment.seq == seq:
                    return CommitmentMessage.of(signed)
            raise RequestError("unknown", f"there is no commitment {seq}")
        return CommitmentMessage.of(self.show or self.chain[-1])

    async def _sectors(self, call: Call) -> Reply:
        start = call.number("from", 0)
        page = self.listed[start : start + call.number("limit", 4096)]
        # Not checked on the way out, so that a cheat can say what it likes.
        return SectorsPage.model_construct(indices=[i for i, _ in page], roots=[root for _, root in page])

    async def _chunk_roots(self, call: Call) -> Reply:
        index = call.number("index")
        self.roots_served.append(index)
        if self.refuse_audits or index not in self.disk:
            raise RequestError("unknown", f"sector {index} is not here")
        return merkle.root(leaves_of(self.disk[index]))

    async def _challenge(self, call: Call) -> Reply:
        message = call.json(ChallengeMessage)
        self.asked.append(message)
        for signed in self.chain[-2:]:
            if signed.commitment.hash == message.commitment:
                if self.intercept is not None:
                    return await self.intercept(self, signed.commitment, message)
                return await self.honest(signed.commitment, message)
        raise RequestError("unknown", "no such commitment")


class Subnet:
    """One validator, put together as the service does it, and its miners."""

    def __init__(
        self,
        chain: HandChain,
        book: Book,
        exchange: Exchange,
        parameters: Parameters,
        salt: Callable[[int], int],
    ) -> None:
        self.chain = chain
        self.book = book
        self.rounds = Rounds(chain, exchange, book, parameters, salt=salt, unix=lambda: chain.unix)
        self.executor = ThreadPoolExecutor(1)
        self.auditor = Auditor(exchange, book, parameters, SealPool(1, self.executor))

    async def round(self, *, audit: bool = True, blocks: int = 5) -> Report:
        """New blocks, then a round with its audits."""
        self.chain.advance(blocks)
        report = await self.rounds.run()
        if audit:
            await self.auditor.run(report.peers, report.passed, report.block, report.number)
        return report

    def of(self, miner: TestMiner) -> Miner:
        return self.book.miners[miner.key.ss58]


@asynccontextmanager
async def subnet(
    tmp_path: Path,
    *miners: TestMiner,
    parameters: Parameters = PARAMETERS,
    salt: Callable[[int], int] = lambda now: now,
) -> AsyncIterator[Subnet]:
    """Miners that serve, and a validator over a ledger in `tmp_path`.

    Its challenges have the number of the round for their `round`, unless another `salt` is given: a test can
    then tell a walk in advance, which a miner cannot.
    """
    async with AsyncExitStack() as stack:
        chain = HandChain()
        chain.miners = list(miners)
        for miner in miners:
            await miner.serve(chain, tmp_path, stack)
        identity = LedgerIdentity(GENESIS, NETUID, VALIDATOR.public_key)
        book = Book(open_ledger(tmp_path / "validator.sqlite", identity), VALIDATOR.sign)
        await book.load()
        stack.push_async_callback(book.close)
        dendrite = await stack.enter_async_context(Dendrite(VALIDATOR, allow_private=True))
        lag = LagMeter()
        measuring = asyncio.create_task(lag.run())
        stack.callback(measuring.cancel)
        worker = ThreadPoolExecutor(1)
        stack.callback(worker.shutdown, wait=False)
        exchange = Exchange(dendrite, identity, parameters, verify, lag, worker)
        net = Subnet(chain, book, exchange, parameters, salt)
        stack.callback(net.executor.shutdown, wait=False)
        yield net


def with_parameters(**changes: object) -> Parameters:
    return replace(PARAMETERS, **changes)  # type: ignore[arg-type]
