"""Which providers a session offers to its target, and why."""

from __future__ import annotations

from typing import Final, NamedTuple

from rpmem.base import hardware
from rpmem.base.environment import Environment
from rpmem.base.providers import SOCKETPAIR, STREAM, VERBS
from rpmem.base.target import Target
from rpmem.errors import ProviderUnavailable
from rpmem.fabric.providers import leads_to

__all__ = ["DEFAULT_PROVIDER", "Offer", "explain", "pmdk_provider"]

DEFAULT_PROVIDER: Final = STREAM


class Offer(NamedTuple):
    """What is offered.

    Attributes
    ----------
    providers : tuple of str
        The best first.
    why : str
        Why these.
    """

    providers: tuple[str, ...]
    why: str

    @classmethod
    def best(cls, target: Target, host: str, environment: Environment, encryption: str) -> Offer:
        """Return what is offered where nobody names a provider: verbs if a device leads there.

        Parameters
        ----------
        target : Target
        host : str
            Where its control session is.
        environment : Environment
        encryption : str
            What is wanted of it; verbs has none.
        """
        own = (DEFAULT_PROVIDER,)
        if target.is_local:
            return cls(own, "the target is a child process")
        if encryption == "on":
            return cls(own, "encryption is on")
        if not environment.enable_verbs:
            return cls(own, "verbs is switched off by RPMEM_ENABLE_VERBS")
        if not leads_to(host):
            return cls(own, f"no RDMA device here leads to {host}")
        return cls((VERBS, *own), f"an RDMA device here leads to {host}")

    def with_pairs(self) -> Offer:
        """Offer pairs of sockets before connections of ours: nobody else reaches them."""
        found: list[str] = []
        for provider in self.providers:
            if provider == STREAM:
                found.append(SOCKETPAIR)
            found.append(provider)
        return self._replace(providers=tuple(found))

    def outcome(self, chosen: str) -> tuple[str, str]:
        """Return the name of what the target chose, and why that is in use."""
        if chosen == SOCKETPAIR:
            return STREAM, f"{self.why}; pairs of sockets"
        if self.providers[0] == VERBS != chosen:
            return chosen, f"{self.why}, but the target does not use verbs"
        return chosen, self.why


def explain(error: ProviderUnavailable, offer: Offer) -> None:
    """Name the way out to someone whose target has no lanes of ours, unless the target did."""
    if STREAM in offer.providers and "provider=" not in (error.hint or ""):
        error.hint = (
            "provider='tcp', or RPMEM_PROVIDER=tcp, leaves lanes to libfabric, for a target that "
            "does not know or allow stream"
        )


def pmdk_provider(wanted: tuple[str, ...], environment: Environment, where: str) -> str:
    """Choose as librpmem does: verbs if there is a device, else sockets if enabled.

    Raises
    ------
    ProviderUnavailable
        There is neither.
    """
    for provider in wanted:
        if provider in ("verbs", "sockets"):
            return provider
    if environment.enable_verbs and hardware.has_rdma_device():
        return "verbs"
    if environment.enable_sockets:
        return "sockets"
    raise ProviderUnavailable(
        "PMDK's protocol knows only the providers verbs and sockets: "
        "verbs has no device here or is switched off, and sockets is not switched on",
        where=where,
        hint="Set RPMEM_ENABLE_SOCKETS=1, or use provider='sockets'",
    )
