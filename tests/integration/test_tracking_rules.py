"""What `persist()` promises when it sends only what changed, rule by rule, with a real replica.

The target keeps its acknowledgement back while a test says so, and what is in its file has been
flushed there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpmem
from tests.support import changes_target
from tests.support.changes import works
from tests.support.changes_copies import Node
from tests.support.changes_stores import PAGE
from tests.support.changes_target import holding, wait_held
from tests.support.pools import kill

SIZE = 4 << 20
PAGES = 64
#: How long a call is given to do what it must not do.
MOMENT_S = 0.25


@pytest.fixture(params=["kernel", "digest"])
def mode(request: pytest.FixtureRequest) -> str:
    if reason := works(request.param):
        pytest.skip(f"tracking={request.param!r}: {reason}")
    found: str = request.param
    return found


class World:
    """A pool with one array of whole pages, and its replicas."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.nodes = [Node(folder / f"node{number}") for number in range(2)]
        self.pool = rpmem.Pool.create(
            folder / "pool", SIZE, [self.nodes[0].spec], tracking=mode, **self.session(), parts=1
        )
        array: Any = self.pool.array("data", (PAGES + 1) * PAGE, "u1")
        skip = -array.ctypes.data % PAGE
        self.pages = array[skip : skip + PAGES * PAGE].reshape(PAGES, PAGE)
        self.begin = self.pool.entry("data").offset + skip
        self.pool.persist()

    @staticmethod
    def session() -> dict[str, Any]:
        return {"nlanes": 3, "timeout": 30.0, "command": changes_target.command()}

    def there(self, node: int = 0) -> Any:
        """Return what a replica holds of the pages."""
        return self.nodes[node].view[self.begin :][: PAGES * PAGE].reshape(PAGES, PAGE)

    def held(self) -> Any:
        return holding(self.nodes[0].directory)

    def wait_held(self) -> None:
        assert wait_held(self.nodes[0].directory)


@pytest.fixture
def world(tmpfs: Path, mode: str) -> Iterator[World]:
    made = World(tmpfs, mode)
    try:
        assert made.pool.tracking == mode
        yield made
    finally:
        if not made.pool.closed:
            made.pool.__exit__(None, None, None)


class Call:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._error: BaseException | None = None

        def run() -> None:
            try:
                call()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def is_over(self, seconds: float = MOMENT_S) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


# --- who may return ---------------------------------------------------------------------------


@pytest.mark.parametrize("narrow", [False, True], ids=["whole", "narrow"])
def test_nobody_returns_before_what_another_thread_took_is_acknowledged(world: World, narrow: bool):
    world.pages[3] = 7
    with world.held():
        first = Call(world.pool.persist)
        world.wait_held()
        # Nothing changed since: but that is not yet durable everywhere.
        x = world.pages[3] if narrow else None
        second = Call(lambda: world.pool.persist(x, narrow=narrow))
        assert not second.is_over()
        assert not first.is_over(0)
    second.end()
    first.end()
    assert (world.there()[3] == 7).all()


def test_what_is_stored_during_a_send_is_sent_by_the_next_call(world: World):
    world.pages[3] = 7
    with world.held():
        call = Call(world.pool.persist)
        world.wait_held()
        world.pages[3] = 8
        world.pages[50, 17] = 9
    call.end()
    world.pool.persist()
    assert (world.there()[3] == 8).all()
    assert world.there()[50, 17] == 9


def test_a_signal_ends_a_call_that_waits_for_another_thread_s(world: World):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    world.pages[3] = 7
    try:
        with world.held():
            first = Call(world.pool.persist)
            world.wait_held()
            threading.Timer(MOMENT_S, os.kill, (os.getpid(), signal.SIGINT)).start()
            begun = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                world.pool.persist()
            assert time.monotonic() - begun < MOMENT_S + 0.8
    finally:
        signal.signal(signal.SIGINT, before)
    first.end()
    # The lock is free again.
    world.pages[4] = 1
    world.pool.persist()
    assert (world.there()[4] == 1).all()


# --- bytes that come back ---------------------------------------------------------------------


def store_and_persist(world: World, value: int) -> None:
    world.pages[3] = value
    world.pool.persist()


def test_a_page_that_changes_while_it_is_sent(world: World):
    """What is remembered is what was sent, not what the memory has when that is acknowledged."""
    store_and_persist(world, 1)
    world.pages[3] = 2
    with world.held():
        call = Call(world.pool.persist)
        world.wait_held()
        world.pages[3] = 3
    call.end()
    world.pool.persist()
    assert (world.there()[3] == 3).all()
    world.pages[3] = 2
    world.pool.persist()
    assert (world.there()[3] == 2).all()


def test_a_page_that_changes_between_the_look_and_the_send(world: World):
    """What is remembered is what was sent, not what the memory had when it was looked at."""
    store_and_persist(world, 1)
    with world.held():
        named = Call(lambda: world.pool.persist(world.pages[3]))
        world.wait_held()
        world.pages[3] = 2
        whole = Call(world.pool.persist)
        assert not whole.is_over()  # it has looked, and waits for the other one
        world.pages[3] = 3
    named.end()
    whole.end()
    for value in (2, 3, 1):
        store_and_persist(world, value)
        assert (world.there()[3] == value).all()


def persisted(world: World, view: Any) -> None:
    world.pool.persist(view)


def persisted_many(world: World, view: Any) -> None:
    world.pool.persist_many([view])


def flushed(world: World, view: Any) -> None:
    world.pool.flush(view)
    world.pool.drain()


def deeply(world: World, view: Any) -> None:
    world.pool.deep_persist(view)


def flushed_whole(world: World, view: Any) -> None:
    world.pool.flush()
    world.pool.drain()


def narrow(world: World, view: Any) -> None:
    world.pool.persist(view, narrow=True)


def narrow_in_part(world: World, view: Any) -> None:
    world.pool.persist(view[5:-5], narrow=True)


@pytest.mark.parametrize(
    "call", [persisted, persisted_many, flushed, deeply, flushed_whole, narrow, narrow_in_part]
)
def test_a_page_gets_back_what_it_had_before_a_call_that_named_it(
    world: World, call: Callable[[World, Any], None]
):
    store_and_persist(world, 1)
    world.pages[3] = 2
    call(world, world.pages[3])
    assert world.there()[3, 9] == 2
    store_and_persist(world, 1)
    assert (world.there()[3] == 1).all()


def test_a_page_gets_back_what_it_had_before_a_replica_joined(world: World):
    store_and_persist(world, 1)
    world.pages[3] = 2
    world.pool.attach(world.nodes[1].spec, create=True, parts=1)
    store_and_persist(world, 1)
    assert (world.there(0)[3] == 1).all()
    assert (world.there(1)[3] == 1).all()
    # The rules are the same with other copies.
    world.pages[3] = 2
    world.pool.persist(world.pages[3])
    store_and_persist(world, 1)
    assert (world.there(0)[3] == 1).all()
    assert (world.there(1)[3] == 1).all()


def test_a_page_gets_back_what_it_had_before_a_pull(world: World):
    store_and_persist(world, 1)
    world.pages[3] = 2
    world.pool.persist(world.pages[3])
    world.pages[3] = 1
    world.pool.pull(world.pages[3])
    assert (world.pages[3] == 2).all()
    store_and_persist(world, 1)
    assert (world.there()[3] == 1).all()


def test_an_older_copy_does_not_overtake_what_was_acknowledged(world: World):
    """A call that takes pages when another one has newer bytes of them under way."""
    store_and_persist(world, 1)
    with world.held():
        world.pages[40] = 5
        world.pages[3] = 2
        first = Call(lambda: world.pool.persist(world.pages[40]))
        world.wait_held()
        whole = Call(world.pool.persist)  # waits for the bytes of page 40
        assert not whole.is_over()
        world.pages[3] = 3
        named = Call(lambda: world.pool.persist(world.pages[3]))
        named.is_over()
    first.end()
    named.end()
    # Acknowledged by now, whatever the other one does.
    seen = world.there()[3].copy()
    whole.end()
    assert (seen == 3).all()
    assert (world.there()[3] == 3).all()


# --- pages that are sent in part --------------------------------------------------------------


def test_a_page_that_was_sent_in_part_stays_pending(world: World):
    world.pages[3:6] = 4
    world.pool.persist(world.pages.reshape(-1)[3 * PAGE + 100 : 5 * PAGE + 100], narrow=True)
    there = world.there()
    assert (there[4] == 4).all()
    assert there[3, 100] == there[5, 99] == 4
    assert there[3, 99] == there[5, 100] == 0
    world.pool.persist()
    assert (world.there()[3:6] == 4).all()


# --- calls that fail --------------------------------------------------------------------------


def test_a_page_is_sent_again_after_a_call_that_failed(world: World):
    """One replica is lost; what that call was to send is still owed to the other one."""
    world.pool.attach(world.nodes[1].spec, create=True, parts=1)
    world.pool.persist()
    lost = world.nodes[0].replica(world.pool)
    kill(lost)
    world.pages[3] = 6
    with pytest.raises(rpmem.ReplicaLost):
        world.pool.persist()
    with pytest.raises(rpmem.ReplicaLost):
        world.pool.persist()  # with nothing new
    world.pool.detach(lost)
    world.pool.persist()
    assert (world.there(1)[3] == 6).all()


def test_nothing_changed_and_a_medium_that_refused(world: World):
    world.pages[3] = 6
    with changes_target.refusing(world.nodes[0].directory), pytest.raises(rpmem.FlushFailed):
        world.pool.persist()
    with pytest.raises(rpmem.FlushFailed):
        world.pool.persist()


def test_nothing_changed_and_the_local_medium_refused(world: World):
    world.pool.persist()
    world.pool._region.refuse(5)
    for _ in range(2):
        with pytest.raises(rpmem.FlushFailed):
            world.pool.persist()
    with pytest.raises(rpmem.FlushFailed):
        world.pool.persist(world.pages[3], narrow=True)
    del world.pages
    with pytest.raises(rpmem.FlushFailed):
        world.pool.close()


# --- what earlier sessions left ---------------------------------------------------------------


def test_what_an_earlier_session_stored_and_did_not_persist_is_there(tmpfs: Path, mode: str):
    world = World(tmpfs, mode)
    world.pages[3] = 6
    begin, spec = world.begin, world.nodes[0].spec
    del world.pages
    world.pool.close()
    with rpmem.Pool.open(tmpfs / "pool", spec, tracking=mode, **World.session()) as world.pool:
        assert (world.there()[3] == 6).all()
        array = world.pool["data"]
        array[-1] = 3
        world.pool.persist()
        assert (world.there()[3] == 6).all()
        assert world.nodes[0].view[begin:][: PAGE * PAGES].any()
        del array


def test_arrays_that_come_later_are_seen(world: World):
    array = world.pool.array("later", 100_000, "u1")
    begin = world.pool.entry("later").offset
    array[:] = 5
    world.pool.persist()
    assert (world.nodes[0].view[begin:][:100_000] == 5).all()
    array[77] = 6
    world.pool.persist()
    assert world.nodes[0].view[begin + 77] == 6
    np.testing.assert_array_equal(world.nodes[0].view[begin:][:100_000], array)
    del array


def test_a_signal_handler_does_not_look_within_a_look(tmpfs: Path):
    """It would wait for itself."""
    (tmpfs / "node").mkdir()
    caught: list[BaseException] = []
    with rpmem.Pool.create(
        tmpfs / "pool", "4MiB", f"local:{tmpfs}/node a.set", parts=1, tracking="digest"
    ) as pool:

        def handler(*_: object) -> None:
            for narrow in (None, pool["a"]):
                try:
                    pool.persist(narrow, narrow=True)
                except rpmem.UsageError as error:
                    caught.append(error)

        pool.array("a", 1000)
        pool.persist()
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            with pool._tracking._alone():
                signal.raise_signal(signal.SIGUSR1)
            assert len(caught) == 2
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert len(caught) == 2
