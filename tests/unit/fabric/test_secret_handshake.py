"""The handshake of an encrypted lane, and the bytes behind it, over a pair of sockets."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import suppress

import pytest

from rpmem.fabric.stream.handshake import Handshake
from rpmem.fabric.stream.keyring import Keyring
from tests.support.preload import run_with
from tests.support.secret import Records, certificate

NONCE = os.urandom(16)
TOKENS = [os.urandom(32) for _ in range(3)]
PATIENCE_S = 10.0


@pytest.fixture
def ends():
    made = socket.socketpair()
    for each in made:
        each.setblocking(False)
    yield made
    for each in made:
        each.close()


def ring(nonce=NONCE, tokens=TOKENS):
    return Keyring(nonce, tokens)


def outcome(handshake):
    """Take a step: whether it is done, or the error."""
    try:
        return handshake.proceed()
    except OSError as error:
        return error


def shaken(one, other):
    """Let both go on until they are done or one has failed; return both outcomes."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = outcome(one), outcome(other)
        if all(found) or any(isinstance(each, OSError) for each in found):
            return found
    raise AssertionError("the handshake does not end")


def established(ends, lane=1, **options):
    client = Handshake(ends[0].fileno(), ring(), lane, **options)
    server = Handshake(ends[1].fileno(), ring(), **options)
    assert shaken(client, server) == (True, True)
    return client, server


def pushed(sender, data):
    """Send all of it; the socket has room."""
    while data:
        data = data[sender.send(data) :]


def pulled(receiver, count):
    found = b""
    end = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < end:
        found += receiver.receive(count - len(found))
    return found


def test_both_have_the_key_and_the_target_learns_the_lane(ends):
    client, server = established(ends, lane=2)
    assert (client.lane, server.lane) == (2, 2)
    assert client.done
    assert server.done
    pushed(client, b"ping")
    assert pulled(server, 4) == b"ping"
    pushed(server, b"pong")
    assert pulled(client, 4) == b"pong"
    assert client.receive(10) == b""


_OTHERWISE = """
import os, socket, sys
from rpmem.fabric.stream.handshake import Handshake
from tests.unit.fabric.test_secret_handshake import outcome, ring, shaken
client_first = sys.argv[1] == "True"
ends = socket.socketpair()
for each in ends:
    each.setblocking(False)
client, server = Handshake(ends[0].fileno(), ring(), 1), Handshake(ends[1].fileno(), ring())
if not client_first:
    assert server.proceed() is False
shaken(client, server)
for side in (client, server):
    error = outcome(side)
    assert isinstance(error, OSError) and not side.done, (error, side.done)
    print(error.errno)
    try:
        side.send(b"more")
    except ValueError:
        continue
    raise AssertionError("it sends")
"""


@pytest.mark.parametrize(
    ("function", "says", "number"),
    [("SSL_session_reused", 0, errno.EACCES), ("SSL_version", 0x0303, errno.EPROTO)],
    ids=["without the key", "an earlier TLS"],
)
@pytest.mark.parametrize("client_first", [True, False])
def test_both_sides_ask_what_the_handshake_came_to(
    tmp_path, monkeypatch, function, says, number, client_first
):
    """The rules that stand behind all others, so that no peer can reach them: OpenSSL is asked."""
    monkeypatch.setenv("RPMEM_LIBRARIES", f"libssl={otherwise(tmp_path, function, says)}")
    said = run_with(None, _OTHERWISE, client_first)
    assert list(map(int, said.split())) == [number, number]


def otherwise(folder, function, says):
    """Return OpenSSL's library, except for what one of its functions says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no compiler here")
    source, versions, library = (folder / f"otherwise.{end}" for end in ("c", "map", "so"))
    source.write_text(f"int {function}(const void *ssl) {{ (void)ssl; return {says}; }}\n")
    versions.write_text(f"OPENSSL_3.0.0 {{ global: {function}; local: *; }};\n")
    options = ["-shared", "-fPIC", f"-Wl,--version-script={versions}", "-Wl,--no-as-needed"]
    words = [compiler, *options, "-o", library, source, "-l:libssl.so.3"]
    subprocess.run(words, check=True, timeout=60)
    return library


@pytest.mark.parametrize("renew_every", [0, 7])
@pytest.mark.parametrize("seed", range(3))
def test_every_byte_arrives_once_and_in_order(ends, seed, renew_every):
    """Pieces of all sizes, a receiver that takes little, and a socket with little room."""
    chance = random.Random(seed)
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, chance.choice([4608, 1 << 16, 1 << 20]))
    client, server = established(ends, renew_every=renew_every)
    wanted, sent, got = b"", 0, b""
    partly = False
    while len(got) < 3_000_000:
        if sent == len(wanted) and len(wanted) < 3_000_000:
            size = chance.choice([16, 40, 4096, 16383, 16384, 16385, 65576, 300_000])
            wanted += chance.randbytes(size)
        if sent < len(wanted):
            piece = wanted[sent : sent + (1 << 20)]
            taken = client.send(piece)
            assert 0 <= taken <= len(piece)
            partly |= 0 < taken < len(piece)
            sent += taken
        got += server.receive(chance.choice([1, 100, 16384, 70_000]))
        assert wanted.startswith(got[-70_000:], len(got) - min(len(got), 70_000))
    assert got == wanted[: len(got)]
    assert partly, "the socket was never full"
    assert (client.renewals > 20) == bool(renew_every)


def test_keys_are_renewed_a_thousand_times_while_both_windows_are_full(ends):
    """Each side sends until nothing is taken any more before the other reads anything."""
    client, server = established(ends, renew_every=2)
    chance = random.Random(5)
    ways = [(client, server, bytearray(), bytearray()), (server, client, bytearray(), bytearray())]
    rests = {id(client): b"", id(server): b""}
    rounds = 0
    while min(client.renewals, server.renewals) < 1000:
        rounds += 1
        for sender, _, sent, _ in ways:
            while True:
                piece = rests[id(sender)] or chance.randbytes(chance.choice([40, 5000, 40_000]))
                taken = sender.send(piece)
                sent += piece[:taken]
                rests[id(sender)] = piece[taken:]
                if taken < len(piece):
                    break  # full
        for _, receiver, _, got in ways:
            while found := receiver.receive(1 << 20):
                got += found
    assert rounds > 10
    for sender, receiver, sent, got in ways:
        rest = rests[id(sender)]
        while rest:
            taken = sender.send(rest)
            sent += rest[:taken]
            rest = rest[taken:]
            got += receiver.receive(1 << 20)
        while len(got) < len(sent):
            got += receiver.receive(1 << 20)
        assert got == sent


@pytest.mark.parametrize(
    "theirs",
    [
        lambda: ring(tokens=[os.urandom(32) for _ in TOKENS]),
        lambda: ring(nonce=os.urandom(16)),
        lambda: ring(tokens=TOKENS[::-1]),
        lambda: ring(tokens=TOKENS[:1]),
    ],
    ids=["other keys", "another session", "another lane's key", "no such lane"],
)
def test_who_has_not_the_key_is_refused(ends, theirs):
    lane = 2
    client = Handshake(ends[0].fileno(), ring(), lane)
    server = Handshake(ends[1].fileno(), theirs())
    found = shaken(client, server)
    assert isinstance(found[1], OSError)
    assert not server.done
    assert isinstance(outcome(client), OSError) or not client.done
    with pytest.raises(ValueError, match="not done"):
        server.send(b"the pool")


@pytest.mark.parametrize("key", [TOKENS[1], bytes(32)], ids=["it", "what is left in its place"])
def test_a_key_that_was_spent_opens_nothing(ends, key):
    keys = ring()
    assert keys.spend(1) == TOKENS[1]
    assert keys.spend(1) is None
    server = Handshake(ends[1].fileno(), keys)
    client = Handshake(ends[0].fileno(), ring(tokens=[key] * 2), 1)
    found = shaken(client, server)
    assert isinstance(found[1], OSError)


def test_several_may_begin_with_one_key(ends):
    """Nothing is spent by a beginning: who has seen one may repeat it and delays nobody."""
    keys = ring()
    others = [socket.socketpair() for _ in range(3)]
    for one, other in others:
        one.setblocking(False)
        other.setblocking(False)
    half_open = []
    for one, other in others:
        assert Handshake(one.fileno(), ring(), 1).proceed() is False
        server = Handshake(other.fileno(), keys)
        assert server.proceed() is False
        half_open.append(server)
    assert shaken(Handshake(ends[0].fileno(), ring(), 1), Handshake(ends[1].fileno(), keys)) == (
        True,
        True,
    )
    assert keys.spend(1) == TOKENS[1]
    for pair in others:
        for each in pair:
            each.close()


def server_with(folder, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_server_with_a_certificate_is_refused(ends, tmp_path, version):
    """A client with a key would accept it, if it did not verify certificates and trust none."""
    context = server_with(tmp_path, version)
    stranger = context.wrap_socket(
        ends[1], server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
    )
    client = Handshake(ends[0].fileno(), ring(), 1)
    failed = None
    for _ in range(20):
        with suppress(ssl.SSLError, OSError):
            stranger.do_handshake()
        failed = outcome(client)
        if isinstance(failed, OSError):
            break
    assert isinstance(failed, OSError)
    if version == ssl.TLSVersion.TLSv1_3:
        assert "certificate verify failed" in str(failed)
    assert not client.done
    stranger.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_client_without_a_key_is_refused(ends, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    stranger = context.wrap_socket(ends[0], do_handshake_on_connect=False)
    with pytest.raises(ssl.SSLWantReadError):
        stranger.do_handshake()
    server = Handshake(ends[1].fileno(), ring())
    assert isinstance(outcome(server), OSError)
    with pytest.raises(ssl.SSLError):
        stranger.do_handshake()
    stranger.close()


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\xff\xff" + bytes(40),
        b"GET / HTTP/1.1\r\n\r\n",
        b"RPML" + bytes(36),
        bytes(200),
    ],
)
def test_bytes_that_are_no_handshake_are_refused(ends, noise):
    ends[0].sendall(noise)
    assert isinstance(outcome(Handshake(ends[1].fileno(), ring())), OSError)


def test_a_handshake_that_is_cut_off_ends_with_it(ends):
    server = Handshake(ends[1].fileno(), ring())
    assert Handshake(ends[0].fileno(), ring(), 1).proceed() is False
    assert server.proceed() is False
    ends[0].shutdown(socket.SHUT_WR)
    assert isinstance(outcome(server), OSError)


def meddled(ends, change):
    """Establish a connection, send through `change` what was taken off the wire."""
    client, server = established(ends)
    records = []
    for index in range(4):
        pushed(client, bytes([65 + index]) * 100)
        records += Records().feed(ends[1].recv(1 << 16))
    assert len(records) == 4
    there = socket.socketpair()
    for record in change(records):
        ends[0].sendall(record)
    for each in there:
        each.close()
    return server


@pytest.mark.parametrize(
    ("change", "good"),
    [
        (lambda r: r, 400),
        (lambda r: [r[0], r[2], r[3]], 100),
        (lambda r: [r[0], r[0], r[1]], 100),
        (lambda r: [r[1], r[0]], 0),
        (lambda r: [r[0], r[1][:-1] + bytes([r[1][-1] ^ 1])], 100),
        (lambda r: [r[0], r[1][:7] + bytes([r[1][7] ^ 128]) + r[1][8:]], 100),
        (lambda r: [r[0], b"\x17\x03\x03\x00\x20" + bytes(32)], 100),
        (lambda r: [r[0], b"\x17\x03\x03\xff\xff" + bytes(70_000)], 100),
        (lambda r: [r[0], b"\x15\x03\x03\x00\x02\x01\x00"], 100),
    ],
    ids=[
        *("untouched", "dropped", "replayed", "reordered", "changed at the end", "changed"),
        *("made up", "too long", "an alert in plain text"),
    ],
)
def test_what_is_changed_on_the_way_ends_the_connection(ends, change, good):
    server = meddled(ends, change)
    found = b""
    error = None
    for _ in range(10):
        try:
            found += server.receive(1000)
        except OSError as problem:
            error = problem
    assert found == b"".join(bytes([65 + index]) * 100 for index in range(4))[:good]
    assert (error is None) == (good == 400)
    if error is not None:
        assert error.errno in (errno.EBADMSG, errno.EPIPE)
        with pytest.raises(OSError, match=error.strerror):
            server.receive(10)


def test_half_a_record_is_waited_for_without_a_word(ends):
    client, server = established(ends)
    pushed(client, b"a whole record")
    record = ends[1].recv(1 << 16)
    for end in range(1, len(record)):
        ends[0].sendall(record[end - 1 : end])
        assert server.receive(100) == b""
    ends[0].sendall(record[-1:])
    assert server.receive(100) == b"a whole record"


def test_what_is_seen_tells_neither_the_key_nor_the_bytes(ends):
    """The identity is in plain text, so it must not come from the key."""
    client = Handshake(ends[0].fileno(), ring(), 1)
    assert client.proceed() is False
    hello = ends[1].recv(1 << 16, socket.MSG_PEEK)
    assert b"rpmem1 " + NONCE.hex().encode() + b" 1" in hello
    assert shaken(client, Handshake(ends[1].fileno(), ring())) == (True, True)
    secret = b"what nobody else may read" * 100
    pushed(client, secret)
    seen = hello + ends[1].recv(1 << 20)
    assert secret[:25] not in seen
    for token in TOKENS:
        for start in range(0, 32, 8):
            assert token[start : start + 8] not in seen


def extensions_of(hello):
    """Return what a ClientHello in one record offers: cipher suites, and extensions by number."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    length = int.from_bytes(hello[at : at + 2], "big")
    suites = hello[at + 2 : at + 2 + length]
    at += 2 + length
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = {}
    while at < end:
        kind, length = (int.from_bytes(hello[at + i : at + i + 2], "big") for i in (0, 2))
        found[kind] = hello[at + 4 : at + 4 + length]
        at += 4 + length
    return suites, found


def test_a_client_offers_nothing_else(ends):
    """TLS 1.3 only, a fresh key exchange beside the key, no ticket and no early data."""
    assert Handshake(ends[0].fileno(), ring(), 1).proceed() is False
    suites, found = extensions_of(ends[1].recv(1 << 16))
    ticket, early_data, versions, modes, key_share, own_key = 35, 42, 43, 45, 51, 41
    assert suites.replace(b"\x00\xff", b"") == b"\x13\x01"
    assert found[versions] == b"\x02\x03\x04"
    assert found[modes] == b"\x01\x01"
    assert found[key_share]
    assert list(found)[-1] == own_key
    assert not {ticket, early_data} & set(found)


def test_a_server_gives_no_ticket(ends):
    """After the handshake nothing comes that nobody sent."""
    client, server = established(ends)
    with pytest.raises(BlockingIOError):
        ends[0].recv(1)
    pushed(server, b"x")
    assert pulled(client, 1) == b"x"


def test_a_close_is_told_and_a_loss_is_noticed(ends):
    _client, server = established(ends)
    ends[0].close()
    with pytest.raises(OSError, match=os.strerror(errno.EPIPE)):
        server.receive(1)
    with pytest.raises(OSError, match=os.strerror(errno.EPIPE)):
        server.send(b"more")


@pytest.mark.parametrize(
    ("nonce", "tokens"), [(b"short", TOKENS), (NONCE, [b"short"])], ids=["nonce", "token"]
)
def test_keys_have_their_length(nonce, tokens):
    with pytest.raises(ValueError, match="16 bytes"):
        Keyring(nonce, tokens)
