"""The hosts that lanes may connect to: the control session's, or those the user allows.

The target's answer contains the address and port at which it accepts lanes. If initiators connected
to any address, a target could make them contact hosts that it cannot reach itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rpmem.errors import ConnectFailed, RpmemError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from rpmem.control.messages import Ready

# Lower ports belong to system services; lanes get a port chosen by the system.
_LOWEST_PORT: Final = 1024


class LaneHosts:
    """The hosts at which a target's lanes may be.

    Parameters
    ----------
    ready : Ready
        The target's answer.
    reached : str
        Name or address of the host that the control session reached.
    allowed : tuple of str
        Names, addresses and networks that the user allows in addition.
    session : callable, optional
        Returns the other hosts the control session is known to have reached; called only if needed.

    Attributes
    ----------
    hosts : list of str
        In order of preference.
    left_out : str
        The address that the target named, if it is not one of them; else empty.

    Raises
    ------
    ConnectFailed
        The port cannot be that of a lane.
    """

    def __init__(
        self,
        ready: Ready,
        reached: str,
        allowed: tuple[str, ...],
        session: Callable[[], set[str]] = set,
    ) -> None:
        if 0 < ready.port < _LOWEST_PORT:
            raise ConnectFailed(
                f"the target wants its lanes connected to port {ready.port}, where its ordinary "
                "programs must not listen",
                hint=f"Lanes use ports from {_LOWEST_PORT} upwards",
            )
        self.hosts = [reached]
        self.left_out = ""
        if ready.address and ready.address != reached:
            if _is_allowed(ready.address, (reached, *allowed)) or _is_allowed(
                ready.address, tuple(session())
            ):
                self.hosts.append(ready.address)
            else:
                self.left_out = ready.address

    def explain(self, error: RpmemError) -> None:
        """Mention in an error that there is another address, and how to allow it."""
        if self.left_out:
            error.hint = (
                f"the target names {self.left_out}, which is not where its session went; "
                "RPMEM_LANE_HOSTS or lane_hosts= allows that host, if you trust it"
            )


def _is_allowed(address: str, allowed: tuple[str, ...]) -> bool:
    wanted = _parse(address)
    if wanted is None:
        # A name means whatever the name service says, so only an identical one is accepted.
        return address in allowed
    return any(_covers(entry, wanted) for entry in allowed)


def _covers(entry: str, wanted: IPv4Address | IPv6Address) -> bool:
    import ipaddress

    if "/" in entry:
        network = ipaddress.ip_network(entry, strict=False)
        return wanted.version == network.version and wanted in network
    return wanted in _addresses_of(entry)


def _addresses_of(host: str) -> set[IPv4Address | IPv6Address]:
    literal = _parse(host)
    if literal is not None:
        return {literal}
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {parsed for entry in found if (parsed := _parse(str(entry[4][0]))) is not None}


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address without its zone, IPv4-mapped IPv6 as IPv4; None if it is not one."""
    import ipaddress

    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
