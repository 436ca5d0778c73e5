"""The texts of the report: a title and an explanation for every workload."""

from __future__ import annotations

from typing import Final

PREFACE: Final = """
Made by `make bench` (`python -m benchmarks`) from [benchmarks.json](benchmarks.json); do not edit.
All contestants took turns in one run on one machine, each a process that reads its own clock; what
reading it takes is taken off. A figure is the median over rounds of the percentile within a round,
with a bootstrap interval over the rounds; a ratio is the median of the ratios round by round.
Rounds in which the scheduler kept a contestant waiting for more than a twentieth of its turn are
held again, and left out where enough others remain.
"""

RATIOS: Final = "Both sides polling, target on tmpfs, unless the line says otherwise."

DISTURBED: Final = """
(1) Too few rounds were undisturbed: all of them count here, and may mislead.
"""

WORKLOADS: Final[dict[str, tuple[str, str]]] = {
    "persist": (
        "Persist by size, send-after-write",
        """
        The default of both: strict, so that an aligned 8-byte word on the target is old or new.
        `raw inline` is what gives the same promise in C: the data inside the SEND, copied and
        acknowledged by the target. `raw write+send` and `rpmem low, relaxed` give only durability
        on return. librpmem's default over its sockets provider is a WRITE and a SEND, without the
        promise about words. `TCP ping-pong` stores nothing: data one way, 8 bytes back.
        """,
    ),
    "commit": (
        "Persist by size, commit step",
        """
        The target's pool is taken for persistent memory. `raw delivery` does not flush at all;
        `raw commit` and rpmem do, cache line by cache line.
        """,
    ),
    "read-after-write": (
        "Persist by size, read-after-write",
        """
        WRITE, then an 8-byte READ: PMDK's APM, with the target's pool taken for persistent memory.
        Over `tcp` rpmem's last WRITE asks for its delivery instead, `raw delivery` in C: the target
        answers it by software, after all that came before, which is all that a READ tells.
        """,
    ),
    "bandwidth": (
        "Bandwidth",
        """
        One range after the other, each waited for, but for `raw stream`, which keeps four under
        way. Both raw contestants cut WRITEs into the pieces that are fastest here.
        """,
    ),
    "batch": ("Flushes and a drain", ""),
    "scattered": (
        "Scattered ranges",
        "64 B each with 64 B between them; `one call` is `persist_many`.",
    ),
    "read": ("Reading", "Into memory that is registered where the fabric wants it."),
    "threads": (
        "Threads",
        """
        Each on a lane of its own. Where there are more threads than processors for both sides,
        rpmem runs with its default, which does not poll without end.
        """,
    ),
    "replicas": (
        "Replicas",
        """
        All targets run on this machine and share its processors. The posts to all replicas go out
        before any is waited for; with a processor for each side it would cost one.
        """,
    ),
    "pools": ("Pool size", "64 B at 1,024 places all over the pool."),
    "polling": (
        "Polling and sleeping",
        """
        `spin`: both sides poll; `sleep`: both sleep in the fabric's wait object as soon as they
        may; `auto`: rpmem's default, which polls for a bounded time and then sleeps. CPU is what
        both sides used for each operation.
        """,
    ),
    "verbs": (
        "Verbs",
        """
        Only where there is a device. All over its own network, both ends on this machine.
        `ib_write_lat` reports half a round trip of two WRITEs.
        """,
    ),
    "instead": (
        "What people use instead",
        """
        They promise other things. Redis: in the memory of one replica, nothing on a disk. msync: on
        the local disk, no second machine. rpmem here: in the memory of one target.
        """,
    ),
    "rsync": ("A file kept in step with rsync", "rsync has to look at all of the file."),
    "life": (
        "Life cycle",
        """
        Through the system's ssh and a real server on loopback: a start of ssh, a log-in and a start
        of the daemon are in every figure.
        """,
    ),
}


def flowing(text: str) -> str:
    """Return a text without its line breaks and indentation in the source."""
    return " ".join(text.split())
