"""What a user may say about how replicas are reached, and which replicas those are."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypedDict

from rpmem.base import environment
from rpmem.base.sizes import parse_size
from rpmem.base.target import ReplicaSpec, Target
from rpmem.errors import UsageError
from rpmem.files.drafts import PRIVATE

_ALL_MAY = 0o777

ReplicaLike: TypeAlias = str | tuple[str | Target, str] | ReplicaSpec


class SessionKeywords(TypedDict, total=False):
    """The keyword arguments that become `SessionOptions`."""

    nlanes: int | None
    timeout: float | None
    provider: str | None
    step: str
    launcher: str | None
    command: str | None
    protocol: str | None
    lane_hosts: str | None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to reach a replica; what is None is decided by the environment or by negotiation.

    Parameters
    ----------
    nlanes : int, optional
        How many operations may be on their way at once.
    timeout : float, optional
        Seconds without progress after which the other side counts as lost.
    provider : str, optional
        libfabric provider, such as ``"tcp"`` or ``"verbs"``.
    step : str
        Durability step, or ``"auto"``.
    launcher : str, optional
        ``"openssh"``, ``"paramiko"`` or ``"auto"``.
    command : str, optional
        What is run on the target instead of ``rpmemd``.
    protocol : str, optional
        ``"native"``, ``"pmdk"`` or ``"auto"``: ours, and PMDK's where the target speaks no other.
    lane_hosts : str, optional
        Hosts, addresses and networks, separated by commas, at which the target may have its lanes
        beside the host that ssh went to.
    """

    nlanes: int | None = None
    timeout: float | None = None
    provider: str | None = None
    step: str = "auto"
    launcher: str | None = None
    command: str | None = None
    protocol: str | None = None
    lane_hosts: str | None = None

    def __post_init__(self) -> None:
        environment.timeout_of(self.timeout)
        for name in ("provider", "step", "launcher", "command", "protocol", "lane_hosts"):
            environment.check_text(name, getattr(self, name))

    def for_target(self, target: Target) -> SessionOptions:
        """Return them with the command decided: for a remote target the next of ``RPMEM_CMD``.

        Replicas that are connected at the same time so get their commands in order.
        """
        if self.command is not None or target.is_local:
            return self
        return replace(self, command=environment.current().next_command())

    def keywords(self) -> dict[str, Any]:
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
        }


def replica_spec(replica: ReplicaLike, parts: int = 0) -> ReplicaSpec:
    """Return the spec that a string, a pair or a spec means.

    Parameters
    ----------
    replica : str, tuple or ReplicaSpec
        ``"TARGET NAME.set"``, ``(target, "NAME.set")`` or a spec.
    parts : int
        For a spec that leaves its own at 0.
    """
    if isinstance(replica, str):
        spec = ReplicaSpec.parse(replica)
    elif isinstance(replica, ReplicaSpec):
        spec = replica
    elif isinstance(replica, tuple) and len(replica) == 2:
        target, name = replica
        spec = ReplicaSpec(Target.of(target), name)
    else:
        raise UsageError(
            f"{replica!r} is no replica", hint="Write 'TARGET NAME.set' or ('TARGET', 'NAME.set')"
        )
    return spec.replaced(parts=spec.parts or parts)


def replica_specs(
    replicas: Iterable[ReplicaLike] | ReplicaLike, parts: int = 0
) -> list[ReplicaSpec]:
    """Return the specs of several replicas; a single one need not be in a list."""
    several: Any = [replicas] if isinstance(replicas, str | ReplicaSpec) else replicas
    specs = [replica_spec(replica, parts) for replica in several]
    for index, spec in enumerate(specs):
        if spec in specs[:index]:
            raise UsageError(f"the replica {spec} is given twice")
    return specs


def mode_of(mode: int) -> int:
    """Return the permissions of new files, after checking that their owner can use them.

    Raises
    ------
    UsageError
        `mode` is no number of nine bits, or leaves its owner out.
    """
    try:
        value = operator.index(mode)
    except TypeError:
        value = -1
    if not 0 <= value <= _ALL_MAY or value & PRIVATE != PRIVATE:
        raise UsageError(
            f"{mode!r} is no mode for the files of a pool",
            hint="Write 0o600, or 0o640 if the group may read; the owner reads and writes",
        )
    return value


def size_of(size: int | str | None) -> int | None:
    """Return a size in bytes: an int as it is, a str as poolset(5) spells it.

    Raises
    ------
    UsageError
        `size` is not a positive number of bytes.
    """
    if size is None:
        return None
    if isinstance(size, str):
        return parse_size(size)
    try:
        value = operator.index(size)
    except TypeError:
        value = 0
    if value <= 0:
        raise UsageError(f"{size!r} is no size", hint='Write 67108864 or "64MiB"')
    return value
