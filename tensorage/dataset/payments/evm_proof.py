"""Whether an EVM chain itself shows that an EIP-3009 authorization paid, over JSON-RPC.

That an authorization's nonce is used proves nothing: its owner can cancel it, or use the nonce up for another
transfer. What proves payment is the log AuthorizationUsed(payer, nonce) of the token, followed at once,
in the same transaction, by its log Transfer(payer, payee) of the amount: the token writes the two
together, so the transfer belongs to no other authorization in that transaction. The transaction must have
succeeded and be `CONFIRMATIONS` blocks deep.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from .errors import TillAway

CONFIRMATIONS = 3
#: Blocks asked for at once, and how often at most; public nodes refuse more.
SPAN = 2000
SPANS = 60
TIMEOUT = 10.0
MAX_ANSWER = 1 << 20

#: Topics, each the Keccak-256 of the event's or the selector of the function's signature.
USED = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
CANCELED = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
AUTHORIZATION_STATE = "0xe94a0102"

State = Literal["unused", "paid", "void", "not_final"]


@dataclass(frozen=True, slots=True)
class Authorization:
    """What is looked for. Addresses are 0x and 40 hex digits; the times are unix seconds."""

    chain_id: int
    asset: str
    payer: str
    pay_to: str
    amount: int
    nonce: bytes
    valid_after: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What the chain shows.

    Attributes:
        state: unused; paid; void (cancelled, or used for something else); not_final.
        time: in unix seconds, of the newest block that is deep enough; of the payment's own block if it was
            paid. An authorization that is unused after its end never pays.
        transaction: 0x-hex, where there is one.
    """

    state: State
    time: int
    transaction: str = ""


class Chain:
    """A node of an EVM chain.

    Args:
        http: a client that follows no redirects.
    """

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._number = itertools.count(1)

    async def look(self, wanted: Authorization) -> Finding:
        """What became of an authorization.

        Raises:
            TillAway: the node does not answer, or not about this chain.
        """
        try:
            return await self._look(wanted)
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
            raise TillAway(f"the EVM node at {self._url} cannot be asked: {_line(error)}") from error

    async def _look(self, wanted: Authorization) -> Finding:
        if (told := int(await self._call("eth_chainId"), 16)) != wanted.chain_id:
            raise ValueError(f"it is of chain {told}, not {wanted.chain_id}")
        newest = await self._call("eth_getBlockByNumber", "latest", False)
        head = int(newest["number"], 16)
        deep = max(0, head - CONFIRMATIONS + 1)
        now = await self._time(deep)
        payer, nonce = _word(wanted.payer), f"0x{wanted.nonce.hex()}"
        if not await self._used(wanted, payer, nonce, head):
            if await self._used(wanted, payer, nonce, deep):
                raise ValueError("its newest blocks are being replaced")
            return Finding("unused", now)
        last = head
        for _ in range(SPANS):
            first = max(0, last - SPAN + 1)
            query = {
                "address": wanted.asset,
                "fromBlock": hex(first),
                "toBlock": hex(last),
                "topics": [[USED, CANCELED], payer, nonce],
            }
            for entry in await self._call("eth_getLogs", query):
                return await self._judge(wanted, entry, head, now)
            if first == 0 or await self._time(first) < wanted.valid_after:
                break
            last = first - 1
        raise ValueError("it says that the authorization is used, and not by which transaction")

    async def _judge(self, wanted: Authorization, entry: Any, head: int, now: int) -> Finding:
        name, number = str(entry["transactionHash"]), int(entry["blockNumber"], 16)
        if number + CONFIRMATIONS - 1 > head:
            return Finding("not_final", now, name)
        if entry["topics"][0].lower() != USED:
            return Finding("void", now, name)
        receipt = await self._call("eth_getTransactionReceipt", name)
        if int(receipt["status"], 16) != 1 or receipt["blockHash"] != entry["blockHash"]:
            return Finding("not_final", now, name)
        at = int(entry["logIndex"], 16)
        wanted_topics = [TRANSFER, _word(wanted.payer), _word(wanted.pay_to)]
        for other in receipt["logs"]:
            if (
                int(other["logIndex"], 16) == at + 1
                and other["address"].lower() == wanted.asset.lower()
                and [topic.lower() for topic in other["topics"]] == wanted_topics
                and int(other["data"], 16) == wanted.amount
            ):
                return Finding("paid", await self._time(number), name)
        return Finding("void", now, name)

    async def _used(self, wanted: Authorization, payer: str, nonce: str, block: int) -> bool:
        """Whether the token says, as of a block, that the nonce is used or cancelled."""
        question = {"to": wanted.asset, "data": AUTHORIZATION_STATE + payer[2:] + nonce[2:]}
        return int(await self._call("eth_call", question, hex(block)), 16) != 0

    async def _time(self, block: int) -> int:
        """A block's time, in unix seconds."""
        return int((await self._call("eth_getBlockByNumber", hex(block), False))["timestamp"], 16)

    async def _call(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._number), "method": method, "params": params}
        async with self._http.stream("POST", self._url, json=body, timeout=TIMEOUT) as response:
            response.raise_for_status()
            raw = bytearray()
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > MAX_ANSWER:
                    raise ValueError(f"it answers {method} with more than {MAX_ANSWER} bytes")
        answer = httpx.Response(200, content=bytes(raw)).json()
        if "result" not in answer or answer["result"] is None:
            raise ValueError(f"{method}: {str(answer.get('error'))[:120]}")
        return answer["result"]


def _word(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
