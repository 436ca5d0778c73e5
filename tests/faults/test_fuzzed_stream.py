"""Inputs that a fuzzer has found, and damaged ones, for both sides of a lane of sockets.

Before the handshake and after it, encrypted and not; what is wrong is said by
``tests/support/_fuzzed_stream.pyx``. Where clang is installed, libFuzzer goes on from there.
"""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import sys
from contextlib import closing

import pytest

from rpmem.fabric.stream.call import ANSWER, PROOF_SIZE, Call, Caller
from tests.fuzz import CORPUS, SHARES, corpus
from tests.fuzz.build import is_here
from tests.fuzz.run import ROOT
from tests.support import seeds
from tests.support.compiled import compiled
from tests.support.damage import damaged

INPUTS = 20_000


@pytest.mark.parametrize("kind", SHARES)
def test_no_input_does_what_none_may(kind):
    """Those that are kept, and as many damaged ones as the kind has of 20,000."""
    fuzzed = compiled("_fuzzed_stream")
    number = fuzzed.KINDS.index(kind)
    kept = corpus(kind)
    assert kept
    begin = seeds.first(0) * INPUTS
    for data in kept:
        assert fuzzed.feed(number, data) is None, data.hex()
    for seed in range(begin, begin + INPUTS * SHARES[kind] // 100):
        chance = random.Random(seed)
        data = damaged(chance, chance.choice(kept))
        assert fuzzed.feed(number, data) is None, f"seed {seed}: {data.hex()}"


def test_the_corpus_is_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert len(files) < 300
    assert sum(path.stat().st_size for path in files) < 200 << 10


@pytest.mark.skipif(not is_here(), reason="clang with libFuzzer is not here")
@pytest.mark.timeout(900)
def test_coverage_guides_to_nothing_else():
    """Compiled by clang, with sanitizers; a planted fault is found before."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--runs", str(INPUTS)]
    # A nightly part counts its figures itself.
    environment = {k: v for k, v in os.environ.items() if k != "RPMEM_NIGHTLY_FIGURES"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the proof in plain text and its answer, which no compiled code reads -----------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_request_is_forty_bytes_whatever_they_come_in(seed):
    """It waits for fewer, and more than these never are a request."""
    chance = random.Random(seed)
    for _ in range(50):
        size = chance.choice([0, 1, 39, 40, 41, chance.randrange(200)])
        sent = chance.randbytes(size)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with closing(theirs), closing(Caller(ours, ("127.0.0.1", 1))) as caller:
            verdict = None
            while verdict is None and sent:
                count = chance.randrange(1, len(sent) + 1)
                theirs.send(sent[:count])
                sent = sent[count:]
                verdict = caller.read()
            took = len(caller.request)
        if verdict is None:
            assert took == size < PROOF_SIZE
        else:
            assert verdict is (took == PROOF_SIZE)
            assert (caller.data == caller.request) is verdict


@pytest.mark.parametrize("seed", range(20))
def test_only_the_whole_answer_is_one(seed):
    """An initiator that is answered otherwise gives the connection up, or waits for the rest."""
    chance = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for _ in range(5):
            said = damaged(chance, ANSWER + chance.randbytes(chance.randrange(3)))
            call = Call([(socket.AF_INET, listening.getsockname())], bytes(PROOF_SIZE))
            with closing(call), listening.accept()[0] as theirs:
                while not call.proceed() and call.events != select.POLLIN:
                    pass
                theirs.sendall(said)
                theirs.shutdown(socket.SHUT_WR)
                answered = False
                try:
                    while not answered:
                        answered = call.proceed()
                except OSError:
                    pass
            assert answered == said.startswith(ANSWER), said.hex()
