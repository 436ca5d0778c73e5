"""The operations on a pool while its storage fails, each with its initial state.

An `Operation` creates and prepares its pool while storage works, and then acts. It states the
arrays' content before and afterwards: if it fails, each array has one of the two.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rpmem
from rpmem.pool.local import FilePlace
from tests.support.failing import Control, DurableFiles
from tests.support.targets import ATTRIBUTES

#: What arrays hold, all of their words the same; None: there is no pool.
Content = dict[str, int] | None

TIMEOUT = 10.0


@dataclass(frozen=True)
class Layout:
    """How many files a pool is made of.

    Parameters
    ----------
    name : str
        Of the layout.
    parts : int
        Files of the local copy; 0: a plain file.
    replica_parts : int
        Files of the replica; 0: there is none.
    """

    name: str
    parts: int
    replica_parts: int


PLAIN = Layout("plain", 0, 0)
PARTS = Layout("parts", 3, 0)
PAIR = Layout("pair", 0, 1)
PAIR_OF_PARTS = Layout("pair-of-parts", 2, 2)
LAYOUTS = {each.name: each for each in (PLAIN, PARTS, PAIR, PAIR_OF_PARTS)}
ALONE = (PLAIN, PARTS)
REPLICATED = (PAIR, PAIR_OF_PARTS)


@dataclass
class World:
    """The directories of one case, all of them on a tmpfs."""

    root: Path
    layout: Layout
    control: Control
    command: str | None = None

    @property
    def under(self) -> Path:
        """Where the files are whose calls may fail."""
        return self.root / "under"

    @property
    def here(self) -> Path:
        """The initiator's directory."""
        return self.under / "here"

    @property
    def there(self) -> Path:
        """The target's directory."""
        return self.under / "there"

    @property
    def durable(self) -> DurableFiles:
        """What the medium holds."""
        return DurableFiles(self.root / "medium")

    @property
    def local(self) -> Path:
        """The pool as the user names it."""
        return self.here / ("pool.set" if self.layout.parts else "pool")

    @property
    def target(self) -> str:
        """Where the replica is."""
        return f"local:{self.there}"

    @property
    def replicas(self) -> list[str]:
        """As `Pool` takes them."""
        return [f"{self.target} a.set"] if self.layout.replica_parts else []

    @property
    def session(self) -> dict[str, Any]:
        """Options of every session."""
        return {"timeout": TIMEOUT, "nlanes": 2, "command": self.command}

    @property
    def words(self) -> int:
        """How many words an array has: it lies in more than one part."""
        return (5 << 20) // 2 // 8 if self.layout.parts else 4096

    def lay_out(self) -> None:
        """Make the directories, and the pool set file where there is one."""
        for directory in (self.here, self.there):
            directory.mkdir(parents=True)
        self.write_set(self.local)

    def write_set(self, path: Path) -> None:
        """Write the pool set file of a local copy."""
        if self.layout.parts:
            lines = [f"2MiB {path}.part{index}" for index in range(self.layout.parts)]
            path.write_text("\n".join(["PMEMPOOLSET", *lines, ""]))

    def create(self, replicas: list[str] | None = None) -> rpmem.Pool:
        """Make the pool."""
        return rpmem.Pool.create(
            self.local,
            None if self.layout.parts else "2MiB",
            self.replicas if replicas is None else replicas,
            parts=self.layout.replica_parts,
            **self.session,
        )

    def open(self, replicas: list[str] | None = None) -> rpmem.Pool:
        """Open the pool."""
        chosen = self.replicas if replicas is None else replicas
        return rpmem.Pool.open(self.local, chosen, **self.session)

    def array(self, pool: rpmem.Pool, name: str = "a") -> Any:
        """Return or make an array."""
        return pool.array(name, self.words if name == "a" else 512, "u8")

    def fill(self, pool: rpmem.Pool, value: int) -> None:
        """Store into the array, and make it durable."""
        words = self.array(pool)
        words[:] = value
        pool.persist(words)


def filled(world: World) -> None:
    """Make a pool whose array holds 1, closed well."""
    with world.create() as pool:
        world.fill(pool, 1)


def nothing(_: World) -> None:
    """Begin with empty directories."""


def behind(world: World) -> None:
    """Make a pool whose replica has missed a change."""
    filled(world)
    with world.open([]) as pool:
        world.fill(pool, 2)


def died(world: World) -> None:
    """Make a pool whose writer died: the array holds 2, which is durable."""
    filled(world)
    pid = os.fork()
    if pid == 0:
        pool = world.open()
        world.fill(pool, 2)
        os._exit(0)
    os.waitpid(pid, 0)


def lost(world: World) -> None:
    """Make a pool whose local copy is gone."""
    filled(world)
    for path in world.here.iterdir():
        if path.suffix != ".set":
            path.unlink()


def detached(world: World) -> None:
    """Make a pool that went on without its replica."""
    filled(world)
    with world.open() as pool:
        pool.detach(0)


def alone(world: World) -> None:
    """Make a pool that has no replica yet."""
    with world.create([]) as pool:
        world.fill(pool, 1)


def low(world: World) -> None:
    """Make a replica of two parts, without a pool here."""
    rpmem.create(
        world.target, "a.set", bytearray(4 << 20), attributes=ATTRIBUTES, parts=2, **world.session
    ).close()


@dataclass(frozen=True)
class Operation:
    """One operation.

    Parameters
    ----------
    name : str
        Of the operation.
    layouts : tuple of Layout
        Where it makes sense.
    start : callable
        Makes what it starts from.
    prepare : callable
        Makes what `act` needs: mostly an open pool.
    act : callable
        The operation.
    before, after : Content
        What the arrays hold.
    again : callable, optional
        What a user would do after it failed; without one: open the pool.
    makes_files, takes_files : bool
        Whether it may add or remove files.
    low : bool
        There is no pool here.
    """

    name: str
    layouts: tuple[Layout, ...]
    start: Callable[[World], None]
    prepare: Callable[[World], Any]
    act: Callable[[World, Any], Any]
    before: Content
    after: Content
    again: Callable[[World], Any] | None = None
    makes_files: bool = False
    takes_files: bool = False
    low: bool = False
    stored: dict[str, int] = field(default_factory=dict)


def _none(_: World) -> None:
    return None


def _opened(world: World) -> rpmem.Pool:
    return world.open()


def _stored(world: World) -> rpmem.Pool:
    pool = world.open()
    world.array(pool)[:] = 2
    return pool


def _flushed(world: World) -> rpmem.Pool:
    pool = _stored(world)
    pool.flush(world.array(pool))
    return pool


def _missed(world: World) -> rpmem.Pool:
    pool = world.open()
    pool.detach(0)
    world.fill(pool, 2)
    return pool


def _create(world: World, _: Any) -> rpmem.Pool:
    return world.create()


def _open(world: World, _: Any) -> rpmem.Pool:
    return world.open()


def _persist(world: World, pool: rpmem.Pool) -> None:
    pool.persist(world.array(pool))


def _persist_many(world: World, pool: rpmem.Pool) -> None:
    words = world.array(pool)
    pool.persist_many([words[len(words) // 2 :], words[: len(words) // 2]], relaxed=True)


def _deep(world: World, pool: rpmem.Pool) -> None:
    pool.deep_persist(world.array(pool))


def _flush(world: World, pool: rpmem.Pool) -> None:
    pool.flush(world.array(pool))
    pool.drain()


def _new_array(world: World, pool: rpmem.Pool) -> None:
    world.array(pool, "b")


def _delete(_: World, pool: rpmem.Pool) -> None:
    del pool["a"]


def _detach(_: World, pool: rpmem.Pool) -> None:
    pool.detach(0)


def _attach(world: World, pool: rpmem.Pool) -> None:
    pool.attach(world.replicas[0])


def _attach_new(world: World, pool: rpmem.Pool) -> None:
    pool.attach(world.replicas[0], create=True, parts=world.layout.replica_parts)


def _pull(_: World, pool: rpmem.Pool) -> None:
    pool.pull()


def _restore(world: World, _: Any) -> rpmem.Pool:
    first, *lost = world.replicas
    return rpmem.Pool.restore(world.local, first, lost=lost, **world.session)


def _close(_: World, pool: rpmem.Pool) -> None:
    pool.close()


def _remove(world: World, _: Any) -> None:
    FilePlace(world.local).remove(pool_set_too=True)


def _remove_again(world: World) -> None:
    for path in world.here.glob("pool*"):
        if path.name in ("pool", "pool.set"):
            FilePlace(path).remove(force=True, pool_set_too=True)


def _remove_there(world: World, _: Any) -> None:
    rpmem.remove(world.target, "a.set", pool_set=True, timeout=TIMEOUT, command=world.command)


def _remove_there_again(world: World) -> None:
    rpmem.remove(world.target, "a.set", force=True, pool_set=True, timeout=TIMEOUT)


def _low_opened(world: World) -> Any:
    return rpmem.open(world.target, "a.set", bytearray(4 << 20), **world.session)


def _set_attributes(_: World, replica: Any) -> None:
    replica.set_attributes(ATTRIBUTES.replaced(major=9))


class CommandFailed(Exception):
    """The rpmem command ended with a status that is not 0."""


def command_line(*arguments: str) -> str:
    """Run the rpmem command in this process; return what it printed."""
    from rpmem import cli

    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = cli._run(list(arguments), debug=False)
    if status != 0:
        raise CommandFailed(f"{status}: {complained.getvalue()}")
    return said.getvalue()


def _cli(verb: str, *more: str) -> Callable[[World, Any], None]:
    def act(world: World, _: Any) -> None:
        command_line(verb, str(world.local), *more)

    return act


def _cli_pair(verb: str, *more: str) -> Callable[[World, Any], None]:
    def act(world: World, _: Any) -> None:
        command_line(verb, str(world.local), *more, "--replica", world.replicas[0])

    return act


def _cli_sync(world: World, _: Any) -> None:
    command_line("sync", str(world.local), *world.replicas[0].split())


ONE, TWO = {"a": 1}, {"a": 2}

OPERATIONS: dict[str, Operation] = {
    each.name: each
    for each in (
        Operation(
            "create", tuple(LAYOUTS.values()), nothing, _none, _create, None, {}, makes_files=True
        ),
        Operation("open", tuple(LAYOUTS.values()), filled, _none, _open, ONE, ONE),
        Operation("open-behind", REPLICATED, behind, _none, _open, TWO, TWO),
        Operation("open-after-death", (PLAIN, PAIR), died, _none, _open, TWO, TWO),
        Operation("persist", tuple(LAYOUTS.values()), filled, _stored, _persist, ONE, TWO),
        Operation("persist-many", (PAIR_OF_PARTS,), filled, _stored, _persist_many, ONE, TWO),
        Operation("deep-persist", (PAIR,), filled, _stored, _deep, ONE, TWO),
        Operation("flush", (PARTS, PAIR), filled, _stored, _flush, ONE, TWO),
        Operation("drain", (PAIR,), filled, _flushed, lambda _, p: p.drain(), ONE, TWO),
        Operation(
            "new-array", tuple(LAYOUTS.values()), filled, _opened, _new_array, ONE, ONE | {"b": 0}
        ),
        Operation("delete-array", tuple(LAYOUTS.values()), filled, _opened, _delete, ONE, {}),
        Operation("detach", (PAIR,), filled, _opened, _detach, ONE, ONE),
        Operation("attach", REPLICATED, detached, lambda world: world.open([]), _attach, ONE, ONE),
        Operation(
            "attach-new",
            REPLICATED,
            alone,
            lambda world: world.open([]),
            _attach_new,
            ONE,
            ONE,
            makes_files=True,
        ),
        Operation("attach-missed", REPLICATED, filled, _missed, _attach, TWO, TWO),
        Operation("pull", (PAIR,), filled, _opened, _pull, ONE, ONE),
        Operation("restore", REPLICATED, lost, _none, _restore, ONE, ONE, makes_files=True),
        Operation("close", tuple(LAYOUTS.values()), filled, _opened, _close, ONE, ONE),
        Operation("close-flushed", (PLAIN, PAIR), filled, _flushed, _close, ONE, TWO),
        Operation("close-stored", tuple(LAYOUTS.values()), filled, _stored, _close, ONE, TWO),
        Operation(
            "remove", ALONE, filled, _none, _remove, ONE, None, _remove_again, takes_files=True
        ),
        Operation(
            "remove-there",
            REPLICATED,
            filled,
            _none,
            _remove_there,
            ONE,
            ONE,
            _remove_there_again,
            takes_files=True,
        ),
        Operation(
            "set-attributes", (PAIR,), low, _low_opened, _set_attributes, None, None, low=True
        ),
        Operation(
            "cli-create",
            (PLAIN,),
            nothing,
            _none,
            _cli("create", "--size", "2MiB"),
            None,
            {},
            makes_files=True,
        ),
        Operation("cli-info", (PLAIN, PARTS), filled, _none, _cli("info"), ONE, ONE),
        Operation("cli-list", (PLAIN,), filled, _none, _cli("list"), ONE, ONE),
        Operation("cli-open", (PAIR,), filled, _none, _cli_pair("open"), ONE, ONE),
        Operation("cli-sync", (PAIR,), behind, _none, _cli_sync, TWO, TWO),
        Operation(
            "cli-remove",
            (PLAIN,),
            filled,
            _none,
            _cli("remove"),
            ONE,
            None,
            _remove_again,
            takes_files=True,
        ),
    )
}


def kind_of(words: Any) -> set[int]:
    """Return the values that an array holds."""
    return {int(each) for each in np.unique(words)}
