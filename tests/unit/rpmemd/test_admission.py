"""Who gets a lane: by token, or by address where there is nothing better."""

from __future__ import annotations

import pytest

from rpmem.control.proof import new_token, pack_proof
from rpmemd.admission import MOST_LOGGED, PeerAdmission, TokenAdmission
from rpmemd.log import Log


class Lines:
    """A log that remembers."""

    def __init__(self):
        self.lines = []

    def write(self, text):
        self.lines.append(text)

    def flush(self):
        """Do nothing."""


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def log(lines):
    return Log("debug", lines)


UNREADABLE = ["", "nowhere", "node2", "10.0.0", "10.0.0.256", "::g", "%eth0", " 10.0.0.1"]


@pytest.mark.parametrize("peer", [*UNREADABLE, "10.0.0.1"])
@pytest.mark.parametrize("address", UNREADABLE)
def test_an_address_that_cannot_be_read_admits_nobody(log, address, peer):
    """Least of all one that cannot be read either: None is not equal to None here."""
    admission = PeerAdmission(address, 4, log)
    assert admission.admit(b"", (peer, 1)) is None


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("fd00::1", "fd00:0:0::1"),
    ],
)
def test_the_same_address_is_admitted_as_often_as_there_are_lanes(log, address, peer):
    admission = PeerAdmission(address, 3, log)
    assert [admission.admit(b"", (peer, port)) for port in range(5)] == [0, 1, 2, None, None]


@pytest.mark.parametrize("peer", ["10.0.0.2", "::1", "", "::10.0.0.1", "::ffff:10.0.0.2"])
def test_another_address_is_refused_and_takes_no_lane(log, peer):
    admission = PeerAdmission("10.0.0.1", 1, log)
    assert admission.admit(b"", (peer, 1)) is None
    assert admission.admit(b"", ("10.0.0.1", 1)) == 0


def test_strangers_do_not_fill_the_log(log, lines):
    tokens = (new_token(),)
    for admission in (TokenAdmission(tokens, log), PeerAdmission("10.0.0.1", 1, log)):
        lines.lines.clear()
        for port in range(1000):
            assert admission.admit(b"x" * 40, ("10.0.0.2", port)) is None
        said = "".join(lines.lines)
        assert said.count("was refused") == MOST_LOGGED
        assert said.count("not logged") == 1
    assert TokenAdmission(tokens, log).admit(pack_proof(0, tokens[0]), ("10.0.0.2", 1)) == 0


def test_a_token_is_good_once_and_for_its_lane(log):
    tokens = tuple(new_token() for _ in range(3))
    admission = TokenAdmission(tokens, log)
    peer = ("10.0.0.2", 1)
    assert admission.admit(pack_proof(0, tokens[1]), peer) is None
    for lane, token in enumerate(tokens):
        assert admission.admit(pack_proof(lane, token), peer) == lane
        assert admission.admit(pack_proof(lane, token), peer) is None


@pytest.mark.parametrize("at", range(32))
def test_every_byte_of_a_token_counts(log, at):
    token = bytearray(new_token())
    admission = TokenAdmission((bytes(token),), log)
    token[at] ^= 0x80
    assert admission.admit(pack_proof(0, bytes(token)), ("10.0.0.2", 1)) is None
