"""Whether the lanes of a session are to be encrypted, and what is said about it."""

from __future__ import annotations

from typing import Final

from rpmem.base.target import Target
from rpmem.control.messages import Ready
from rpmem.errors import EncryptionRefused
from rpmem.fabric.providers import encrypts

__all__ = ["ENCRYPTED", "asked", "described", "refuse_pmdk", "require"]

#: What `Replica.encryption` says of lanes that are encrypted.
ENCRYPTED: Final = "TLS 1.3"


def asked(wanted: str, target: Target, provider: str) -> bool:
    """Return whether to ask the target for encrypted lanes.

    Parameters
    ----------
    wanted : str
        ``"on"``, ``"off"``, or ``"auto"``: if the provider does it. Nothing is encrypted on the way
        to a child process of this machine.
    target : Target
    provider : str
        What will carry the lanes. Where nobody names one that is ``stream``, and verbs may be
        offered before it: then lanes are encrypted unless the target chooses verbs.

    Raises
    ------
    EncryptionRefused
        It has to be, and the provider does not.
    """
    if target.is_local or wanted == "off":
        return False
    if not encrypts(provider) and wanted == "on":
        raise EncryptionRefused(
            f"lanes over {provider} cannot be encrypted, and encryption is on",
            where=str(target),
            hint="provider='stream' encrypts them",
        )
    return encrypts(provider)


def refuse_pmdk(wanted: str, target: Target) -> None:
    """Refuse PMDK's protocol where lanes have to be encrypted.

    Raises
    ------
    EncryptionRefused
        They have to be.
    """
    if wanted == "on" and not target.is_local:
        raise EncryptionRefused(
            "PMDK's protocol does not encrypt lanes, and encryption is on", where=str(target)
        )


def require(ready: Ready, target: Target) -> None:
    """Make sure that a target that was asked for encrypted lanes has agreed.

    Where encryption has to be, nothing is offered that cannot.

    Raises
    ------
    EncryptionRefused
        It said nothing of it, and its provider can.
    """
    if ready.nonce is None and encrypts(ready.provider):
        raise EncryptionRefused("the target does not encrypt its lanes", where=str(target))


def described(ready: Ready, wanted: str, target: Target, *, native: bool) -> str:
    """Say whether the lanes are encrypted and, if they are not, why."""
    if ready.nonce is not None:
        return ENCRYPTED
    if target.is_local:
        return "none: the target is a child process"
    if not native:
        return "none: PMDK's protocol cannot"
    if not encrypts(ready.provider):
        return f"none: {ready.provider} cannot"
    return f"none: encryption is {wanted}"
