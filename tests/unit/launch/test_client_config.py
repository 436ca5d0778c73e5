"""ssh_config as the launcher without ssh reads it, with ``ssh -G`` as the judge."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rpmem.base.target import Target
from rpmem.errors import LaunchFailed
from rpmem.launch import client_config
from rpmem.launch.client_config import ClientConfig

pytest.importorskip("paramiko")


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / ".ssh").mkdir(mode=0o700)
    (tmp_path / "etc").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(client_config, "_SYSTEM_DIRECTORY", tmp_path / "etc")
    return tmp_path


@pytest.fixture
def lookup(home):
    def find(target, text="", system=""):
        (home / ".ssh" / "config").write_text(text)
        (home / "etc" / "ssh_config").write_text(system)
        return ClientConfig.lookup(Target.parse(target))

    return find


def test_defaults(lookup, home):
    found = lookup("node2")
    assert (found.alias, found.hostname, found.port, found.user) == ("node2", "node2", 22, None)
    assert found.identity_files == ()
    assert not found.identities_only
    assert found.use_agent
    assert found.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert Path("/etc/ssh/ssh_known_hosts") in found.known_hosts
    assert found.proxy_command is found.proxy_jump is found.connect_timeout is None


def test_everything_that_is_honoured(lookup, home):
    text = """
    Host node2
      HostName 10.0.0.2
      Port 2222
      User alice
      IdentityFile ~/.ssh/a
      IdentityFile %d/b
      IdentitiesOnly yes
      IdentityAgent none
      UserKnownHostsFile ~/known "/with blank/known"
      GlobalKnownHostsFile none
      HostKeyAlias pet
      AddressFamily inet
      ServerAliveInterval 15
      ConnectTimeout 7
    """
    found = lookup("node2", text)
    assert (found.hostname, found.port, found.user) == ("10.0.0.2", 2222, "alice")
    assert found.identity_files == (home / ".ssh" / "a", home / "b")
    assert found.identities_only
    assert not found.use_agent
    assert found.known_hosts == (home / "known", Path("/with blank/known"))
    assert found.host_key_alias == "pet"
    assert found.address_family == "inet"
    assert (found.alive_interval, found.connect_timeout) == (15, 7.0)


def test_the_target_wins_and_is_what_tokens_stand_for(lookup):
    text = "Host *\n User alice\n Port 2222\n ProxyCommand relay %r %h %p\n"
    found = lookup("bob@node2:23", text)
    assert (found.user, found.port) == ("bob", 23)
    assert found.proxy_command == "relay bob node2 23"
    assert lookup("node2", text).proxy_command == "relay alice node2 2222"


def test_the_user_s_file_comes_before_the_system_s(lookup):
    found = lookup("node2", "Host other\n User carol\n", "User alice\nPort 1\n")
    assert found.user == "alice", "a block of the first file must not swallow the second"
    assert lookup("node2", "Port 2\n", "Port 1\n").port == 2


@pytest.mark.parametrize(
    ("text", "command", "jump"),
    [
        ("ProxyJump a,b@c:23", None, "a,b@c:23"),
        ("ProxyJump none", None, None),
        ("ProxyCommand none", None, None),
        ("ProxyCommand nc %h %p", "nc node2 22", None),
    ],
)
def test_proxies(lookup, text, command, jump):
    found = lookup("node2", text)
    assert (found.proxy_command, found.proxy_jump) == (command, jump)


def test_numbers_that_are_none(lookup):
    with pytest.raises(LaunchFailed, match="port is not a number: many"):
        lookup("node2", "Port many")


def test_what_paramiko_does_not_understand_names_the_way_out(lookup):
    with pytest.raises(LaunchFailed, match="RPMEM_LAUNCHER=openssh"):
        lookup("node2", "Match\n  Port 2\n")


@pytest.mark.parametrize("line", ["Include 'a", "UserKnownHostsFile 'a", "Host 'a"])
def test_quotes_that_do_not_end(lookup, line):
    with pytest.raises(LaunchFailed, match=r"ssh.config"):
        lookup("node2", line)


def test_endless_inclusion_ends(lookup):
    assert lookup("node2", "Include config\nPort 3\n").port == 3


INCLUDES = {
    "first": "Include extra\nPort 2222\n",
    "inside": "Host node2\n  Include extra\n  Port 2222\nHost *\n  User eve\n",
    "absent": "Include nowhere\nPort 2222\n",
    "pattern": "Include ext*\nUser eve\n",
}


@pytest.mark.parametrize("name", INCLUDES)
@pytest.mark.parametrize("host", ["node2", "node3"])
def test_includes_as_ssh_sees_them(lookup, home, name, host):
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    extra = home / ".ssh" / "extra"
    extra.write_text("Host node2\n  HostName inner\nHost *\n  User alice\n")
    # ssh takes the home directory from the password file, so names are made absolute for it.
    text = INCLUDES[name].replace("Include ", f"Include {home}/.ssh/")
    found = lookup(host, text)
    answer = subprocess.run(
        ["ssh", "-G", "-F", home / ".ssh" / "config", host],
        capture_output=True,
        text=True,
        check=True,
    )
    said = dict(line.split(" ", 1) for line in answer.stdout.splitlines() if " " in line)
    assert found.hostname == said["hostname"]
    assert str(found.port) == said["port"]
    if found.user is not None:
        assert found.user == said["user"]
