"""How replicas are reached: the options behind every call that connects to one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from rpmem.base import environment
from rpmem.base.target import Target


class ReachKeywords(TypedDict, total=False):
    """The keyword arguments that become `SessionOptions`, except the number of lanes."""

    timeout: float | None
    provider: str | None
    step: str
    launcher: str | None
    command: str | None
    protocol: str | None
    lane_hosts: str | None
    encryption: str | None


class SessionKeywords(ReachKeywords, total=False):
    """The keyword arguments that become `SessionOptions`."""

    nlanes: int | None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to reach a replica; None leaves the choice to the environment or to negotiation.

    Parameters
    ----------
    nlanes : int, optional
        How many operations may be in progress at once.
    timeout : float, optional
        Seconds without progress after which the other side is considered lost.
    provider : str, optional
        What carries lanes: ``"stream"``, ``"verbs"``, or a provider of libfabric such as ``"tcp"``.
    step : str
        Durability step, or ``"auto"``.
    launcher : str, optional
        ``"openssh"``, ``"paramiko"`` or ``"auto"``.
    command : str, optional
        What to run on the target instead of ``rpmemd``.
    protocol : str, optional
        ``"native"``, ``"pmdk"`` or ``"auto"``: ours, or PMDK's if the target speaks nothing else.
    lane_hosts : str, optional
        Hosts, addresses and networks, separated by commas, to which lanes may go besides the host
        that ssh reached.
    encryption : str, optional
        ``"auto"``, ``"on"`` or ``"off"``, see `rpmem.session.encryption.asked`.
    """

    nlanes: int | None = None
    timeout: float | None = None
    provider: str | None = None
    step: str = "auto"
    launcher: str | None = None
    command: str | None = None
    protocol: str | None = None
    lane_hosts: str | None = None
    encryption: str | None = None

    def __post_init__(self) -> None:
        environment.timeout_of(self.timeout)
        for name in (
            "provider",
            "step",
            "launcher",
            "command",
            "protocol",
            "lane_hosts",
            "encryption",
        ):
            environment.check_text(name, getattr(self, name))

    def for_target(self, target: Target) -> SessionOptions:
        """Return them with the command chosen: for a remote target the next one of ``RPMEM_CMD``.

        This gives replicas that are connected at the same time their commands in order.
        """
        if self.command is not None or target.is_local:
            return self
        return replace(self, command=environment.current().next_command())

    def keywords(self) -> SessionKeywords:
        """Return them as keyword arguments of `rpmem.session.start.create` and `open`."""
        return {
            "nlanes": self.nlanes,
            "timeout": self.timeout,
            "provider": self.provider,
            "step": self.step,
            "launcher": self.launcher,
            "command": self.command,
            "protocol": self.protocol,
            "lane_hosts": self.lane_hosts,
            "encryption": self.encryption,
        }
