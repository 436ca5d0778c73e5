"""Tokens and keys are nowhere that others can read: no arguments, no environment, no log.

Every process of a session on both sides is looked at while it runs, by way of /proc, and everything
that was logged with all logs at their most talkative.
"""

from __future__ import annotations

import base64
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpmem.errors import ConnectFailed, FabricError, RpmemError
from tests.support import tokens
from tests.support.fabrics import needs_libfabric
from tests.support.sshd import NODE
from tests.support.targets import Node

SIZE = 2 << 20
WHERE = ["local", "openssh", "paramiko"]


def family_of(process):
    """Return a process, its descendants, and its ancestors up to the one that the system began."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    members = {process}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in members} - members
        members |= more
        grown = bool(more)
    while process in parents and parents[process] > 1:
        process = parents[process]
        members.add(process)
    return members


def shown_by(processes):
    """Return what processes show of themselves: their arguments and environments, by file."""
    shown = {}
    for process in processes:
        for name in ("cmdline", "environ", "comm"):
            path = Path(f"/proc/{process}/{name}")
            try:
                shown[str(path)] = path.read_bytes()
            except OSError:
                continue  # gone, or another user's
    return shown


@pytest.fixture
def talkative(tmp_path, set_variable):
    """Everything that can be logged is; returns what was, by file."""
    log = tmp_path / "initiator.log"
    set_variable("RPMEM_LOG_LEVEL", "4")
    set_variable("RPMEM_LOG_FILE", str(log))
    return lambda: {str(path): path.read_bytes() for path in tmp_path.glob("*.log")}


@pytest.fixture
def granted():
    """The tokens that targets grant, by session."""
    with tokens.noted() as sessions:
        yield sessions


def node_for(where, request, tmp_path):
    log = tmp_path / "rpmemd.log"
    options = f"--log-level debug --log-file {log}"
    if where == "local":
        command = f"{sys.executable} -P -m rpmemd {options}"
        return Node.local(tmp_path / "node", command=command)
    request.getfixturevalue("sshd")
    request.getfixturevalue("set_variable")("RPMEM_LOG_LEVEL", "4")
    node = Node.over_ssh(tmp_path / "node", NODE, where)
    node.options["command"] += f" {options}"
    return node


@pytest.mark.parametrize("where", WHERE)
def test_a_session(where, request, tmp_path, talkative, granted, caplog, capfd):
    node = node_for(where, request, tmp_path)
    secrets = []
    if where != "local":
        sshd = request.getfixturevalue("sshd")
        secrets = [
            line.encode()
            for key in (sshd.identity, sshd.host_key)
            for line in key.read_text().splitlines()[2:-1]  # the first says what follows
            if len(line) > 40
        ]
        assert secrets
    with caplog.at_level(logging.DEBUG), node.create(bytearray(SIZE), nlanes=3) as replica:
        replica.persist(8192, 64)
        (granted_here,) = granted
        secrets += granted_here
        assert len({*secrets}) == len(secrets)
        here, there = family_of(os.getpid()), family_of(replica.peer.pid)
        assert replica.peer.pid in there
        shown = shown_by(here | there)
        assert f"/proc/{replica.peer.pid}/environ" in shown
        assert f"/proc/{replica.peer.pid}/cmdline" in shown
        said = replica._channel.transport.stderr_text().encode()
    logs = talkative()
    assert len(logs) == 2
    assert all(logs.values()), "both sides have logged something"
    out, err = capfd.readouterr()
    said = {
        "stderr": said,
        "caplog": caplog.text.encode(),
        "out": out.encode(),
        "err": err.encode(),
    }
    assert tokens.finds(secrets, shown | logs | said) == []


@pytest.mark.parametrize(
    ("where", "provider"),
    [
        # Between a process and its child pairs of sockets need no token.
        pytest.param("local", "tcp", marks=needs_libfabric),
        pytest.param("openssh", "tcp", marks=needs_libfabric),
        ("openssh", "stream"),
        ("paramiko", "stream"),
    ],
)
def test_a_session_that_fails(where, provider, request, tmp_path, talkative, granted, caplog):
    """With another token: what is raised and logged about it does not quote it."""
    node = node_for(where, request, tmp_path)
    with tokens.spoilt(), caplog.at_level(logging.DEBUG), pytest.raises(RpmemError) as caught:
        node.create(bytearray(SIZE), nlanes=3, timeout=10.0, provider=provider)
    assert isinstance(caught.value, FabricError | ConnectFailed)
    secrets = list(granted[0])
    secrets += [token[::-1] for token in secrets]
    raised = "".join(map(str, (caught.value, repr(caught.value), caught.value.__dict__)))
    said = {"error": raised.encode(), "caplog": caplog.text.encode()}
    assert tokens.finds(secrets, talkative() | said) == []


@pytest.mark.parametrize("spell", range(3))
def test_a_secret_that_stands_somewhere_is_found(spell, tmp_path):
    """The control: the search sees what it is to see."""
    secret = os.urandom(32)
    text = [secret.hex(), base64.b64encode(secret).decode(), repr(secret)][spell]
    for arguments, variables in (((text,), {}), ((), {"TOKEN": text})):
        program = "import sys; print(flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
        ) as child:
            # Popen may return before the kernel shows what it was started with.
            child.stdout.readline()
            places = tokens.finds([secret], shown_by(family_of(os.getpid())))
            child.stdin.close()
        assert [place.split("/")[2] for place in places] == [str(child.pid)]
    log = {"log": f"lane 0: {text}".encode()}
    assert tokens.finds([secret], log) == ["log"]
