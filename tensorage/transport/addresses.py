"""Which endpoints may be dialled: what stands in the chain's axon record is a stranger's word.

A record that points at a private, loopback or link-local address would have every validator knock on its
own network for the one who published it (server-side request forgery). So only globally routable unicast
addresses are dialled, also where an IPv6 address wraps an IPv4 one, unless the operator runs a private
network.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(ip: str) -> bool:
    """Whether a literal IP address is globally routable unicast; False for what is no address."""
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        wrapped = _wrapped(address)
        if wrapped is not None and not _routable(wrapped):
            return False
    return _routable(address)


def _routable(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one carries: mapped, 6to4, Teredo's client, or NAT64."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
