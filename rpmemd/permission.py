"""Which of the providers that an initiator offers the administrator allows."""

from __future__ import annotations

from rpmem.base.providers import SOCKETPAIR, STREAM
from rpmem.control.messages import Create, Open
from rpmem.errors import EncryptionRefused, ProviderUnavailable
from rpmem.fabric.providers import encrypts
from rpmemd.config import Config

__all__ = ["allowed_providers"]


def allowed_providers(request: Create | Open, config: Config) -> tuple[str, ...]:
    """Return those of the offered providers that are allowed, in the same order.

    An initiator that asks for encrypted lanes leaves it to the target whether it uses a provider
    that has them, if it offers others, too.

    Raises
    ------
    EncryptionRefused
        None of them has lanes that are encrypted as the administrator wants it.
    ProviderUnavailable
        He allows none of the others.
    """
    offered = request.providers
    if request.encrypt and not any(map(encrypts, offered)):
        raise EncryptionRefused(
            f"lanes over {', '.join(offered)} cannot be encrypted, and were to be"
        )
    if request.encrypt and config.encryption == "off":
        offered = tuple(name for name in offered if not encrypts(name))
        if not offered:
            raise EncryptionRefused(
                "this rpmemd is configured not to encrypt lanes",
                hint="encryption='off' goes without; the option here is encryption",
            )
    if config.encryption == "required":
        offered = tuple(name for name in offered if request.encrypt and encrypts(name))
        if not offered:
            raise EncryptionRefused(
                "this rpmemd accepts only encrypted lanes",
                hint="provider='stream' encrypts them, unless encryption is off",
            )
    return _allowed(offered, config.providers)


def _allowed(offered: tuple[str, ...], allowed: tuple[str, ...]) -> tuple[str, ...]:
    if not allowed:
        return offered
    found = tuple(
        name for name in offered if name in allowed or (name == SOCKETPAIR and STREAM in allowed)
    )
    if not found:
        raise ProviderUnavailable(
            f"this rpmemd is configured for lanes over {', '.join(allowed)}, "
            f"and was offered {', '.join(offered)}",
            hint=f"provider='{allowed[0]}' asks for what is allowed; the option here is provider",
        )
    return found
