"""Removing a pool on a target: ``rpmemd --remove``, whose exit status is an errno."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from rpmem.base.printable import printable
from rpmem.errors import (
    DeadlineExceeded,
    LaunchFailed,
    NoiseBeforeProtocol,
    PoolSetBusy,
    PoolSetDenied,
    PoolSetError,
    PoolSetMalformed,
    PoolSetNameRefused,
    PoolSetNotFound,
    RpmemError,
)
from rpmem.launch import diagnose, launch

if TYPE_CHECKING:
    from rpmem.base.environment import Environment
    from rpmem.base.target import Target
    from rpmem.launch import Transport

_SSH_FAILED = 255
_NOT_STARTED = (126, 127)

_KINDS: dict[int, type[PoolSetError]] = {
    errno.ENOENT: PoolSetNotFound,
    errno.EBADF: PoolSetNameRefused,
    errno.EWOULDBLOCK: PoolSetBusy,
    errno.EACCES: PoolSetDenied,
    errno.EPERM: PoolSetDenied,
    errno.EINVAL: PoolSetMalformed,
}


def remove_pool(
    target: Target,
    pool_set: str,
    *,
    force: bool,
    pool_set_too: bool,
    environment: Environment,
    launcher: str,
    command: str | None,
    timeout_s: float,
) -> None:
    """Remove a pool; see `rpmem.remove`."""
    arguments = ["--remove", pool_set]
    if force:
        arguments.append("--force")
    if pool_set_too:
        arguments.append("--pool-set")
    transport = launch(
        target,
        arguments,
        environment=environment,
        launcher=launcher,
        command=command,
        timeout_s=timeout_s,
    )
    with transport:
        error = _outcome(transport, target, pool_set, timeout_s)
    if error is not None:
        raise error


def _outcome(
    transport: Transport, target: Target, pool_set: str, timeout_s: float
) -> RpmemError | None:
    """Wait for rpmemd to end and return the error, if any."""
    printed = transport.receive(1 << 12, timeout_s)
    if printed:
        return NoiseBeforeProtocol(
            f"{target} printed {printable(printed.decode('utf-8', 'replace'), 80)!r} "
            "where nothing should be printed",
            hint="make sure that login scripts print nothing for commands started by ssh",
            errno=errno.EPROTO,
        )
    status = transport.exit_status(timeout_s)
    where = f"{target} {pool_set}"
    if status is None:
        return DeadlineExceeded(f"rpmemd --remove did not end within {timeout_s:g} s", where=where)
    if status == 0:
        return None
    if status < 0 or status in _NOT_STARTED or (status == _SSH_FAILED and not target.is_local):
        return diagnose(transport)
    said = transport.stderr_text().strip().splitlines()
    if said:
        what = printable(said[-1].removeprefix("rpmemd: "), 300)
    else:
        what = f"it cannot be removed: {_name(status)}"
    kind = _KINDS.get(status)
    if kind is not None:
        return kind(what, where=where, errno=status)
    if status == 1:
        return LaunchFailed(what, where=where)
    return PoolSetError(what, where=where, errno=status)


def _name(number: int) -> str:
    return os.strerror(number)
