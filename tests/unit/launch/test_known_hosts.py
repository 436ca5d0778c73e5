"""known_hosts files, with ssh-keygen as the judge of who is meant."""

from __future__ import annotations

import base64
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rpmem.launch.known_hosts import KnownHosts

KIND = "ssh-ed25519"


def blob(number=0):
    # The form of a real key, as ssh-keygen looks inside.
    return b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32


def line(hosts, number=0, marker="", kind=KIND):
    return f"{marker} {hosts} {kind} {base64.b64encode(blob(number)).decode()} comment\n".lstrip()


@pytest.fixture
def known(tmp_path):
    def write(*lines):
        path = tmp_path / "known_hosts"
        path.write_text("".join(lines))
        return KnownHosts([tmp_path / "absent", path])

    return write


@pytest.mark.parametrize(
    ("hosts", "host", "port", "verdict"),
    [
        ("node2", "node2", 22, "known"),
        ("node2", "NODE2", 22, "known"),
        ("node2", "node22", 22, "unknown"),
        ("node1,node2", "node2", 22, "known"),
        ("*.example.com", "a.example.com", 22, "known"),
        ("*.example.com", "example.com", 22, "unknown"),
        ("node?", "node2", 22, "known"),
        ("*,!node2", "node2", 22, "unknown"),
        ("*,!node2", "node3", 22, "known"),
        ("[node2]:2222", "node2", 2222, "known"),
        ("[node2]:2222", "node2", 2223, "unknown"),
        ("[node2]:2222", "node2", 22, "unknown"),
        ("node2", "node2", 2222, "known"),
        ("[node2]:2222", "n", 2222, "unknown"),
        ("[*.example.com]:2222", "a.example.com", 2222, "known"),
        ("fe80::1", "fe80::1", 22, "known"),
        ("[fe80::1]:22222", "fe80::1", 22222, "known"),
    ],
)
def test_who_is_meant(known, hosts, host, port, verdict):
    assert known(line(hosts)).check(host, port, KIND, blob())[0] == verdict


def test_another_key_of_that_kind_is_a_change_and_of_another_kind_is_not(known):
    keys = known("# a comment\n", "\n", line("node2", 1))
    verdict, source = keys.check("node2", 22, KIND, blob(2))
    assert verdict == "changed"
    assert source.endswith("known_hosts:3")
    assert keys.check("node2", 22, "ssh-rsa", blob(2)) == ("unknown", "")


def test_any_of_several_keys_is_good(known):
    keys = known(line("node2", 1), line("node2", 2), line("node2", 3, kind="ssh-rsa"))
    assert keys.check("node2", 22, KIND, blob(2))[0] == "known"
    assert keys.kinds("node2", 22) == [KIND, "ssh-rsa"]
    assert keys.kinds("node3", 22) == []


def test_a_key_of_the_port_hides_the_host_s(known):
    keys = known(line("node2", 1), line("[node2]:2222", 2))
    assert keys.check("node2", 2222, KIND, blob(1))[0] == "changed"
    assert keys.check("node2", 2222, KIND, blob(2))[0] == "known"


def test_revoked_wins_wherever_it_stands(known):
    keys = known(line("node2", 1), line("*", 1, "@revoked"))
    assert keys.check("node2", 22, KIND, blob(1))[0] == "revoked"
    assert keys.check("node2", 22, KIND, blob(2))[0] == "changed"


def test_a_certificate_authority_is_no_host_key(known):
    keys = known(line("*", 1, "@cert-authority"))
    assert keys.check("node2", 22, KIND, blob(1))[0] == "unknown"


@pytest.mark.parametrize(
    "text",
    ["node2\n", "node2 ssh-rsa\n", "node2 ssh-rsa !!!\n", "|1|x|y ssh-rsa AAAA\n", "|1| a AA==\n"],
)
def test_lines_that_make_no_sense_are_passed_over(known, text):
    assert known(text, line("node2")).check("node2", 22, KIND, blob())[0] == "known"


names = st.text("ab.*?!,", min_size=1, max_size=6)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hosts=names, host=st.text("ab.", min_size=1, max_size=4))
def test_ssh_keygen_means_the_same_hosts(tmp_path, hosts, host):
    path = tmp_path / "known_hosts"
    path.write_text(line(hosts))
    answer = subprocess.run(
        ["ssh-keygen", "-F", host, "-f", path], capture_output=True, check=False
    )
    ours = KnownHosts([path]).check(host, 22, KIND, blob())[0]
    assert (ours == "known") == (answer.returncode == 0)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")
def test_names_hashed_by_ssh_keygen(tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text(line("node2", 1) + line("[node3]:2222", 2))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert "node" not in path.read_text()
    keys = KnownHosts([path])
    assert keys.check("node2", 22, KIND, blob(1))[0] == "known"
    assert keys.check("node3", 2222, KIND, blob(2))[0] == "known"
    assert keys.check("node4", 22, KIND, blob(1))[0] == "unknown"
