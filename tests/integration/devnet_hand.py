"""A devnet whose blocks are made by hand, one a call: what a transaction does, without waiting."""

import itertools

from bittensor import calls
from bittensor.keyfiles import Keypair

from tensorage.chain.devnet.block import BlockMaker, ChainFacts, read_extrinsic, validate
from tensorage.chain.devnet.calls import compose
from tensorage.chain.devnet.extrinsics import Era, Unsigned, extrinsic_hash
from tensorage.chain.devnet.genesis import Genesis, create
from tensorage.chain.devnet.pallets.registry import check
from tensorage.chain.devnet.state import View

RAO = 10**9
SUBTENSOR = calls.SubtensorModule
ADMIN = calls.AdminUtils


def key(uri):
    return Keypair.create_from_uri(uri)


def address(uri):
    return key(uri).ss58_address


class Hand:
    """The chain, its clock (one second a block) and shorthands for what tests do all the time."""

    def __init__(self, path, **genesis):
        fast = {"block_time": 0.1, "tempo": 10, "seed": "hand", "weights_rate_limit": 0, "burn": 1.0}
        self.store = create(path, Genesis(**{**fast, **genesis}))
        self.maker = BlockMaker(self.store)
        self.facts = ChainFacts.of(self.store)
        self._clock = itertools.count(2_000_000_000_000, 1000)

    def block(self, count=1):
        for _ in range(count):
            number = self.store.head() + 1
            self.maker.make(time_ms=next(self._clock), entropy=number.to_bytes(32, "big"))
        return self.store.head()

    def until(self, number):
        self.block(number - self.store.head())

    @property
    def view(self):
        return View(self.store, self.store.head())

    def __getitem__(self, where):
        return self.view[where]

    def free(self, who):
        return self.view.get("System", "Account", who)["data"]["free"]

    def nonce(self, uri):
        pooled = self.store.pooled_nonces(address(uri))
        nonce = self.view.get("System", "Account", address(uri))["nonce"]
        return next(number for number in itertools.count(nonce) if number not in pooled)

    def sign(self, uri, call, *, nonce=None, era="now", by=None):
        """The bytes of an extrinsic of `uri`, signed by it or, falsely, by the key `by`."""
        birth = self.store.block(self.store.head())
        genesis = self.store.block(0)
        mortal = Era(64, birth.number) if era == "now" else era
        first = birth if mortal else genesis
        unsigned = Unsigned(
            check(compose(*call)),
            address(uri),
            self.nonce(uri) if nonce is None else nonce,
            mortal,
            genesis.hash,
            first.hash,
        )
        return unsigned.sign(key(by or uri).sign(unsigned.payload), 1)

    def send(self, uri, call, **options):
        """Put an extrinsic into the pool as a client does; its hash."""
        data = self.sign(uri, call, **options)
        extrinsic = read_extrinsic(data)
        validate(self.store, self.facts, self.view, extrinsic, len(data))
        assert self.store.add_to_pool(extrinsic_hash(data), extrinsic.signer, extrinsic.nonce, data)
        return extrinsic_hash(data)

    def do(self, uri, call, **options):
        """Send an extrinsic and make its block; the name of its error, or None."""
        name = self.send(uri, call, **options)
        self.block()
        receipt = self.store.receipt(name)
        assert receipt is not None, self.store.refusal(name)
        return receipt.error and receipt.error["name"]

    def sudo(self, call):
        inner = check(compose(*call))
        assert self.do("//Alice", calls.Sudo.sudo(call=inner)) is None

    def fund(self, uri, tao):
        assert self.do("//Alice", calls.Balances.transfer_keep_alive(address(uri), int(tao * RAO))) is None

    def register(self, *uris, stake=0.0, netuid=1):
        """Register hotkeys URI//hot under coldkeys URI, and stake to them; the uids."""
        for uri in uris:
            self.fund(uri, 100 + stake)
            assert self.do(uri, SUBTENSOR.burned_register(netuid, address(f"{uri}//hot"))) is None
            if stake:
                call = SUBTENSOR.add_stake(address(f"{uri}//hot"), netuid, int(stake * RAO))
                assert self.do(uri, call) is None
        return [self.uid(uri, netuid) for uri in uris]

    def uid(self, uri, netuid=1):
        return self["Uids", netuid, address(f"{uri}//hot")]

    def epoch(self, netuid=1):
        """Make blocks up to and with the subnet's next epoch."""
        self.until(self["LastEpochBlock", netuid] + self["Tempo", netuid])
        assert self["LastEpochBlock", netuid] == self.store.head()

    def weights(self, uri, row, *, netuid=1, version=0):
        uids, values = list(row), list(row.values())
        return self.do(
            f"{uri}//hot", SUBTENSOR.set_mechanism_weights(netuid, 0, uids, values, version_key=version)
        )
