"""All exceptions that rpmem raises on purpose.

An error is a sentence with a place, a cause and a remedy. Each kind has a code that never
changes (it travels over the control session and is safe to test for), an ``errno`` for callers
that think in C, and an exit status for the ``rpmem`` command. Kinds with a counterpart among
Python's own exceptions are also instances of it, so ``except FileNotFoundError`` works.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from rpmem.base.printable import printable

_LARGEST_ERRNO = 4095


class RpmemError(Exception):
    """Base of every error raised by rpmem.

    Parameters
    ----------
    what : str
        What went wrong, as a sentence without its final full stop.
    where : str or os.PathLike, optional
        Where it went wrong: a file and line, a target, an argument.
    hint : str, optional
        What the user can do about it. Kinds may have a hint of their own.
    errno : int, optional
        Replaces the kind's own `errno`.

    Attributes
    ----------
    code : str
        Stable name of the kind.
    errno : int
        Value from ``errno.h``.
    exit_status : int
        Exit status of the ``rpmem`` command when this error ends it.
    what, where, hint : str or None
        The parts of the message; ``str()`` puts them together.
    """

    code: str = "error"
    errno: int = _errno.EIO
    exit_status: int = 1
    hint: str | None = None

    def __init__(
        self,
        what: str,
        *,
        where: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else os.fspath(where)
        if hint is not None:
            self.hint = hint
        self.errno = type(self).errno if errno is None else errno
        _fill_oserror(self, what, self.where)

    def at(self, place: str) -> None:
        """Put a place before the one in the message, if any.

        For layers that know more about where something happened than those below.
        """
        if self.where and self.where.startswith(place):
            return
        self.where = place if not self.where else f"{place}: {self.where}"
        _fill_oserror(self, self.what, self.where)

    def __str__(self) -> str:
        text = self.what if not self.where else f"{self.where.removesuffix(':')}: {self.what}"
        if not self.hint:
            return text
        return f"{_as_sentence(text)} {_as_sentence(self.hint)}"


def _fill_oserror(error: Exception, what: str, where: str | None) -> None:
    if isinstance(error, OSError):
        error.strerror = what
        error.filename = where


def _as_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "\n")) else text + "."


# --- the caller asked for something impossible ------------------------------------------------


class UsageError(RpmemError, ValueError):
    """An argument, or a combination of arguments, makes no sense."""

    code = "usage"
    errno = _errno.EINVAL
    exit_status = 2


class RangeError(UsageError, IndexError):
    """A range does not lie inside the pool, or touches its header."""

    code = "range"


class BufferRefused(UsageError, TypeError):
    """An object has no buffer that rpmem can use: not writable, not contiguous, not in the pool."""

    code = "buffer"


class LaneRefused(UsageError):
    """A lane or replica that does not exist, or an impossible number of lanes."""

    code = "lane"


class ClosedError(UsageError):
    """The pool, replica or region was closed before the call."""

    code = "closed"
    errno = _errno.EBADF


class ForkedError(ClosedError):
    """The object belongs to the parent process; connections do not survive ``fork``."""

    code = "forked"


class TargetSyntaxError(UsageError):
    """A target string is not ``[user@]host[:port]``, ``[v6]:port`` or ``local:``."""

    code = "target-syntax"


class ConfigError(UsageError):
    """An environment variable, option or configuration file holds a value that is not allowed."""

    code = "config"


# --- starting rpmemd on the target ------------------------------------------------------------


class LaunchError(RpmemError, ConnectionError):
    """rpmemd could not be started on the target."""

    code = "launch"
    errno = _errno.ECONNRESET
    exit_status = 3


class HostUnknown(LaunchError):
    """The target's name cannot be resolved, or there is no route to it."""

    code = "host-unknown"
    errno = _errno.EHOSTUNREACH


class ConnectionRefused(LaunchError, ConnectionRefusedError):
    """Nothing listens on the target's ssh port."""

    code = "connection-refused"
    errno = _errno.ECONNREFUSED


class HostKeyUnknown(LaunchError):
    """The target's host key is unknown, or differs from the known one."""

    code = "host-key-unknown"
    errno = _errno.EACCES


class AuthenticationFailed(LaunchError):
    """The target refused every key; rpmem never asks for passwords."""

    code = "authentication-failed"
    errno = _errno.EACCES


class DaemonMissing(LaunchError):
    """The target has no ``rpmemd``, or not on the PATH of non-interactive shells."""

    code = "daemon-missing"
    errno = _errno.ENOENT


class NoiseBeforeProtocol(LaunchError):
    """Something on the target, mostly a login script, printed before rpmemd could speak."""

    code = "noise-before-protocol"
    errno = _errno.EPROTO


class LaunchFailed(LaunchError):
    """rpmemd did not start, for a reason that only its own output explains."""

    code = "launch-failed"


# --- talking to rpmemd ------------------------------------------------------------------------


class ProtocolError(RpmemError):
    """The peer does not follow the control protocol."""

    code = "protocol"
    errno = _errno.EPROTO
    exit_status = 4


class VersionMismatch(ProtocolError):
    """The two sides have no protocol version in common."""

    code = "version-mismatch"
    errno = _errno.EPROTONOSUPPORT


class MalformedMessage(ProtocolError):
    """A message has a wrong size, a missing field or a value out of bounds."""

    code = "malformed-message"


class UnexpectedMessage(ProtocolError):
    """A well-formed message that is not allowed in the current state of the session."""

    code = "unexpected-message"


# --- pool sets --------------------------------------------------------------------------------


class PoolSetError(RpmemError):
    """A pool set, on this side or on the target, cannot be used."""

    code = "poolset"
    errno = _errno.EINVAL
    exit_status = 5


class PoolSetNotFound(PoolSetError, FileNotFoundError):
    """The pool set file or one of its parts does not exist."""

    code = "poolset-not-found"
    errno = _errno.ENOENT


class PoolSetMalformed(PoolSetError):
    """The pool set file breaks the rules of poolset(5)."""

    code = "poolset-malformed"


class PoolSetTooSmall(PoolSetError):
    """More bytes were asked for than the pool set holds."""

    code = "poolset-too-small"
    errno = _errno.EFBIG


class PoolSetBusy(PoolSetError):
    """The pool set, or a part of it, is open in another process."""

    code = "poolset-busy"
    errno = _errno.EBUSY


class PoolSetExists(PoolSetError, FileExistsError):
    """A part that was to be created already holds a pool."""

    code = "poolset-exists"
    errno = _errno.EEXIST


class PoolSetDenied(PoolSetError, PermissionError):
    """The file system does not let this user read or write the pool set."""

    code = "poolset-denied"
    errno = _errno.EACCES


class PoolSetNameRefused(PoolSetError):
    """A pool set name that points outside the pool set directory, or is not a name at all."""

    code = "poolset-name-refused"


class NoSpace(PoolSetError):
    """The file system has no room for the parts."""

    code = "no-space"
    errno = _errno.ENOSPC


class AttributesRefused(PoolSetError):
    """Pool attributes that contradict the pool set's options."""

    code = "attributes-refused"


class HeaderError(PoolSetError):
    """A pool header is damaged, or does not belong to this pool."""

    code = "header"


# --- the fabric -------------------------------------------------------------------------------


class FabricError(RpmemError):
    """The fabric that carries pool data failed."""

    code = "fabric"
    exit_status = 6


class ProviderUnavailable(FabricError):
    """No provider that was offered is usable on both sides."""

    code = "provider-unavailable"
    errno = _errno.ENOMEDIUM


class RegistrationFailed(FabricError):
    """The pool's memory could not be registered with the fabric."""

    code = "registration-failed"
    errno = _errno.ENOMEM


class EncryptionRefused(FabricError):
    """The lanes are not encrypted as one of the two sides wants it."""

    code = "encryption-refused"
    errno = _errno.EACCES
    hint = "encryption='off' goes without, where nobody else reaches the network"


class ConnectFailed(FabricError, ConnectionError):
    """A lane could not be connected."""

    code = "connect-failed"
    errno = _errno.ECONNREFUSED


class FabricFailure(FabricError):
    """A fabric call failed in a way for which there is no more specific error."""

    code = "fabric-failure"


# --- while replicating ------------------------------------------------------------------------


class ReplicaLost(RpmemError, ConnectionError):
    """The connection to a replica broke; what was not acknowledged may not be there."""

    code = "replica-lost"
    errno = _errno.ECONNRESET
    exit_status = 7
    hint = (
        "Open the replica again once its target is back, or use pool.detach to continue without "
        "it; what was not acknowledged may not be there"
    )


class DeadlineExceeded(RpmemError, TimeoutError):
    """The other side did not answer in the time allowed."""

    code = "deadline-exceeded"
    errno = _errno.ETIMEDOUT
    exit_status = 7


class FlushFailed(RpmemError):
    """A medium, here or on the target, refused to make data durable."""

    code = "flush-failed"
    errno = _errno.EIO
    exit_status = 7


class RemoteError(RpmemError):
    """The target reported a failure for which there is no more specific error.

    Attributes
    ----------
    remote_code : str or None
        The target's code, if it is not one of ours.
    """

    code = "remote"
    errno = _errno.EREMOTEIO
    exit_status = 7
    remote_code: str | None = None


class StaleReplica(RpmemError):
    """A copy is out of date, or a mixture, where one that is complete is needed."""

    code = "stale-replica"
    errno = _errno.ESTALE
    exit_status = 7


class SplitBrain(RpmemError):
    """Two copies of a pool went separate ways: each holds what the other one lacks."""

    code = "split-brain"
    errno = _errno.EUCLEAN
    exit_status = 7


class NotProvenNewest(RpmemError):
    """A copy that was not reached may hold more than those that were."""

    code = "not-proven-newest"
    errno = _errno.ESTALE
    exit_status = 7


class CopyCorrupt(RpmemError):
    """Bytes of a copy are not what they have to be: they rotted, or changed on their way."""

    code = "copy-corrupt"
    errno = _errno.EILSEQ
    exit_status = 7


class EpochRefused(RpmemError):
    """A copy does not take a record that would hide what it holds."""

    code = "epoch-refused"
    errno = _errno.ESTALE
    exit_status = 7


# --- named arrays -----------------------------------------------------------------------------


class CatalogueError(RpmemError):
    """The catalogue of named arrays cannot do what was asked."""

    code = "catalogue"
    errno = _errno.EINVAL
    exit_status = 8


class ArrayExists(CatalogueError):
    """An array of that name exists, with another shape or dtype."""

    code = "array-exists"
    errno = _errno.EEXIST


class ArrayNotFound(CatalogueError, KeyError):
    """The pool has no array of that name."""

    code = "array-not-found"
    errno = _errno.ENOENT


class DtypeRefused(CatalogueError, TypeError):
    """A dtype that makes no sense outside this process: objects, or anything holding them."""

    code = "dtype-refused"


class PoolFull(CatalogueError):
    """The pool has no contiguous free space that is large enough."""

    code = "pool-full"
    errno = _errno.ENOSPC


class CatalogueCorrupt(CatalogueError):
    """No copy of the catalogue in the pool has a good checksum."""

    code = "catalogue-corrupt"
    errno = _errno.EUCLEAN


# --- the installation -------------------------------------------------------------------------


class MissingExtension(RpmemError, ImportError):
    """A compiled part of rpmem, or a library that it opens, is not on this machine."""

    code = "missing-extension"
    errno = _errno.ENOSYS
    exit_status = 9
    hint = (
        "In a source tree run `make build`; otherwise "
        "`pip install --force-reinstall --no-cache-dir rpmem`"
    )


def _kinds(root: type[RpmemError]) -> Iterator[type[RpmemError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


#: Every kind by its code.
KINDS: Mapping[str, type[RpmemError]] = MappingProxyType(
    {kind.code: kind for kind in _kinds(RpmemError)}
)


def from_code(
    code: str,
    what: str,
    *,
    where: str | os.PathLike[str] | None = None,
    hint: str | None = None,
    errno: int | None = None,
) -> RpmemError:
    """Make the error that a peer reported over the control session.

    The texts come from another machine and may end up on a terminal: control characters are shown
    as escapes and the length is limited.

    Parameters
    ----------
    code : str
        The peer's code. An unknown one gives a `RemoteError` that keeps it in ``remote_code``.
    what, hint : str
        The peer's words.
    where : str or os.PathLike, optional
        The peer, as the user knows it.
    errno : int, optional
        The peer's errno; anything outside 1..4095 is dropped.

    Returns
    -------
    RpmemError
        To be raised by the caller.
    """
    kind = KINDS.get(code, RemoteError)
    error = kind(
        printable(what) or "the target gave no reason",
        where=where,
        hint=printable(hint) if hint else None,
        errno=errno if errno is not None and 0 < errno <= _LARGEST_ERRNO else None,
    )
    if isinstance(error, RemoteError) and code != RemoteError.code:
        error.remote_code = printable(code)
    return error
