"""Whether lanes are encrypted: who decides, what is refused, and what reports say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import rpmem
from tests.support.fabrics import needs_libfabric

SIZE = 1 << 20
ENCRYPTED = "TLS 1.3"
DATA = b"only for the two of us" * 1000


@pytest.fixture
def create(ssh_node):
    """Create a replica over ssh, use it, and return what it says of its encryption."""

    def create(target=ssh_node, **options):
        memory = bytearray(SIZE)
        with rpmem.create(target, "encrypted.set", memory, 2, parts=1, **options) as replica:
            memory[8192 : 8192 + len(DATA)] = DATA
            replica.persist(8192, len(DATA))
            back = bytearray(len(DATA))
            replica.read(back, 8192)
            assert back == DATA
        rpmem.remove(target, "encrypted.set", pool_set=True)
        return replica.encryption

    return create


@pytest.fixture
def configured(sshd):
    """Write rpmemd's configuration file on the target."""
    path = sshd.home / ".rpmemd.conf"
    yield path.write_text
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ENCRYPTED),
        ({"encryption": "off"}, "none: encryption is off"),
        ({"provider": "stream"}, ENCRYPTED),
        ({"provider": "stream", "encryption": "auto"}, ENCRYPTED),
        ({"provider": "stream", "encryption": "on"}, ENCRYPTED),
        ({"encryption": "on"}, ENCRYPTED),
        ({"provider": "stream", "encryption": "off"}, "none: encryption is off"),
        pytest.param({"provider": "tcp"}, "none: tcp cannot", marks=needs_libfabric),
        pytest.param(
            {"provider": "tcp", "encryption": "off"}, "none: tcp cannot", marks=needs_libfabric
        ),
    ],
)
def test_what_is_in_force_over_ssh(create, options, said):
    assert create(**options) == said


@pytest.mark.parametrize("encryption", ["auto", "on", "off"])
def test_nothing_is_encrypted_on_the_way_to_a_child(create, tmp_path, encryption):
    said = create(f"local:{tmp_path}", provider="stream", encryption=encryption)
    assert said == "none: the target is a child process"


@pytest.mark.parametrize("provider", ["tcp", "sockets", "verbs"])
def test_on_refuses_what_cannot_encrypt(ssh_node, provider):
    with pytest.raises(rpmem.EncryptionRefused, match=f"over {provider} cannot") as caught:
        rpmem.create(
            ssh_node, "x.set", bytearray(SIZE), parts=1, provider=provider, encryption="on"
        )
    assert "provider='stream'" in str(caught.value)
    assert ssh_node in str(caught.value)


def test_on_refuses_pmdks_protocol(ssh_node):
    with pytest.raises(rpmem.EncryptionRefused, match="PMDK's protocol"):
        rpmem.create(ssh_node, "x.set", bytearray(SIZE), parts=1, protocol="pmdk", encryption="on")


def test_the_environment_decides_where_the_caller_does_not(create, set_variable):
    set_variable("RPMEM_ENCRYPTION", "off")
    assert create(provider="stream") == "none: encryption is off"
    assert create(provider="stream", encryption="on") == ENCRYPTED
    set_variable("RPMEM_ENCRYPTION", "on")
    assert create() == ENCRYPTED
    with pytest.raises(rpmem.EncryptionRefused):
        create(provider="tcp")


@pytest.mark.parametrize("word", ["maybe", "ON", ""])
def test_there_are_three_words(ssh_node, word):
    with pytest.raises(rpmem.UsageError, match="auto, on, off"):
        rpmem.create(ssh_node, "x.set", bytearray(SIZE), parts=1, encryption=word)


def test_an_administrator_may_require_it(create, configured, tmp_path):
    configured("encryption = required\n")
    assert create(provider="stream") == create() == ENCRYPTED
    for options in ({"provider": "tcp"}, {"provider": "stream", "encryption": "off"}):
        with pytest.raises(rpmem.EncryptionRefused, match="only encrypted lanes"):
            create(**options)
    # What stays on the machine is not concerned.
    assert create(f"local:{tmp_path}", provider="stream").startswith("none")


def test_an_administrator_may_switch_it_off(create, configured):
    configured("encryption = off\n")
    with pytest.raises(rpmem.EncryptionRefused, match="configured not to encrypt"):
        create(provider="stream")
    assert create(provider="stream", encryption="off") == "none: encryption is off"


def test_a_key_behind_a_forced_command_cannot_undo_it(create, sshd, monkeypatch):
    """The client's own options are not obeyed there."""
    folder = sshd.home
    monkeypatch.setenv(
        "RPMEM_CMD",
        f"SSH_ORIGINAL_COMMAND='rpmemd --encryption off' rpmemd --forced-command "
        f"--encryption required --poolset-dir {folder}",
    )
    with pytest.raises(rpmem.RpmemError):
        create(provider="tcp")


def rpmem_command(*words):
    return subprocess.run(
        [sys.executable, "-m", "rpmem.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_libfabric
def test_check_says_that_nothing_is_encrypted(ssh_node):
    said = rpmem_command("check", ssh_node, "--provider", "tcp")
    assert "none: tcp cannot" in said.stdout
    assert "lanes go over tcp: it was asked for" in said.stdout


def test_check_says_what_is_in_force(ssh_node):
    said = rpmem_command("check", ssh_node)
    assert said.returncode == 0, said.stderr
    assert ENCRYPTED in said.stdout
    assert "lanes go over stream: no RDMA device here leads to" in said.stdout
    said = rpmem_command("check", ssh_node, "--provider", "tcp", "--encryption", "on")
    assert said.returncode == 6


def test_pools_report_it_in_json(ssh_node, tmp_path):
    replica = f"{ssh_node} reported.set"
    pool = tmp_path / "pool"
    with rpmem.Pool.create(pool, "16MiB", replica, parts=1, provider="stream") as made:
        assert [each.encryption for each in made.replicas] == [ENCRYPTED]
    said = rpmem_command("sync", pool, ssh_node, "reported.set", "--provider", "stream", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["replicas"][0]["encryption"] == ENCRYPTED
    rpmem.remove(ssh_node, "reported.set", pool_set=True)


CREATE = """
import os, sys, rpmem
target, command, encryption = sys.argv[1:]
try:
    rpmem.create(
        target, "lacking.set", bytearray(1 << 20), parts=1, provider="stream",
        command=command or None, encryption=encryption,
    ).close()
except rpmem.MissingExtension as error:
    print(error)
else:
    rpmem.remove(target, "lacking.set", pool_set=True)
    print("unencrypted")
"""
LACKING = "RPMEM_LIBRARIES", "libssl=none"


@pytest.mark.parametrize("lacking", ["here", "there"])
def test_lanes_are_not_left_unencrypted_where_libssl_is_missing(ssh_node, set_variable, lacking):
    """Neither side takes its absence for a wish; both name the package."""
    command = ""
    if lacking == "here":
        set_variable(*LACKING)
    else:
        command = f"{'='.join(LACKING)} {sys.executable} -m rpmemd"

    def said(encryption):
        words = [sys.executable, "-c", CREATE, ssh_node, command, encryption]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout

    for encryption in ("auto", "on"):
        (line,) = said(encryption).splitlines()
        assert "libssl.so.3 is not used: RPMEM_LIBRARIES says so" in line
        assert "apt-get install libssl3); encryption='off' goes without" in line
        assert (ssh_node in line) == (lacking == "there")
    assert said("off") == "unencrypted\n"
