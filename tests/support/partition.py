"""A target in a network namespace of its own, which can be cut off from this one.

While it is cut off, what either side sends is lost without a word, as behind a switch that died. It
needs root, and a kernel with network namespaces and virtual Ethernet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

from rpmem.base.handles import Closing
from tests.support.sshd import Sshd

_IP = "/usr/sbin/ip"


class NoNamespaces(Exception):
    """There can be no network namespace here; the text says why."""


class Node(Closing):
    """A network namespace with an ssh server, joined to this one by a link.

    Parameters
    ----------
    directory : Path
        Empty; for the server.
    number : int
        Of those of this process, below 60.

    Attributes
    ----------
    sshd : Sshd
        The server.
    """

    def __init__(self, directory: Path, number: int = 0) -> None:
        if os.getuid() or not shutil.which(_IP):
            raise NoNamespaces("network namespaces need root and iproute2")
        # One process of many: names and addresses are by its number.
        self._name = f"rpmem-{os.getpid()}-{number}"
        self._link = f"rv{os.getpid() % 10**7}-{number}"
        third, fourth = os.getpid() % 250, 4 * number
        here, there = (f"10.213.{third}.{fourth + each}" for each in (1, 2))
        self._cut = False
        self._ip("netns", "add", self._name)
        self.sshd = Sshd(directory, address=there, within=(_IP, "netns", "exec", self._name))
        try:
            peer = ("type", "veth", "peer", "name", "to-host", "netns", self._name)
            self._ip("link", "add", self._link, *peer)
            self._ip("addr", "add", f"{here}/30", "dev", self._link)
            self._ip("link", "set", self._link, "up")
            self._ip("-n", self._name, "addr", "add", f"{there}/30", "dev", "to-host")
            for each in ("lo", "to-host"):
                self._ip("-n", self._name, "link", "set", each, "up")
            self.sshd.start()
            self.sshd.install_rpmemd()
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        """Lose everything that is sent from now on."""
        self._cut = True
        self._ip("-n", self._name, "link", "set", "to-host", "down")

    def heal(self) -> None:
        """Let it through again."""
        if self._cut:
            self._ip("-n", self._name, "link", "set", "to-host", "up")
            self._cut = False

    def close(self) -> None:
        """End the server and remove the namespace."""
        self.heal()
        self.sshd.stop()
        self._ip("netns", "del", self._name)

    def __enter__(self) -> Self:
        return self

    def _leave(self) -> None:
        self.close()

    def _ip(self, *words: str) -> None:
        done = subprocess.run([_IP, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoNamespaces(f"ip {' '.join(words)}: {done.stderr.strip()}")
