"""How replicas are lost under the calls of a pool in use, and come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import MappingProxyType

import rpmem
from tests.support import changes_target
from tests.support.changes_copies import Node
from tests.support.changes_use import OWN_PAGE, Missed, Use
from tests.support.media import wait_unlocked
from tests.support.processes import stop, wait_gone

_PATIENCE_S = 0.4


def _lose(
    use: Use,
    node: Node,
    what: str,
    begin: Callable[[], None],
    end: Callable[[], None] = lambda: None,
) -> None:
    """Let a replica fail under the threads' calls, go on without it, and take it back."""
    replica = node.replica(use.pool)
    assert replica.peer is not None
    pid = replica.peer.pid
    use.faulty = True
    begin()
    use.stores[-1].put(use.memory.rest, 8, use.rng.randrange(1000), use.rng)
    try:
        use.pool.persist()
    except rpmem.RpmemError as error:
        use.counts[f"{what}: {type(error).__name__}"] += 1
    else:
        raise Missed(f"persist() did not notice: {what}")
    time.sleep(use.rng.random() * 0.05)
    if use.rng.random() < 0.5:
        use.interrupted(use.rng.random() * 0.002)
    if what == "deadline":
        os.kill(pid, signal.SIGKILL)  # otherwise its end is waited for, too
    with use.changing():
        use.attached.remove(node)
        use.pool.detach(replica)
        use.faulty = False
    end()
    wait_gone(pid)
    if use.rng.random() < 0.7:
        use.drain()
    _take_back(use, node)


def _take_back(use: Use, node: Node) -> None:
    """Attach a replica; every other time, a page has other bytes at that moment alone."""
    wait_unlocked(node.directory / "r.set")
    use.counts["joins"] += 1
    if use.counts["joins"] % 2:
        _attach(use, node)
        return
    with use.gate.closed():
        use.memory.toggle(OWN_PAGE, 0)
        use.settle("before a replica joins")
        use.memory.toggle(OWN_PAGE, 1)
        _attach(use, node)
        use.memory.toggle(OWN_PAGE, 0)
        use.settle("a page got back what it had before a replica joined")
        use.pool.persist(use.memory.toggle(OWN_PAGE, 1))
        use.memory.toggle(OWN_PAGE, 0)
        use.settle("a page got back what it had before it was sent to other copies")
        use.counts["a page gets back what it had before a join"] += 1


def _attach(use: Use, node: Node) -> None:
    with use.changing():
        use.pool.attach(node.spec)
        node.joins += 1
        use.attached.append(node)


def _kill(use: Use) -> None:
    node = use.rng.choice(use.attached)
    peer = node.replica(use.pool).peer
    assert peer is not None
    _lose(use, node, "kill", lambda: os.kill(peer.pid, signal.SIGKILL))


def _deadline(use: Use) -> None:
    node = use.rng.choice(use.attached)
    peer = node.replica(use.pool).peer
    assert peer is not None
    copies = use.pool._copies
    usual = copies._options
    copies._options = replace(usual, timeout=_PATIENCE_S)
    with copies._changing():
        pass
    copies._options = usual
    _lose(use, node, "deadline", lambda: stop(peer.pid))


def _refuse(use: Use) -> None:
    node = use.rng.choice(use.attached)
    refusing = ExitStack()
    with refusing:
        _lose(
            use,
            node,
            "refuse",
            lambda: refusing.enter_context(changes_target.refusing(node.directory)),
            refusing.close,
        )


def _leave(use: Use) -> None:
    """A replica leaves in order, and comes back."""
    node = use.rng.choice(use.attached)
    with use.changing():
        use.attached.remove(node)
        use.pool.detach(node.replica(use.pool))
    if use.rng.random() < 0.5:
        use.drain()
    _take_back(use, node)


#: What happens to replicas while threads work.
LOSSES: Mapping[str, Callable[[Use], None]] = MappingProxyType(
    {"kill": _kill, "deadline": _deadline, "refuse": _refuse, "leave": _leave}
)
