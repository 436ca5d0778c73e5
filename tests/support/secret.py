"""Both ends of encrypted lanes, someone between them, and OpenSSL's own programs as strangers."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from rpmem.control.proof import pack_proof
from tests.support.pair import LISTENING, Pair

#: What someone in the middle makes of a piece: (to the target?, number of the piece, the piece).
Meddling = Callable[[bool, int, bytes], list[bytes]]

_RECORD_HEADER = 5


class SecretPair(Pair):
    """A served region and what connects to it, encrypted."""

    def __init__(self, **options: Any) -> None:
        super().__init__(provider="stream", **options)
        self.nonce = os.urandom(16)
        self.server.fabric.secure(
            self.nonce, [pack_proof(*each) for each in enumerate(self.tokens)]
        )
        self.ready = self.ready.replaced(nonce=self.nonce)

    def identity(self, lane: int = 0) -> str:
        """Return what a client of a lane calls itself."""
        return f"rpmem1 {self.nonce.hex()} {lane}"


@contextmanager
def secret_pair(**options: Any) -> Iterator[SecretPair]:
    """Return one that serves, and is closed again."""
    made = SecretPair(**options)
    try:
        made.serve()
        yield made
    finally:
        made.close()


class Records:
    """Cuts a stream of TLS into its records."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the records that are whole now."""
        self._rest += data
        while len(self._rest) >= _RECORD_HEADER:
            end = _RECORD_HEADER + int.from_bytes(self._rest[3:5], "big")
            if len(self._rest) < end:
                return
            record, self._rest = self._rest[:end], self._rest[end:]
            yield record


class Middle:
    """Someone between the two sides, who passes records on as a test wants.

    Parameters
    ----------
    port : int
        The target's.
    meddle : callable
        See `Meddling`.

    Attributes
    ----------
    port : int
        Where the initiator has to go.
    seen : bytearray
        Everything that passed.
    """

    def __init__(self, port: int, meddle: Meddling = lambda up, number, piece: [piece]) -> None:
        self._target = port
        self._meddle = meddle
        self.seen = bytearray()
        self._listening = socket.create_server((LISTENING, 0))
        self.port = self._listening.getsockname()[1]
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Middle:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        self._listening.close()

    def _run(self) -> None:
        ways: dict[socket.socket, tuple[bool, socket.socket, Records, list[int]]] = {}
        while True:
            ready, _, _ = select.select([self._stop, self._listening, *ways], [], [])
            if self._stop in ready:
                break
            for each in ready:
                if each is self._listening:
                    near, _ = self._listening.accept()
                    far = socket.create_connection((LISTENING, self._target))
                    ways[near] = (True, far, Records(), [0])
                    ways[far] = (False, near, Records(), [0])
                elif each in ways:
                    self._pass(each, ways)
        for each in ways:
            each.close()

    def _pass(self, each: socket.socket, ways: dict[socket.socket, Any]) -> None:
        up, other, records, count = ways[each]
        data = b""
        with suppress(OSError):
            data = each.recv(1 << 16)
        self.seen += data
        with suppress(OSError):
            for record in records.feed(data):
                for piece in self._meddle(up, count[0], record):
                    other.sendall(piece)
                count[0] += 1
        if not data:
            for gone in (each, other):
                ways.pop(gone, None)
                gone.close()


def openssl() -> str:
    """Return the program, or skip the test."""
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("there is no program openssl")
    return found


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate that nobody vouches for, and its key."""
    made, key = folder / "cert.pem", folder / "key.pem"
    words = [openssl(), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    words += ["-nodes", "-subj", "/CN=127.0.0.1", "-days", "2", "-keyout", str(key)]
    subprocess.run([*words, "-out", str(made)], check=True, capture_output=True, timeout=30)
    return made, key


def client(port: int, *words: str, patience_s: float = 5.0) -> str:
    """Run ``openssl s_client`` until the target answers or hangs up; return what it printed."""
    command = [openssl(), "s_client", "-connect", f"{LISTENING}:{port}", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        return _until_answer(process, patience_s).decode("latin-1")
    finally:
        process.kill()
        process.wait()


def _until_answer(process: subprocess.Popen[bytes], patience_s: float) -> bytes:
    assert process.stdout is not None
    said = b""
    while b"RPMA" not in said:
        if not select.select([process.stdout], [], [], patience_s)[0]:
            break
        more = os.read(process.stdout.fileno(), 1 << 16)
        if not more:
            break
        said += more
    return said


@contextmanager
def server(*words: str) -> Iterator[tuple[int, Callable[[], str]]]:
    """Run ``openssl s_server``; return its port, and what it has printed so far."""
    with socket.create_server((LISTENING, 0)) as probe:
        port = probe.getsockname()[1]
    command = [openssl(), "s_server", "-accept", f"{LISTENING}:{port}", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said = bytearray()

    def read() -> None:
        assert process.stdout is not None
        while more := os.read(process.stdout.fileno(), 1 << 16):
            said.extend(more)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while b"ACCEPT" not in said:
            assert process.poll() is None, said.decode()
            time.sleep(0.01)
        yield port, lambda: said.decode("latin-1")
    finally:
        process.kill()
        process.wait()
        reader.join()
