"""Adversaries that live on knowing, or choosing, what they will be asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from contest import contest, is_in_quarantine, outcome
from validator_net import VALIDATOR, TestMiner, subnet, with_parameters

from tensorage import seal
from tensorage.chain.types import Endpoint
from tensorage.challenge import Challenge
from tensorage.commitment import Commitment
from tensorage.errors import RequestError
from tensorage.receipts import Verdict
from tensorage.transport.messages import ChallengeMessage
from tensorage.validator import standing
from tensorage.validator.round import unforeseen

CLAIM = range(20)
HOLD_SECONDS = 5.0


class ForeseesAudits(TestMiner):
    """Keeps 1 sector of 20; the others are zeros. What an audit draws follows from the block and the number
    of the round, both of which it knows when it is challenged; so it refuses the challenge, which costs one
    miss, whenever a pass would have zeros audited, and hopes for another draw."""

    def __init__(self, name: str) -> None:
        super().__init__(name, [0])
        self.disk |= dict.fromkeys(CLAIM[1:], bytes(seal.DEV.size))
        self.audited: int | None = None

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        if self.audited is None or message.round - self.audited >= 12:
            seed = standing.draw_seed(
                commitment.hash, VALIDATOR.public_key, message.block_hash, message.round
            )
            if standing.drawn(list(CLAIM), seed) != 0:
                raise RequestError("unready", "not now")
            self.audited = message.round
        return await super().honest(commitment, message)


async def test_who_foresees_an_audit_and_refuses_does_not_get_another_draw(tmp_path):
    adversary, honest = ForeseesAudits("Foresees"), TestMiner("Honest", CLAIM)
    adversary.commit(90)
    honest.commit(90)
    async with subnet(tmp_path, adversary, honest) as net:
        ended = await contest(net, adversary, honest, rounds=30)
        assert ended.share == 0
        assert net.of(adversary).standing.credited_bytes == 0
        drawn = net.of(adversary).draw
        # Either it still refuses, and the sector that was drawn first waits; or it gave in, and was caught.
        assert is_in_quarantine(net, adversary) or (drawn is not None and drawn.round <= 3)


@contextmanager
def tiny_chunks() -> Iterator[Endpoint]:
    """A server whose every answer is 130,000 chunks of one byte."""
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nX\r\n" * 130_000
    closing = threading.Event()

    def one(client: socket.socket) -> None:
        with client:
            try:
                client.recv(65536)
                client.sendall(answer)
            except OSError:
                return  # it hung up on us, as it should
            closing.wait(HOLD_SECONDS)

    def serve(server: socket.socket) -> None:
        while not closing.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield Endpoint("127.0.0.1", server.getsockname()[1])
        closing.set()
        server.shutdown(socket.SHUT_RDWR)


async def test_who_keeps_the_validator_busy_with_crumbs_is_wrong_and_not_excused(tmp_path):
    """It deleted everything, and hopes that a validator busy with reading takes the blame for the delay."""
    adversary, honest = TestMiner("Crumbs"), TestMiner("Honest")
    adversary.commit(90)
    honest.commit(90)
    with tiny_chunks() as server:
        async with subnet(tmp_path, adversary, honest, parameters=with_parameters(deadline=4.0)) as net:
            for _ in range(3):
                await net.round()
            adversary.endpoint = server
            await net.round(audit=False)
            ended = await outcome(net, adversary, honest)
            assert ended.last.verdict is Verdict.WRONG
            assert "pieces" in ended.last.reason
            assert ended.share == 0


class Foretells(TestMiner):
    """Knows the finalized block and the number of the round as soon as its commitment is looked at, seconds
    before the deadline runs, and would use them to seal the sectors of the walk again."""

    foretold: list[bytes]

    async def honest(self, commitment: Commitment, message: ChallengeMessage) -> bytes:
        for number in range(len(self.asked) + 3):
            guess = Challenge(
                message.block_hash,
                commitment.netuid,
                VALIDATOR.public_key,
                self.key.public_key,
                commitment.hash,
                number,
            )
            self.foretold.append(guess.nonce)
        return await super().honest(commitment, message)


async def test_a_nonce_is_not_known_before_it_is_asked(tmp_path):
    adversary, other = Foretells("Foretells"), TestMiner("Other")
    adversary.foretold = []
    adversary.commit(90)
    other.commit(90)
    async with subnet(tmp_path, adversary, other, salt=unforeseen) as net:
        for _ in range(6):
            await net.round()
        asked = [
            Challenge(
                message.block_hash,
                7,
                VALIDATOR.public_key,
                adversary.key.public_key,
                message.commitment,
                message.round,
            ).nonce
            for message in adversary.asked
        ]
        assert len(set(asked)) == 5
        assert not set(asked) & set(adversary.foretold)
        assert not {message.round for message in adversary.asked} & {message.round for message in other.asked}
        ended = await outcome(net, adversary, other)  # and every receipt can still be repeated offline
        assert ended.verdicts.count(Verdict.PASSED) >= 5
