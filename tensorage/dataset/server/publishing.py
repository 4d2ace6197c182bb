"""Publishing one dataset from start to end: check, listen, open the tunnel, say so, serve, clean up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ...errors import StorageError, TensorageError, UsageError
from ...service import lifetime
from ..files import Disk
from ..identity import Signer
from ..payments.pricing import amount_of
from ..payments.till import Till
from ..sales import OfferTerms, Unit
from ..store import Store
from .context import Context, Membership
from .depot import Depot, Rent
from .selling import Sale
from .service import LIMITS, TUNNELLED, Service, tls_context
from .state import Published, State, owner_token
from .tunnel import Tunnel, TunnelError, find

logger = logging.getLogger(__name__)

_REFRESH_SECONDS = 30.0

#: The name of the chain where TAO is.
TAO = "bittensor"


@dataclass(frozen=True)
class Price:
    """What access costs, and where it is paid.

    Attributes:
        till: opens what judges payments; called once the rest is known to be right.
        facilitator: URL of who settles, None where nobody is needed.
    """

    text: str
    unit: Unit
    pay_to: str
    facilitator: str | None
    till: Callable[[], Any] = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """What `publish` was told.

    Attributes:
        tls: certificate and key; None for plain HTTP.
        tunnel: True must have one, False none, None one where cloudflared is there.
        public_url: where others reach the server, as far as the operator knows.
        rent: how the artifacts are kept in the storage subnet; None where they are not.
    """

    id: str
    membership: Membership
    host: str
    port: int
    tls: tuple[Path, Path] | None
    tunnel: bool | None
    public_url: str | None
    mirrors: tuple[str, ...]
    price: Price | None
    rent: Rent | None = None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(plan: Plan) -> str | None:
    """Refuse a plan that would give away what it should not; returns cloudflared's path, if it is to run.

    Raises:
        UsageError: what must be put right.
    """
    if plan.membership == "open" and plan.price is not None:
        raise UsageError(
            "with --membership open anybody gets in without paying",
            remedy="Leave out --price, or take invite",
        )
    exposed = not is_loopback(plan.host)
    if exposed and plan.tls is None:
        raise UsageError(
            f"{plan.host} is not this machine's own address, and tokens must not travel in the clear",
            remedy="Add --tls-cert and --tls-key, or listen on 127.0.0.1 behind --tunnel or a proxy with TLS",
        )
    own_way = exposed or plan.tls is not None or plan.public_url is not None
    if plan.tunnel and own_way:
        raise UsageError(
            "a tunnel brings its own address and TLS", remedy="Leave out --host, --tls-cert and --public-url"
        )
    if plan.tunnel is False or own_way:
        return None
    try:
        return find()
    except UsageError as error:
        if plan.tunnel:
            raise
        logger.warning("only this machine can reach the server: %s", error)
        return None


class Publishing:
    """One run of `publish`.

    Args:
        tell: what an operator reads, called once the server can be reached.
        warn: one line that an operator must see; say: one that is good to know.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        signer: Signer,
        *,
        clock: Callable[[], int],
        rng: Callable[[int], bytes],
        tell: Callable[[dict[str, Any]], None],
        warn: Callable[[str], None],
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self._plan = plan
        self._store = store
        self._signer = signer
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._warn = warn
        self._say = say
        self._state = State(plan.id, "", plan.public_url, owner_token(rng(24)), None)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set.

        Raises:
            UsageError, StorageError, ChainError: it cannot be served as it should.
        """
        plan, program = self._plan, check(self._plan)
        log = self._store.verified_log(plan.id, "serve")
        if not log.entries:
            raise UsageError(
                f'dataset "{plan.id}" has no versions yet', remedy="Record one with: dataset from"
            )
        self._store.sign_head(plan.id, self._signer, self._clock())
        async with AsyncExitStack() as stack:
            published = stack.enter_context(Published(self._store.home, plan.id, Disk()))
            sale = await stack.enter_async_context(self._sale(log.head.size))
            service = Service(
                Context(
                    plan.id,
                    self._store,
                    self._signer,
                    self._state.owner_token,
                    plan.membership,
                    self._clock,
                    self._rng,
                    sale,
                    plan.mirrors,
                    subnet=plan.rent is not None,
                ),
                host=plan.host,
                port=plan.port,
                tls=None if plan.tls is None else tls_context(*plan.tls),
                tunnelled=program is not None,
                limits=LIMITS if program is None else TUNNELLED,
            )
            await self._check_newest(service)
            depot = stack.enter_context(self._depot(plan.rent)) if plan.rent is not None else None
            if depot is not None and not await _unless(stop, depot.keep(log.head.seq)):
                return
            await service.start()
            stack.push_async_callback(service.drain, lifetime.DRAIN_SECONDS)
            self._state = published.write(self._reached(service))
            tunnel = None if program is None else Tunnel(program, self._state.local_addr)
            if tunnel is not None:
                stack.push_async_callback(tunnel.stop)
                tunnel = await self._dig(tunnel, published, stop)
            if not stop.is_set():
                self._announce(log.head.seq, log.head.size)
            duties = {"head": self._refresh(service), "artifacts": self._check_rest(service)}
            if tunnel is not None:
                duties["tunnel"] = self._watch(tunnel, published)
            if depot is not None:
                duties["subnet"] = depot.run()
            await lifetime.until(stop, duties)

    def _depot(self, rent: Rent) -> Depot:
        return Depot(self._store, self._plan.id, rent, clock=self._clock, tell=self._say, warn=self._warn)

    @asynccontextmanager
    async def _sale(self, size: int) -> AsyncIterator[Sale | None]:
        plan, price = self._plan, self._plan.price
        if price is None:
            self._store.set_offer(plan.id, None)
            yield None
            return
        till: Till
        async with price.till() as till:
            terms = OfferTerms(
                till.network, till.asset, price.text, price.unit, price.pay_to, price.facilitator
            )
            amount_of(terms, size)  # a price that is none is refused before anybody is asked for it
            self._store.set_offer(plan.id, terms)
            yield Sale(
                self._store,
                till,
                terms,
                self._signer,
                url=lambda: self._state.public_url or self._state.local_addr,
                clock=self._clock,
            )

    def _reached(self, service: Service) -> State:
        plan = self._plan
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.host, plan.host)  # noqa: S104 - asked from here
        scheme = "http" if plan.tls is None else "https"
        local = f"{scheme}://{f'[{host}]' if ':' in host else host}:{service.port}"
        certificate = None if plan.tls is None else plan.tls[0].read_text(encoding="ascii")
        return State(plan.id, local, plan.public_url, self._state.owner_token, certificate)

    async def _check_newest(self, service: Service) -> None:
        """Hash the newest artifact before anybody is told that it is to be had.

        Raises:
            StorageError: it is missing, or is not what was signed.
        """
        edition = await service.desk.edition()
        bad = await service.desk.check(edition, [edition.newest])
        if bad:
            artifact = self._store.artifact(self._plan.id, edition.newest)
            self._store.check_artifact(artifact)
            raise StorageError(f"{artifact.path} cannot be served")

    async def _check_rest(self, service: Service) -> None:
        edition = await service.desk.edition()
        bad = await service.desk.check(edition, range(edition.newest - 1, 0, -1))
        if bad:
            self._warn(
                f"there is no intact data of version {', '.join(map(str, bad))}; see dataset version --repair"
            )
        await asyncio.Event().wait()

    async def _refresh(self, service: Service) -> None:
        """Keep the head statement young, whether anybody asks or not."""
        while True:
            try:
                await service.desk.edition()
            except TensorageError as error:
                self._warn(str(error))
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _dig(self, tunnel: Tunnel, published: Published, stop: asyncio.Event) -> Tunnel | None:
        """Open the tunnel, unless asked to stop first; None where there is none in the end."""
        digging = asyncio.create_task(tunnel.start(), name="tunnel")
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({digging, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not digging.done():
                return None
            url = digging.result()
        except TunnelError as error:
            if self._plan.tunnel:
                raise
            self._warn(f"only this machine can reach the server: {error}")
            return None
        finally:
            for task in (digging, stopped):
                task.cancel()
            await asyncio.gather(digging, stopped, return_exceptions=True)
        self._state = published.write(replace(self._state, public_url=url))
        return tunnel

    async def _watch(self, tunnel: Tunnel, published: Published) -> None:
        """Notice when the tunnel ends, and say so; the server goes on for this machine."""
        error = await tunnel.ended()
        self._state = published.write(replace(self._state, public_url=None))
        self._warn(f"the tunnel is gone, only this machine can reach the server: {error}")
        await asyncio.Event().wait()

    def _announce(self, newest: int, size: int) -> None:
        plan, state = self._plan, self._state
        price = plan.price
        terms = None if price is None else self._store.offer(plan.id)
        self._tell(
            {
                "id": plan.id,
                "head": newest,
                "local_addr": state.local_addr,
                "public_url": state.public_url,
                "reached": "this machine" if is_loopback(plan.host) else plan.host,
                "owner": self._signer.owner,
                "membership": plan.membership,
                "price": None if price is None else price.text,
                "price_per_mb": price is not None and price.unit == "mb",
                "amount": None if terms is None else str(amount_of(terms, size)),
                "network": None if terms is None else terms.network,
                "pay_to": None if terms is None else terms.pay_to,
                "facilitator": None if terms is None else terms.facilitator,
            }
        )


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Do `work`, unless asked to stop first; whether it was done."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
