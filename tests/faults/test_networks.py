"""A network that is cut between two machines: nothing arrives any more, and nobody says so."""

from __future__ import annotations

import threading
import time

import pytest

import rpmem
from rpmem.base import environment
from tests.support.media import wait_unlocked
from tests.support.partition import Node, NoNamespaces
from tests.support.sshd import NODE, SshdAbsent

LANES = 4
TIMEOUT_S = 3.0
PART = 512
#: Keep-alive ends lanes after 30 s, rpmemd the session 10 s later.
GONE_S = 60.0


@pytest.fixture
def node(tmp_path, monkeypatch):
    for each in ("sshd", "sets"):
        (tmp_path / each).mkdir()
    try:
        made = Node(tmp_path / "sshd")
    except (NoNamespaces, SshdAbsent) as absent:
        pytest.skip(str(absent))
    with made:
        monkeypatch.setenv("RPMEM_SSH", str(made.sshd.ssh))
        environment.current.cache_clear()
        made.sshd.install_rpmemd(options=f"--poolset-dir {tmp_path / 'sets'}")
        yield made
    environment.current.cache_clear()


SESSION = {
    "provider": "stream",
    "nlanes": LANES,
    "timeout": TIMEOUT_S,
    "launcher": "openssh",
}


def test_all_that_wait_are_woken_in_time_and_told_why(node, tmp_path):
    pool = rpmem.Pool.create(tmp_path / "pool", "16MiB", f"{NODE} a.set", parts=1, **SESSION)
    array = pool.array("a", LANES * PART, "u8")
    pool.persist()
    woken = []

    def work(part):
        began = time.monotonic()
        try:
            while True:
                part += 1
                began = time.monotonic()
                pool.persist(part)
        except rpmem.RpmemError as error:
            # Not the error: it holds on to the view.
            woken.append((time.monotonic() - began, type(error), str(error)))

    threads = [
        threading.Thread(target=work, args=(array[k * PART : (k + 1) * PART],))
        for k in range(LANES)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    node.cut()
    for thread in threads:
        thread.join(10 * TIMEOUT_S)
    threads.clear()
    assert len(woken) == LANES
    for took, kind, text in woken:
        assert took < 3 * TIMEOUT_S
        assert issubclass(kind, rpmem.DeadlineExceeded | rpmem.ReplicaLost)
        assert NODE in text
    del thread
    node.heal()
    del array
    pool.close()
    wait_unlocked(tmp_path / "sets" / "a.set", GONE_S)
    with rpmem.Pool.open(tmp_path / "pool", f"{NODE} a.set", **SESSION) as again:
        assert (again.read(again["a"]) == again["a"]).all()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_sessions_that_only_wait_end_on_both_sides(node, tmp_path):
    """Nobody calls anything: the kernels ask each other, and have no answer."""
    pool = rpmem.Pool.create(tmp_path / "pool", "16MiB", f"{NODE} a.set", parts=1, **SESSION)
    array = pool.array("a", 10)
    pool.persist()
    node.cut()
    with pytest.raises(TimeoutError):
        wait_unlocked(tmp_path / "sets" / "a.set", 1.0)
    wait_unlocked(tmp_path / "sets" / "a.set", GONE_S)
    began = time.monotonic()
    with pytest.raises(rpmem.ReplicaLost):
        pool.persist(array)
    assert time.monotonic() - began < TIMEOUT_S
    del array
    pool.close()
    node.heal()
    rpmem.Pool.open(tmp_path / "pool", f"{NODE} a.set", **SESSION).close()
