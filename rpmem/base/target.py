"""The place of a replica: ``[user@]host[:port]`` and related forms.

The syntax is librpmem's (its manual calls the string *target*), with two additions: ``local:``
starts rpmemd as a child process on this machine, and a pool set name may follow after a space, as
in a ``REPLICA`` line of poolset(5).

A target ends up in the argument list of ssh and in file names. Everything that ssh could read as an
option, or that a ``ProxyCommand`` would hand to a shell, is refused here, so callers need not
check.
"""

from __future__ import annotations

import operator
import re

from rpmem.base.printable import printable
from rpmem.base.values import Record
from rpmem.errors import PoolSetNameRefused, TargetSyntaxError, UsageError

_LOCAL = "local:"
_LARGEST_PORT = 65535
_LONGEST_NAME = 1024  # NI_MAXHOST is 1025 with its NUL
_LONGEST_POOL_SET = 4095  # PATH_MAX without its NUL

# Characters special to a shell; OpenSSH refuses most of them since 9.6 (CVE-2023-51385). Login
# names never contain a colon or a slash, which would make the string ambiguous.
_NOT_IN_USER = frozenset("'`\"$;&<>|(){}*?!:/")
_HOST = re.compile(r"[\w.+-]+")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]+")
_PORT = re.compile(r"[0-9]{1,5}")

_FORMS = "Write it as host, user@host, host:port, [IPv6 address]:port, local: or local:/directory"

_OPTIONS = "Put options into ssh_config(5), and use the alias of their Host section as the target"


class Target(Record):
    """A machine, perhaps this one, that holds a replica.

    Parameters
    ----------
    user : str, optional
        Login name; without one ssh decides.
    host : str
        Host name, alias from ssh_config(5), or address without brackets.
    port : int, optional
        Port of the ssh server, 1 to 65535; without one ssh decides.
    local_directory : str, optional
        Pool set directory of a local target; without one rpmemd's own configuration decides.
    is_local : bool
        Start rpmemd as a child process instead of over ssh.

    Raises
    ------
    TargetSyntaxError
        A field cannot be part of a safe target string.
    """

    user: str | None = None
    host: str = "localhost"
    port: int | None = None
    local_directory: str | None = None
    is_local: bool = False

    def _check(self) -> None:
        shown = self._shown()
        if self.is_local:
            if self.user is not None or self.port is not None or self.host != "localhost":
                raise TargetSyntaxError("a local target has no user, host or port", where=shown)
            if self.local_directory is not None:
                _check_directory(self.local_directory, shown)
            return
        if self.local_directory is not None:
            raise TargetSyntaxError("only a local target has a directory", where=shown)
        if self.user is not None:
            _check_user(self.user, shown)
        _check_host(self.host, shown)
        if self.port is not None and not 0 < self.port <= _LARGEST_PORT:
            raise TargetSyntaxError(
                f"port {self.port} is out of range", where=shown, hint="Ports are 1 to 65535"
            )

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target string.

        Parameters
        ----------
        text : str
            ``[user@]host[:port]``, ``[user@][IPv6]:port``, a bare IPv6 address, ``local:`` or
            ``local:/absolute/pool-set-directory``. As in librpmem, text with several colons and
            no brackets is one IPv6 address. The user ends at the last ``@``, as in ssh(1).

        Returns
        -------
        Target
            For which ``Target.parse(str(target)) == target``.

        Raises
        ------
        TargetSyntaxError
            `text` is none of these.
        """
        if not isinstance(text, str):
            raise TargetSyntaxError(f"a target is a string, not {type(text).__name__}")
        shown = _quoted(text)
        if not text:
            raise TargetSyntaxError("the target is empty", hint=_FORMS)
        _check_characters(text, shown)
        if text == _LOCAL:
            return cls(is_local=True)
        if text.startswith(_LOCAL + "/"):
            return cls(is_local=True, local_directory=text[len(_LOCAL) :])
        user, at, rest = text.rpartition("@")
        if at and not user:
            raise TargetSyntaxError("the user name before '@' is empty", where=shown, hint=_FORMS)
        host, port = _split_port(rest, shown)
        return cls(user=user or None, host=host, port=port)

    @classmethod
    def of(cls, target: str | Target) -> Target:
        """Return a target, parsed if it is a string."""
        return target if isinstance(target, Target) else cls.parse(target)

    @property
    def ssh_destination(self) -> str:
        """``[user@]host`` as ssh(1) takes it: no port, no brackets."""
        return self.host if self.user is None else f"{self.user}@{self.host}"

    def __str__(self) -> str:
        if self.is_local:
            return _LOCAL + (self.local_directory or "")
        host = self.host
        if self.port is not None:
            host = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        return host if self.user is None else f"{self.user}@{host}"

    def _shown(self) -> str:
        return _quoted(str(self))


class ReplicaSpec(Record):
    """One remote replica: a target and the name of a pool set there.

    Parameters
    ----------
    target : Target
        Where.
    pool_set : str
        Name of the pool set file, relative to the target's pool set directory.
    parts : int
        Create the pool set with so many parts if the target does not have it; 0: it must exist.

    Raises
    ------
    PoolSetNameRefused
        `pool_set` is absolute, points outside the pool set directory, or is not a file name.
    UsageError
        `parts` is negative or not an integer.
    """

    target: Target
    pool_set: str
    parts: int = 0

    def _check(self) -> None:
        check_pool_set_name(self.pool_set)
        try:
            possible = operator.index(self.parts) >= 0
        except TypeError:
            possible = False
        if not possible:
            raise UsageError(f"a pool set cannot have {self.parts!r} parts")

    @classmethod
    def parse(cls, text: str) -> ReplicaSpec:
        """Read ``TARGET NAME.set``, as it follows ``REPLICA`` in poolset(5).

        Parameters
        ----------
        text : str
            A target and a relative pool set name, separated by spaces.

        Returns
        -------
        ReplicaSpec
            With ``parts=0``.

        Raises
        ------
        TargetSyntaxError
            There are not two words, or the first is not a target.
        PoolSetNameRefused
            The second word is not a pool set name.
        """
        words = [word for word in re.split("[ \t]+", text) if word]
        if len(words) != 2:
            raise TargetSyntaxError(
                "a replica is a target and a pool set name, separated by a blank",
                where=_quoted(text, "replica"),
                hint="For example: user@node2 pool.set",
            )
        return cls(Target.parse(words[0]), words[1])

    def __str__(self) -> str:
        return f"{self.target} {self.pool_set}"


def require_name(name: str) -> str:
    """Return a pool set's name if it is a str; which names are valid is up to the target."""
    if not isinstance(name, str):
        raise PoolSetNameRefused(f"the name of a pool set is a str, not {type(name).__name__}")
    return name


def check_pool_set_name(name: str) -> str:
    """Check the name of a pool set on a target.

    The original rpmemd refuses only a leading slash, so ``../x.set`` points outside its pool set
    directory; here both sides refuse that too.

    Parameters
    ----------
    name : str
        A path relative to the pool set directory.

    Returns
    -------
    str
        `name`.

    Raises
    ------
    PoolSetNameRefused
        It is empty, absolute or too long, has a ``..`` component, begins with ``-``, or contains
        spaces or control characters.
    """
    require_name(name)
    shown = _quoted(name, "pool set")
    why, hint = None, "Give a name relative to the target's pool set directory, like pool.set"
    if not name:
        raise PoolSetNameRefused("the name of the pool set is empty", hint=hint)
    if name.startswith("/"):
        why = "the name of the pool set is absolute"
    elif ".." in name.split("/"):
        why = "the name of the pool set points outside the pool set directory"
    elif name.endswith(("/", "/.")) or name == ".":
        why = "the name of the pool set names a directory"
    elif name.startswith("-"):
        why = "the name of the pool set begins with '-' and would be read as an option"
        hint = f"Write ./{printable(name)} if that really is its name"
    elif not name.isprintable() or " " in name:
        why = "the name of the pool set has blanks or non-printing characters"
        hint = "Rename the pool set file"
    elif len(name.encode("utf-8", "surrogateescape")) > _LONGEST_POOL_SET:
        why = f"the name of the pool set is longer than {_LONGEST_POOL_SET} bytes"
        shown = _quoted(name[:40] + "...", "pool set")
    if why is not None:
        raise PoolSetNameRefused(why, where=shown, hint=hint)
    return name


def _split_port(text: str, shown: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise TargetSyntaxError("']' is missing after '['", where=shown, hint=_FORMS)
        if not rest:
            return host, None
        if not rest.startswith(":"):
            raise TargetSyntaxError(f"'{rest}' after ']' is not ':port'", where=shown, hint=_FORMS)
        return host, _port(rest[1:], shown)
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _port(port, shown)


def _port(text: str, shown: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) <= _LARGEST_PORT:
        what = f"'{text}' is not a port" if text else "the port after ':' is empty"
        raise TargetSyntaxError(what, where=shown, hint="Ports are decimal numbers from 1 to 65535")
    return int(text)


def _check_characters(text: str, shown: str) -> None:
    if not text.isprintable() or " " in text:
        raise TargetSyntaxError(
            "a target must not have blanks or non-printing characters",
            where=shown,
            hint=_FORMS,
        )


def _check_user(user: str, shown: str) -> None:
    _check_characters(user, shown)
    if not user:
        raise TargetSyntaxError("the user name is empty", where=shown, hint=_FORMS)
    if user.startswith("-"):
        raise TargetSyntaxError(
            "a user name that begins with '-' would be read as an option of ssh",
            where=shown,
            hint=_OPTIONS,
        )
    if len(user) > _LONGEST_NAME:
        raise TargetSyntaxError("the user name is too long", where=printable(shown, 60))
    bad = next((character for character in user if character in _NOT_IN_USER), None)
    if bad is None and user.endswith("\\"):
        bad = "\\"
    if bad is not None:
        raise TargetSyntaxError(
            f"'{bad}' cannot be part of a user name here",
            where=shown,
            hint="Put the user into ssh_config(5) and give the Host alias as the target",
        )


def _check_host(host: str, shown: str) -> None:
    _check_characters(host, shown)
    if not host:
        raise TargetSyntaxError("the host name is empty", where=shown, hint=_FORMS)
    if host.startswith("-"):
        raise TargetSyntaxError(
            "a host name that begins with '-' would be read as an option of ssh",
            where=shown,
            hint=_OPTIONS,
        )
    if len(host) > _LONGEST_NAME:
        raise TargetSyntaxError("the host name is too long", where=printable(shown, 60))
    if ":" in host:
        _check_ipv6(host, shown)
    elif not _HOST.fullmatch(host):
        bad = next(character for character in host if not _HOST.fullmatch(character))
        raise TargetSyntaxError(f"'{bad}' cannot be part of a host name", where=shown, hint=_FORMS)


def _check_ipv6(host: str, shown: str) -> None:
    from ipaddress import AddressValueError, IPv6Address  # takes 3 ms; seldom needed

    try:
        scope = IPv6Address(host).scope_id
    except AddressValueError as error:
        raise TargetSyntaxError(
            "more than one ':' means an IPv6 address, but this is not one", where=shown, hint=_FORMS
        ) from error
    if scope is not None and not _SCOPE.fullmatch(scope):
        raise TargetSyntaxError(
            f"'{scope}' after '%' is not the name of a network interface", where=shown
        )


def _check_directory(directory: str, shown: str) -> None:
    _check_characters(directory, shown)
    if not directory.startswith("/"):
        raise TargetSyntaxError(
            "the directory of a local target must be absolute", where=shown, hint=_FORMS
        )


def _quoted(text: str, what: str = "target") -> str:
    return f"{what} '{printable(text, 200)}'"
