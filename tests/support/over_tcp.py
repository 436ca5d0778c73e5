"""Targets over TCP, encrypted, without sshd: what would be ssh runs the command on this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.support.targets import Node

_SCRIPT = """\
#!/bin/sh
# The command is the last argument; rpmemd listens on the third word of this.
for word; do command=$word; done
PATH={path}:$PATH SSH_CONNECTION="127.0.0.1 1 127.0.0.1 22" exec /bin/sh -c "exec $command"
"""


def no_ssh(folder: Path) -> Path:
    """Make a program to be named by RPMEM_SSH."""
    script = folder / "no-ssh"
    script.write_text(_SCRIPT.format(path=shlex.quote(str(Path(sys.executable).parent))))
    script.chmod(0o755)
    return script


def node(directory: Path, over: str) -> Node:
    """Return a directory behind a pair of sockets (``pair``), or behind TCP with TLS (``tls``)."""
    if over == "pair":
        return Node.local(directory)
    return Node.over_ssh(directory, "127.0.0.1", "openssh", provider="stream", encryption="on")
