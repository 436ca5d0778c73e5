"""What happens to a pool in use while its threads are held up: stores of other kinds, and forks.

Each function returns whether it happened; not everything can in every place.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.support.changes_stores import PAGE, REST, libc
from tests.support.changes_use import Missed, Use

_CHILDS = 64 << 10


def _range(use: Use) -> tuple[int, int]:
    """Return a range of the array that no thread stores to."""
    length = use.rng.choice((1, 100, PAGE, 5 * PAGE))
    return use.memory.rest + _CHILDS + use.rng.randrange(REST - _CHILDS - length), length


def _pull(use: Use) -> bool:
    at, length = _range(use)
    view = use.memory.array[at : at + length]
    view[:] = view + 1
    if use.rng.random() < 0.3:
        use.pool.persist(narrow=True, x=(use.begin, 1 << 20))
    use.pool.pull(view, replica=use.attached[0].replica(use.pool))
    return True


def _by_the_file(use: Use, store: Callable[[int, int, bytes], object]) -> bool:
    """Store to the file itself: `store` gets its descriptor, an offset and bytes."""
    at, length = _range(use)
    found = use.place.at(use.begin + at, length)
    if found is None:
        return False
    path, offset = found
    with open(path, "r+b", buffering=0) as file:
        store(file.fileno(), offset, use.source.content[:length].tobytes())
    _was_stored(use, at, length)
    return True


def _pwrite(use: Use) -> bool:
    return _by_the_file(use, lambda file, offset, content: os.pwrite(file, content, offset))


def _mapping(use: Use) -> bool:
    def store(file: int, offset: int, content: bytes) -> None:
        with mmap.mmap(file, 0) as other:
            other[offset : offset + len(content)] = content

    return _by_the_file(use, store)


def _was_stored(use: Use, at: int, length: int) -> None:
    use.memory.expected[at : at + length] = use.source.content[:length]
    if use.pool.tracking == "kernel" or use.rng.random() < 0.3:
        use.pool.touched((use.begin + at, length))


def _hot(use: Use) -> bool:
    """Store to whole blocks again and again, and then to single bytes."""
    begin, end = use.memory.rest, use.memory.rest + REST
    for value in range(use.rng.randrange(2, 6)):
        libc.memset(use.memory.address + begin, value, REST)
        use.memory.expected[begin:end] = value
        use.pool.persist()
    for value in range(10, 14):
        for _ in range(use.rng.randrange(1, 4)):
            at = use.rng.randrange(begin, end)
            use.memory.array[at] = use.memory.expected[at] = value
        use.settle("single stores to a block that was hot")
    return True


def _array(use: Use) -> bool:
    """An array comes and goes: the pool's own stores."""
    name = f"more {use.rng.randrange(3)}"
    if name in use.pool:
        del use.pool[name]
    else:
        use.pool.array(name, use.rng.randrange(1, 20_000), "u1")[:] = 9
    return True


# --- children -------------------------------------------------------------------------


def _child(use: Use, times: int, wait: int | None = None) -> None:
    """Fork a child that stores to the same memory, if it has the same."""
    begin = use.memory.rest
    value = use.rng.randrange(256)
    if use.place.is_shared:
        use.memory.expected[begin : begin + _CHILDS] = value
    pid = os.fork()
    if pid == 0:
        if wait is not None:
            os.read(wait, 1)
        for number in range(times):
            last = value if number == times - 1 else number
            libc.memset(use.memory.address + begin, last, _CHILDS)
            if times > 1:
                time.sleep(0.001)
        os._exit(0)
    use.children.append(pid)
    use.forked = True
    if use.pool.tracking != "digest":
        raise Missed(f"after a fork, changes are found by {use.pool.tracking}")


def _fork(use: Use) -> bool:
    _child(use, 1)
    return True


def _late_child(use: Use) -> bool:
    """The child stores when its parent has found it all equal."""
    reader, writer = os.pipe()
    _child(use, 1, reader)
    use.pool.persist()
    os.write(writer, b"x")
    os.close(reader)
    os.close(writer)
    return True


def _child_beside(use: Use) -> bool:
    _child(use, 20)
    use.pool.persist()
    return True


def child_among_threads(use: Use) -> None:
    """Fork while threads store and call; the child stores beside them."""
    _child(use, 20)


ASIDE: Mapping[str, Callable[[Use], bool]] = MappingProxyType(
    {"pull": _pull, "pwrite": _pwrite, "mapping": _mapping, "hot": _hot, "array": _array}
)
#: What ends that the kernel tells what changed.
FORKS: Mapping[str, Callable[[Use], bool]] = MappingProxyType(
    {"fork": _fork, "late child": _late_child, "child beside": _child_beside}
)
