"""Known host keys, by the rules of sshd(8) under "SSH_KNOWN_HOSTS FILE FORMAT".

paramiko reads such files too, but knows neither patterns nor revoked keys, and forgets all but
the first of several keys of one type.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_DEFAULT_PORT = 22

#: What is known about a key that a host has presented.
Verdict = Literal["known", "unknown", "changed", "revoked"]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """One line: a key and the hosts it belongs to.

    Parameters
    ----------
    hosts : str
        Comma-separated patterns, or a hashed name.
    kind : str
        Type of the key, like ``ssh-ed25519``.
    blob : bytes
        The public key.
    revoked : bool
        Whether the key must never be accepted.
    source : str
        File and line.
    """

    hosts: str
    kind: str
    blob: bytes
    revoked: bool
    source: str

    def covers(self, name: str) -> bool:
        """Return whether the line applies to the host called `name`."""
        if self.hosts.startswith("|1|"):
            return _hash_matches(self.hosts, name)
        found = False
        for pattern in self.hosts.split(","):
            if _pattern_matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


class KnownHosts:
    """The keys in some files; missing and unreadable files contain none.

    Parameters
    ----------
    paths : iterable of Path
        In the order in which they are searched.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._keys = [key for path in paths for key in _read(path)]

    def kinds(self, host: str, port: int) -> list[str]:
        """Return the types of the keys that are valid for a host, without repetition."""
        return list(dict.fromkeys(key.kind for key in self._good(host, port)))

    def check(self, host: str, port: int, kind: str, blob: bytes) -> tuple[Verdict, str]:
        """Judge a key.

        Parameters
        ----------
        host, port : str, int
            The host that presented it.
        kind, blob : str, bytes
            Its type and content.

        Returns
        -------
        tuple of Verdict and str
            ``"known"``, ``"unknown"``, ``"changed"`` (another key of that type is known) or
            ``"revoked"``, and the file and line responsible.
        """
        for key in self._keys:
            if key.revoked and key.blob == blob:
                return "revoked", key.source
        others = ""
        for key in self._good(host, port):
            if key.blob == blob:
                return "known", key.source
            if key.kind == kind:
                others = others or key.source
        return ("changed", others) if others else ("unknown", "")

    def _good(self, host: str, port: int) -> list[KnownKey]:
        name = host.lower()
        found: list[KnownKey] = []
        if port != _DEFAULT_PORT:
            found = self._covering(f"[{name}]:{port}")
        # As in ssh: a key that is known for the host is valid for its other ports.
        return found or self._covering(name)

    def _covering(self, name: str) -> list[KnownKey]:
        return [key for key in self._keys if not key.revoked and key.covers(name)]


def _read(path: Path) -> Iterator[KnownKey]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        # Certificates of hosts (@cert-authority) are beyond paramiko's client.
        if marker not in ("", "@revoked") or len(words) < 3:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        yield KnownKey(words[0], words[1], blob, bool(marker), f"{path}:{number}")


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in hashed[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _pattern_matches(pattern: str, name: str) -> bool:
    # "*" and "?" are the only wildcards; brackets belong to [host]:port.
    plain = re.sub(r"[][]", lambda bracket: f"[{bracket[0]}]", pattern.lower())
    return fnmatch.fnmatchcase(name, plain)
