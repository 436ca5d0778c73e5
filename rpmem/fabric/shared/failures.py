"""What a refusal of a fabric's library comes to.

Each fabric has a function ``must`` that knows how its library says no, in return values or in
``errno``; the error is made here.
"""

from __future__ import annotations

from rpmem.errors import FabricFailure, RpmemError, remedy_for

__all__ = ["LOCKED_MEMORY", "failure"]

#: What helps where too little memory may be locked.
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
        What the library says of it.
    number : int or None
        The errno, if it has one.
    where : str, optional
        The provider, device or host.
    kind : type
        Of the error.
    """
    return kind(f"{what}: {why}", where=where, errno=number, hint=remedy_for(number))
