"""Errors for refusals by a fabric's library.

Each fabric has a function ``must`` that knows how its library reports errors, by return values or
in ``errno``; the error is made here.
"""

from __future__ import annotations

from rpmem.base.remedies import remedy_for
from rpmem.errors import FabricFailure, RpmemError

__all__ = ["LOCKED_MEMORY", "failure"]

#: The remedy if too little memory may be locked.
LOCKED_MEMORY = (
    "raise the limit for locked memory (ulimit -l, or memlock in /etc/security/limits.conf)"
)


def failure(
    what: str,
    why: str,
    number: int | None,
    where: str | None = None,
    kind: type[RpmemError] = FabricFailure,
) -> RpmemError:
    """Return the error of a call that was refused.

    Parameters
    ----------
    what : str
        The call.
    why : str
        The library's explanation.
    number : int or None
        The errno, if there is one.
    where : str, optional
        The provider, device or host.
    kind : type
        The class of the error.
    """
    return kind(f"{what}: {why}", where=where, errno=number, hint=remedy_for(number))
