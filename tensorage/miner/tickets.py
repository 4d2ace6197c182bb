"""Which tickets a miner takes; pure: what is known comes in, a refusal goes out.

    400  no ticket, or not the one that the path names
    403  for another chain, subnet or miner; expired, or for longer than a miner undertakes; its validator
         has no permit; not signed by it

All of that is checked before a byte of the shard is read. What only the database knows (serials, quotas,
whether the miner is leaving) comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import shard
from ..allocator.layout import Identity
from ..chain.address import ss58
from ..chain.types import Metagraph
from ..errors import ProofError, RequestError
from ..hashchain import Verify
from ..ticket import SignedTicket
from ..transport.file_calls import TICKET_HEADER

#: Seconds for which a ticket may bind a miner, from now on.
LONGEST = 400 * 86_400


def ticket_of(headers: Mapping[str, str], named: str) -> SignedTicket:
    """The ticket in the headers of an upload; its signature is unchecked.

    Args:
        headers: by lower-case name.
        named: the ticket hash in the path.

    Raises:
        RequestError: "malformed"; there is none, or it is not the one of the path.
    """
    try:
        signed = SignedTicket.from_hex(headers.get(TICKET_HEADER, ""))
        shard.check_leaves(signed.ticket.leaves)
    except ProofError as error:
        raise RequestError("malformed", f"{TICKET_HEADER}: {error.message}") from error
    if signed.ticket.hash.hex() != named:
        raise RequestError("malformed", f"the ticket's hash is {signed.ticket.hash.hex()}, not {named}")
    return signed


def check_ticket(
    signed: SignedTicket, identity: Identity, metagraph: Metagraph, now: float, verify: Verify
) -> None:
    """Check that a ticket is for us, in time, and from a validator that may sign one.

    Args:
        identity: ours.
        metagraph: the subnet as known now.
        now: seconds since 1970.

    Raises:
        RequestError: "forbidden".
    """
    ticket = signed.ticket
    if (ticket.genesis, ticket.netuid) != (identity.genesis, identity.netuid):
        raise RequestError(
            "forbidden", f"the ticket is for subnet {ticket.netuid} of chain {ticket.genesis.hex()[:16]}"
        )
    if ticket.miner != identity.hotkey:
        raise RequestError("forbidden", f"the ticket is for the miner {ss58(ticket.miner)}")
    if ticket.expires <= now:
        raise RequestError("forbidden", f"the ticket expired {now - ticket.expires:.0f} s ago")
    if ticket.expires > now + LONGEST:
        raise RequestError("forbidden", f"the ticket is for more than {LONGEST // 86_400} days")
    validator = ss58(ticket.validator)
    neuron = metagraph.by_hotkey(validator)
    if neuron is None or not neuron.validator_permit:
        raise RequestError(
            "forbidden", f"hotkey {validator} has no validator permit, so its tickets are not taken"
        )
    try:
        signed.check(verify)
    except ProofError as error:
        raise RequestError("forbidden", error.message) from error
