"""An x402 facilitator on loopback with a small EVM chain behind it, and faults by switches.

The protocol and its checks are the x402 package's own: its facilitator, over HTTP. What stands in for a
chain is `Chain`: one EIP-3009 token that keeps balances and used nonces and verifies EIP-712 signatures as
the real contract does, blocks, logs and receipts, and the JSON-RPC of a node over them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import uvicorn
from eth_keys import keys
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from x402 import x402FacilitatorSync
from x402.mechanisms.evm.eip712 import hash_eip3009_authorization
from x402.mechanisms.evm.exact import ExactEvmFacilitatorScheme
from x402.mechanisms.evm.types import ExactEIP3009Authorization, TransactionReceipt
from x402.schemas import PaymentPayload, PaymentRequirements

from tensorage.dataset.payments.evm_proof import AUTHORIZATION_STATE, CANCELED, TRANSFER, USED

NETWORK = "eip155:84532"
CHAIN_ID = 84532
TOKEN = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
NAME, VERSION = "USDC", "2"  # of Base Sepolia; elsewhere it is "USD Coin"


class Reverted(Exception):
    """What a contract says when it refuses."""


def data(value: int) -> str:
    return f"0x{value:064x}"


def word(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


@dataclass
class Chain:
    """The token, and the blocks that its calls are in: one transaction a block, then some empty ones."""

    balances: dict[str, int] = field(default_factory=dict)
    used: set[tuple[str, str]] = field(default_factory=set)
    blocks: list[list[dict[str, Any]]] = field(default_factory=lambda: [[] for _ in range(10)])
    ahead: int = 0  # seconds that its clock is ahead of ours
    depth: int = 5  # blocks made after each transaction
    lock: Any = field(default_factory=threading.RLock)

    # As the facilitator's signer

    def get_addresses(self) -> list[str]:
        return ["0x" + "f" * 40]

    def get_chain_id(self) -> int:
        return CHAIN_ID

    def get_code(self, address: str) -> bytes:
        return b"\x60" if address.lower() == TOKEN.lower() else b""

    def get_balance(self, address: str, token_address: str) -> int:
        return self.balances.get(address.lower(), 0)

    def read_contract(self, address: str, abi: Any, function: str, *args: Any) -> Any:
        if function == "transferWithAuthorization":
            with self.lock:
                self._check(*args)
            return None
        raise Reverted(f"execution reverted: {function} is not there")

    def write_contract(
        self, address: str, abi: Any, function: str, *args: Any, data_suffix: Any = None
    ) -> str:
        assert function == "transferWithAuthorization" and address.lower() == TOKEN.lower()
        return self.transfer(*args)

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        number = next(
            n for n, logs in enumerate(self.blocks) if logs and logs[0]["transactionHash"] == tx_hash
        )
        return TransactionReceipt(1, number, tx_hash, self.blocks[number])

    # As the token

    def transfer(self, *args: Any) -> str:
        """A transaction that carries out an authorization; its hash."""
        with self.lock:
            self._check(*args)
            payer, payee, value, _, _, nonce = args[:6]
            self.used.add((payer.lower(), bytes(nonce).hex()))
            self.balances[payer.lower()] -= value
            self.balances[payee.lower()] = self.balances.get(payee.lower(), 0) + value
            topics = [USED, word(payer), f"0x{bytes(nonce).hex()}"]
            return self.mine([(topics, "0x"), ([TRANSFER, word(payer), word(payee)], data(value))])

    def carry_out(self, payload: dict[str, Any]) -> str:
        """A transaction that carries out the authorization of a payment; its hash."""
        fields, signature = payload["authorization"], bytes.fromhex(payload["signature"][2:])
        numbers = [int(fields[name]) for name in ("value", "validAfter", "validBefore")]
        return self.transfer(
            fields["from"],
            fields["to"],
            *numbers,
            bytes.fromhex(fields["nonce"][2:]),
            signature[64],
            signature[:32],
            signature[32:64],
        )

    def cancel(self, payer: str, nonce: bytes) -> str:
        """A transaction in which the payer withdraws an authorization."""
        with self.lock:
            self.used.add((payer.lower(), nonce.hex()))
            return self.mine([([CANCELED, word(payer), f"0x{nonce.hex()}"], "0x")])

    def mine(self, logs: list[tuple[list[str], str]]) -> str:
        """A block with one transaction that leaves these logs of the token."""
        number = len(self.blocks)
        name = "0x" + sha256(f"tx {number} {logs}".encode()).hexdigest()
        self.blocks.append(
            [
                {
                    "address": TOKEN,
                    "topics": topics,
                    "data": data,
                    "logIndex": hex(index),
                    "blockNumber": hex(number),
                    "blockHash": block_hash(number),
                    "transactionHash": name,
                }
                for index, (topics, data) in enumerate(logs)
            ]
        )
        self.blocks.extend([] for _ in range(self.depth))
        return name

    def _check(self, *args: Any) -> None:
        payer, payee, value, after, before, nonce, v, r, s = args
        authorization = ExactEIP3009Authorization(
            payer, payee, str(value), str(after), str(before), f"0x{bytes(nonce).hex()}"
        )
        digest = hash_eip3009_authorization(authorization, CHAIN_ID, TOKEN, NAME, VERSION)
        now = int(time.time()) + self.ahead
        if v not in (27, 28):
            raise Reverted("execution reverted: ECRecover: invalid signature 'v' value")
        signed = keys.Signature(bytes(r) + bytes(s) + bytes([v - 27]))
        if signed.recover_public_key_from_msg_hash(digest).to_address() != payer.lower():
            raise Reverted("execution reverted: FiatTokenV2: invalid signature")
        if not after < now:
            raise Reverted("execution reverted: FiatTokenV2: authorization is not yet valid")
        if not now < before:
            raise Reverted("execution reverted: FiatTokenV2: authorization is expired")
        if (payer.lower(), bytes(nonce).hex()) in self.used:
            raise Reverted("execution reverted: FiatTokenV2: authorization is used or canceled")
        if self.balances.get(payer.lower(), 0) < value:
            raise Reverted("execution reverted: ERC20: transfer amount exceeds balance")

    # As a node

    def rpc(self, method: str, params: list[Any]) -> Any:
        with self.lock:
            head = len(self.blocks) - 1
            if method == "eth_chainId":
                return hex(CHAIN_ID)
            if method == "eth_getBlockByNumber":
                number = head if params[0] == "latest" else int(params[0], 16)
                age = 2 * (head - number)
                stamp = int(time.time()) + self.ahead - age
                return {"number": hex(number), "timestamp": hex(stamp), "hash": block_hash(number)}
            if method == "eth_call":
                asked = params[0]["data"]
                assert asked.startswith(AUTHORIZATION_STATE) and params[0]["to"] == TOKEN
                wanted = [f"0x{asked[10:74]}", f"0x{asked[74:]}"]
                until = int(params[1], 16) + 1
                return hex(
                    int(any(log["topics"][1:] == wanted for logs in self.blocks[:until] for log in logs))
                )
            if method == "eth_getLogs":
                query = params[0]
                wanted, payer, nonce = query["topics"]
                return [
                    entry
                    for logs in self.blocks[int(query["fromBlock"], 16) : int(query["toBlock"], 16) + 1]
                    for entry in logs
                    if entry["topics"][0] in wanted and entry["topics"][1:] == [payer, nonce]
                ]
            assert method == "eth_getTransactionReceipt"
            logs = next(logs for logs in self.blocks if logs and logs[0]["transactionHash"] == params[0])
            return {"status": "0x1", "blockHash": logs[0]["blockHash"], "logs": logs}


def block_hash(number: int) -> str:
    return "0x" + sha256(f"block {number}".encode()).hexdigest()


@dataclass
class Facilitator:
    """The server, in a thread of its own. A context manager.

    verify_down, settle_down, rpc_down: answer 500 and do nothing.
    settle_rejects: refuse with this reason and do nothing.
    settle_doubts: settle, and then say that it failed, naming the transaction.
    lose: settle, and then break the connection off without an answer.
    hold: seconds before settling, and after it before answering.
    asked: every (path, body).
    """

    chain: Chain = field(default_factory=Chain)
    verify_down: bool = False
    settle_down: bool = False
    rpc_down: bool = False
    settle_rejects: str = ""
    settle_doubts: bool = False
    lose: bool = False
    hold: tuple[float, float] = (0.0, 0.0)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __enter__(self) -> Facilitator:
        self._x402 = x402FacilitatorSync()
        self._x402.register([NETWORK], ExactEvmFacilitatorScheme(self.chain))
        config = uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="critical", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self._server.started:
            assert time.monotonic() < deadline, "the facilitator did not start"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.rpc_url = f"{self.url}/rpc"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(30)

    def _app(self) -> FastAPI:
        app = FastAPI()
        down = JSONResponse({"error": "down"}, 500)

        @app.get("/supported")
        def supported() -> Any:
            return self._x402.get_supported().model_dump(by_alias=True)

        @app.post("/verify")
        def verify(body: dict[str, Any]) -> Any:
            self.asked.append(("verify", body))
            if self.verify_down:
                return down
            payload, requirement = read(body)
            return self._x402.verify(payload, requirement).model_dump(by_alias=True, exclude_none=True)

        @app.post("/settle")
        def settle(body: dict[str, Any]) -> Any:
            self.asked.append(("settle", body))
            payload, requirement = read(body)
            if self.settle_down:
                return down
            if self.settle_rejects:
                refusal = {"success": False, "errorReason": self.settle_rejects}
                return {**refusal, "transaction": "", "network": NETWORK}
            time.sleep(self.hold[0])
            answer = self._x402.settle(payload, requirement)
            time.sleep(self.hold[1])
            if self.settle_doubts:
                reason = {"success": False, "errorReason": "invalid_exact_evm_transfer_event_mismatch"}
                return {**reason, "transaction": answer.transaction, "network": NETWORK}
            if self.lose:
                return JSONResponse({}, 502)
            return answer.model_dump(by_alias=True, exclude_none=True)

        @app.post("/rpc")
        async def rpc(request: Request) -> Any:
            if self.rpc_down:
                return down
            call = await request.json()
            result = self.chain.rpc(call["method"], list(call["params"]))
            return {"jsonrpc": "2.0", "id": call["id"], "result": result}

        return app


def read(body: dict[str, Any]) -> tuple[PaymentPayload, PaymentRequirements]:
    """What a resource server sends, as the protocol has it."""
    assert body["x402Version"] == 2 and set(body) == {"x402Version", "paymentPayload", "paymentRequirements"}
    payload = PaymentPayload.model_validate(body["paymentPayload"])
    return payload, PaymentRequirements.model_validate(body["paymentRequirements"])


@contextlib.contextmanager
def facilitator(*rich: str, **switches: Any) -> Any:
    """A facilitator on whose chain these addresses have a million of the token."""
    chain = Chain(balances={address.lower(): 10**12 for address in rich})
    with Facilitator(chain, **switches) as server:
        yield server
