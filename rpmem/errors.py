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

# Most text from a peer in an error of ours: enough for any genuine message.
_REMOTE_TEXT_LIMIT = 2000
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
    """No libfabric provider is usable on both sides."""

    code = "provider-unavailable"
    errno = _errno.ENOMEDIUM


class RegistrationFailed(FabricError):
    """The pool's memory could not be registered with the fabric."""

    code = "registration-failed"
    errno = _errno.ENOMEM


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
        "it; "
        "what was not acknowledged may not be there"
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
    """A replica and the local copy hold different generations of the pool."""

    code = "stale-replica"
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
    """A compiled part of rpmem was not built, or not for this Python."""

    code = "missing-extension"
    errno = _errno.ENOSYS
    exit_status = 9
    hint = (
        "In a source tree run `make build`; otherwise install the library's development files "
        "and run `pip install --force-reinstall --no-cache-dir rpmem`"
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


_OSERROR_KINDS: Mapping[int, type[PoolSetError]] = MappingProxyType(
    {
        _errno.ENOENT: PoolSetNotFound,
        _errno.ENOTDIR: PoolSetNotFound,
        _errno.EACCES: PoolSetDenied,
        _errno.EPERM: PoolSetDenied,
        _errno.EROFS: PoolSetDenied,
        _errno.EEXIST: PoolSetExists,
        _errno.EWOULDBLOCK: PoolSetBusy,
        _errno.EBUSY: PoolSetBusy,
        _errno.ENOSPC: NoSpace,
        _errno.EDQUOT: NoSpace,
    }
)


#: What to do about a failed call on a file, whatever the call was.
_OSERROR_HINTS: Mapping[int, str] = MappingProxyType(
    {
        _errno.ENOENT: "Create it, or correct the path",
        _errno.ENOTDIR: "Correct the path: the part before the last / is not a directory",
        _errno.EACCES: "Check who owns the file and its directories, and their permissions",
        _errno.EPERM: "Check who owns the file, its permissions and its attributes (lsattr)",
        _errno.EROFS: "The file system is mounted read-only: open the pool with readonly=True",
        _errno.EEXIST: "Move it away, or use another name",
        _errno.ENOSPC: "Free some space on the file system, or use another one",
        _errno.EDQUOT: "The user's quota is used up: free some space, or ask for a larger quota",
        _errno.ENOLCK: "The file system does not support locks, which a pool needs: use another "
        "one, or start its lock service",
        _errno.EIO: "The device or its file system has failed: see the kernel's log (dmesg)",
        _errno.EFBIG: "Use a file system and a limit (ulimit -f) that allow files of this size",
        _errno.ELOOP: "The symbolic links form a loop: name the file itself",
        _errno.ENAMETOOLONG: "Give it a shorter name",
        _errno.EINTR: "Try again",
        _errno.EBUSY: "Wait until it is no longer used, and try again",
        _errno.EWOULDBLOCK: "Wait until it is no longer used, and try again",
        _errno.EMLINK: "Use another file system: this one refuses a second name for a file",
        _errno.EOPNOTSUPP: "Use another file system: this one does not support it",
        _errno.ETXTBSY: "End the program that runs from this file, or use another name",
    }
)
_OTHER_HINT = "Check the file system and its device"


def remedy_of(number: int) -> str:
    """Return what a user can do about a call on a file that failed with an errno."""
    return _OSERROR_HINTS.get(number) or remedy_for(number) or _OTHER_HINT


def from_oserror(
    error: OSError,
    what: str,
    *,
    where: str | os.PathLike[str] | None = None,
    hint: str | None = None,
) -> PoolSetError:
    """Make the pool set error for a failed call on a pool set file or a part.

    Parameters
    ----------
    error : OSError
        The error from the system.
    what : str
        What could not be done, for example "cannot open the part".
    where : str or os.PathLike, optional
        The file.
    hint : str, optional
        What the user can do about it, if more is known than the errno.

    Returns
    -------
    PoolSetError
        An error of the kind for the errno, to be raised ``from error``.
    """
    number = error.errno or _errno.EIO
    kind = _OSERROR_KINDS.get(number, PoolSetError)
    return kind(
        f"{what}: {os.strerror(number)}",
        where=where,
        hint=hint or remedy_of(number),
        errno=number,
    )


_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        _errno.EMFILE: "The process has used up its descriptors: raise its limit with ulimit -n or "
        "LimitNOFILE=, or use fewer lanes",
        _errno.ENFILE: "The system has used up its descriptors: raise fs.file-max",
        _errno.EAGAIN: "No more processes or threads can be started: raise the limit with "
        "ulimit -u or TasksMax=, or use fewer lanes",
        _errno.ENOMEM: "There is not enough memory, or not enough lockable memory (ulimit -l)",
    }
)


def remedy_for(number: int | None) -> str | None:
    """Return the remedy for a resource that has run out, by its errno; None for other errors."""
    return _REMEDIES.get(number or 0)


def shortage(error: BaseException) -> int | None:
    """Return the errno of the resource that has run out, if that is what `error` means.

    Parameters
    ----------
    error : BaseException
        An `OSError`, a `MemoryError`, the `RuntimeError` of a thread that cannot be started, or
        the `ImportError` of a library that cannot be loaded.
    """
    if isinstance(error, MemoryError):
        return _errno.ENOMEM
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _errno.EAGAIN
    if isinstance(error, ImportError):
        # The dynamic loader's message ends with the system's.
        return next((n for n in _REMEDIES if str(error).endswith(os.strerror(n))), None)
    number = error.errno if isinstance(error, OSError) else None
    return number if number in _REMEDIES else None


def printable(text: str, limit: int = _REMOTE_TEXT_LIMIT) -> str:
    """Return `text` from elsewhere in a form that is safe to print.

    Parameters
    ----------
    text : str
        Anything, for example what ssh wrote on stderr.
    limit : int
        Longest result, in characters; ``...`` marks omitted text.

    Returns
    -------
    str
        `text` without surrounding white space, with every non-printing character escaped, on one
        line.
    """
    text = text.strip()
    shown: list[str] = []
    length = 0
    for character in text[: limit + 1]:
        piece = character if character.isprintable() else _escaped(character)
        length += len(piece)
        if length > limit:
            return "".join(shown)[: max(limit - 3, 0)] + "..."
        shown.append(piece)
    return "".join(shown)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
