"""Settings of ssh_config(5) under which ssh carries no protocol: sessions do without, or say so."""

from __future__ import annotations

import shlex

import pytest

import rpmem
from rpmem import Target
from rpmem.base import environment
from rpmem.errors import DeadlineExceeded, LaunchFailed, NoiseBeforeProtocol, RpmemError
from rpmem.launch import openssh
from tests.support.sshd import NODE
from tests.support.targets import Node

SIZE = 2 << 20
IN_THE_WAY = {
    "StdinNull": "StdinNull yes",
    "SessionType none": "SessionType none",
    "SessionType subsystem": "SessionType subsystem",
    "ForkAfterAuthentication": "ForkAfterAuthentication yes",
    "RemoteCommand": "RemoteCommand echo hello",
    "RequestTTY": "RequestTTY force",
    "all of them": "StdinNull yes\nSessionType none\nRemoteCommand echo hello\nRequestTTY yes",
}


@pytest.fixture
def use(sshd, monkeypatch):
    """Use a client configuration with these lines before all others."""

    def choose(lines, *, program="odd_ssh", words=False):
        script = sshd.client(program, more=lines)
        if words:
            config = sshd.directory / f"{program}_config"
            monkeypatch.setenv("RPMEM_SSH", f"ssh -F {shlex.quote(str(config))}")
        else:
            monkeypatch.setenv("RPMEM_SSH", str(script))
        monkeypatch.setenv("HOME", str(sshd.directory / f"{program}_home"))
        environment.current.cache_clear()

    return choose


def create(tmp_path, launcher="openssh", **more):
    node = Node.over_ssh(tmp_path / "node", NODE, launcher, **{"timeout": 20.0, **more})
    replica = node.create(bytearray(SIZE))
    replica.persist(8192, 64)
    replica.close()


@pytest.mark.parametrize("launcher", ["openssh", "paramiko"])
@pytest.mark.parametrize("lines", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_sessions_do_without(use, tmp_path, lines, launcher):
    use(lines, words=True)
    create(tmp_path, launcher)


@pytest.mark.parametrize("launcher", ["openssh", "paramiko"])
def test_a_quiet_local_command_is_left_alone(use, tmp_path, launcher):
    use(f"PermitLocalCommand yes\nLocalCommand touch {tmp_path}/ran", words=True)
    create(tmp_path, launcher)
    assert (tmp_path / "ran").exists() == (launcher == "openssh")


def test_a_local_command_that_prints_is_named(use, tmp_path):
    use("PermitLocalCommand yes\nLocalCommand echo welcome", words=True)
    with pytest.raises(NoiseBeforeProtocol, match="welcome") as caught:
        create(tmp_path)
    assert "LocalCommand 'echo welcome'" in str(caught.value)
    assert "on this side" in str(caught.value)


# --- a wrapper, which nobody asks beforehand ---------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("StdinNull yes", "StdinNull"),
        ("SessionType none", "SessionType 'none'"),
        ("SessionType subsystem", "SessionType 'subsystem'"),
        ("RemoteCommand echo hello", "RemoteCommand"),
        ("PermitLocalCommand yes\nLocalCommand echo welcome", "LocalCommand 'echo welcome'"),
        ("LogLevel QUIET\nProxyCommand false", "LogLevel QUIET"),
    ],
)
def test_behind_a_wrapper_they_are_named(use, tmp_path, lines, named):
    use(lines)
    with pytest.raises(RpmemError) as caught:
        create(tmp_path, timeout=4.0)
    assert named in str(caught.value)


def test_a_silent_node_is_not_blamed_on_this_side(use, tmp_path):
    use("")
    with pytest.raises(DeadlineExceeded) as caught:
        create(tmp_path, timeout=2.0, command="sleep 20 #")
    assert "ssh_config" not in str(caught.value)


# --- what RPMEM_SSH may be ---------------------------------------------------------------------


def test_a_command_with_arguments(use, tmp_path):
    use("", words=True)
    create(tmp_path)


def test_a_program_whose_name_has_blanks(sshd, monkeypatch, tmp_path):
    script = tmp_path / "my own ssh"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(sshd.ssh))} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("RPMEM_SSH", str(script))
    environment.current.cache_clear()
    create(tmp_path)


@pytest.mark.parametrize(
    "program", ["/no/such/ssh", "no-such-ssh", "/no/such/ssh -F file", "/etc/passwd", "/tmp"]
)
def test_nothing_takes_the_place_of_a_program_that_cannot_be_run(sshd, monkeypatch, program):
    monkeypatch.setenv("RPMEM_SSH", program)
    environment.current.cache_clear()
    with pytest.raises(LaunchFailed, match=f"cannot run {program.split()[0]}") as caught:
        rpmem.create(NODE, "a.set", bytearray(SIZE), timeout=20.0)
    assert "RPMEM_SSH" in str(caught.value)


def test_quotes_that_are_not_closed(monkeypatch):
    monkeypatch.setenv("RPMEM_SSH", "ssh -F 'file")
    environment.current.cache_clear()
    with pytest.raises(LaunchFailed, match="RPMEM_SSH is 'ssh -F 'file'"):
        rpmem.create(NODE, "a.set", bytearray(SIZE), timeout=20.0)
    environment.current.cache_clear()


# --- the argument list -------------------------------------------------------------------------


def test_nothing_is_added_where_nothing_is_in_the_way():
    harmless = {"stdinnull": "no", "sessiontype": "default", "hostname": "node2"}
    for settings in (None, {}, harmless):
        assert openssh.arguments_for(["ssh"], Target.parse("node2"), "x", settings=settings) == [
            "ssh", "-T", "-oBatchMode=yes", "node2", "x",
        ]  # fmt: skip


def test_each_is_overridden_by_itself():
    settings = {"stdinnull": "yes", "remotecommand": "none", "sessiontype": "none"}
    assert openssh.arguments_for(["ssh"], Target.parse("node2"), "x", settings=settings)[3:5] == [
        "-oStdinNull=no",
        "-oSessionType=default",
    ]
