"""Pool: memory, a file or a pool set with named arrays in it, and its replicas."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, Unpack

from rpmem.base import interrupts
from rpmem.base.pool_format import HEADER_SIZE
from rpmem.errors import ClosedError, StaleReplica
from rpmem.files.drafts import PRIVATE
from rpmem.memory.region import Region
from rpmem.pool import assembly, resync, transfer
from rpmem.pool.arrays import Form
from rpmem.pool.catalogue import Catalogue, Entry
from rpmem.pool.lifetime import OpenPool
from rpmem.pool.local import place_of
from rpmem.pool.medium import PoolMedium
from rpmem.pool.options import (
    ReplicaLike,
    mode_of,
    replica_spec,
    replica_specs,
    size_of,
)
from rpmem.pool.superblock import State
from rpmem.session.options import SessionKeywords, SessionOptions
from rpmem.session.replica import LEVELS, Replica

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

    from rpmem.files.attributes import PoolAttributes

_NO_FLAGS = bytes(16)


class Pool(OpenPool):
    """Named arrays in memory that is replicated.

    A pool is made by `create`, `open` or `restore`. Its arrays are ordinary numpy arrays over
    the pool's memory; ``pool.persist(view)`` makes what was written to them durable.

    What durable means
        When `persist` returns, the range has been flushed to the local medium and every replica
        has acknowledged it, each after its own flush. Both happen at the same time. What a flush
        is worth depends on the medium (`medium`, `Replica.medium`): ``"pmem"`` and ``"page"``
        survive a power cut, ``"volatile"`` (tmpfs, a buffer) does not outlive its machine.
        What was only written, or flushed without `drain`, may or may not survive, here and there.

    When a replica is lost
        `persist` raises `ReplicaLost` (or another error that names the replica) once the other
        replicas and the local copy are done: there the data *are* durable. Every later call
        raises again, until the replica is given up with `detach`; so nobody goes on with fewer
        copies than were asked for without saying so.

    Threads
        All methods may be called from several threads at once; those that wait release the GIL.
        Each call takes a lane of its own; calls whose ranges overlap, be it between the elements
        of strided views, go one after the other. Arrays are created and deleted one at a time.
        What two threads write to the same bytes is theirs to order.

    Processes
        A pool belongs to the process that opened it, and is locked against others. After
        ``fork()`` its methods raise `ForkedError` in the child.

    Signals
        What the handler of a signal raises, such as KeyboardInterrupt, ends the call that it comes
        in, within 0.2 s unless one system call takes longer. What was to be made durable by that
        call is not acknowledged. What was to be made, opened or attached is undone first; a target
        gets 2 s for its part, and notes of the exception name what may be left there.

    Ending
        `close` unmaps the memory; it raises BufferError while views of arrays are alive, as a
        view of unmapped memory would crash the process. Leaving a ``with`` block ends the
        replication, marks all copies as complete and gives up the lock in any case, and unmaps
        when the last view goes.

    Examples
    --------
    >>> with rpmem.Pool.create("/srv/pool", "64MiB", "user@node2 pool.set") as pool:
    ...     temperature = pool.array("temperature", (365, 24))
    ...     temperature[0] = 21.5
    ...     pool.persist(temperature[0])  # durable here and on node2

    After the local file was lost:

    >>> with rpmem.Pool.restore("/srv/pool", "user@node2 pool.set") as pool:
    ...     print(pool["temperature"][0])
    """

    # --- beginnings -----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        local: str | os.PathLike[str] | Buffer,
        size: int | str | None = None,
        replicas: Iterable[ReplicaLike] | ReplicaLike | None = None,
        *,
        parts: int = 0,
        mode: int = PRIVATE,
        user_flags: bytes = _NO_FLAGS,
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Make a new, empty pool and all its replicas.

        Parameters
        ----------
        local : path or buffer
            A file that does not exist, a poolset(5) file whose parts do not exist, or a writable
            C-contiguous buffer, which is overwritten.
        size : int or str, optional
            Bytes of a plain file, such as ``"64MiB"``; at least 2 MiB. Pool sets and buffers have
            their own.
        replicas : iterable of replicas, optional
            ``"TARGET NAME.set"``, ``(target, "NAME.set")`` or `ReplicaSpec`. None: those of the
            ``REPLICA`` lines of the poolset file.
        parts : int
            Let each target write the pool set file itself, with so many parts; 0: it exists.
        mode : int
            Permissions of new local files, whatever the umask is. Whoever may read a pool can lock
            it, and so keep others from opening it. What targets make is as private as their
            ``file-mode`` says.
        user_flags : bytes
            16 bytes for the header; zeros: the machine's architecture, as PMDK does.
        **session
            How to reach the replicas: ``nlanes``, ``timeout``, ``provider``, ``step`` and
            ``launcher``, see `rpmem.session.options.SessionOptions`.

        Returns
        -------
        Pool
            Whose empty catalogue is durable here and on every replica.

        Raises
        ------
        PoolSetExists
            There is a pool already.
        PoolSetError, LaunchError, FabricError
            A copy could not be made. Nothing is left behind, here or there; only a target that
            was lost in the middle may keep what it made, which the log then says.
        """
        place = place_of(local)
        specs = place.replicas if replicas is None else replica_specs(replicas)
        specs = [replica_spec(spec, parts) for spec in specs]
        options = SessionOptions(**session)
        wanted, permissions = size_of(size), mode_of(mode)
        return interrupts.guarded(
            lambda: cls._over(
                lambda: assembly.create(place, wanted, specs, options, user_flags, permissions),
                options,
                undo=lambda made: made.undo(remove=True),
            ),
            lambda pool: pool._unmake(),
            undo_s=interrupts.UNDO,
        )

    @classmethod
    def open(
        cls,
        local: str | os.PathLike[str] | Buffer,
        replicas: Iterable[ReplicaLike] | ReplicaLike | None = None,
        *,
        readonly: bool = False,
        force: bool = False,
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Open a pool and its replicas.

        A replica that may differ, because one of the two was not closed properly or the pool was
        used without it, is sent the whole pool first.

        Parameters
        ----------
        local : path or buffer
            As for `create`.
        replicas : iterable of replicas, optional
            None: those of the ``REPLICA`` lines of the poolset file. An empty list opens the pool
            without replicas; the next open with them sends everything.
        readonly : bool
            Look at the local copy only: no replica is connected, arrays are read-only, nothing is
            changed. Files need not be writable, and are not locked: a writer may be at work
            meanwhile (`has_writer`). Then arrays show what it stores, durable or not, and the
            names are those there were when the pool was opened.
        force : bool
            Overwrite replicas that hold a newer generation of the pool than the local copy.
        **session
            As for `create`.

        Returns
        -------
        Pool
            Whose replicas all equal the local copy.

        Raises
        ------
        StaleReplica
            A replica has seen a later writer than the local copy, which must be an old one. Use
            `restore`, or `force`.
        HeaderError
            A replica belongs to another pool, or a part does.
        CatalogueCorrupt
            The local copy cannot be read. Use `restore`.
        PoolSetError, LaunchError, FabricError
            A copy could not be opened.
        """
        place = place_of(local)
        options = SessionOptions(**session)
        specs = place.replicas if replicas is None else replica_specs(replicas)
        if readonly:
            make = functools.partial(assembly.open_readonly, place)
        else:
            make = functools.partial(assembly.open_all, place, specs, options, force=force)
        return interrupts.guarded(
            lambda: cls._over(
                make, options, undo=lambda made: made.undo(remove=False), readonly=readonly
            ),
            lambda pool: pool.close(),
        )

    @classmethod
    def restore(
        cls,
        local: str | os.PathLike[str] | Buffer,
        replica: ReplicaLike,
        *,
        force: bool = False,
        mode: int = PRIVATE,
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Make a new local copy of a pool out of one of its replicas.

        Parameters
        ----------
        local : path or buffer
            A file that does not exist, a poolset(5) file whose parts do not exist, or a buffer of
            at least the pool's size. Files get their names only when they are complete and
            durable; an existing file is never touched.
        replica : replica
            The copy to read.
        force : bool
            Take a replica that was being overwritten with another generation when its initiator
            died, although it is a mixture.
        mode : int
            As for `create`.
        **session
            As for `create`.

        Returns
        -------
        Pool
            Open, with that replica attached.

        Raises
        ------
        PoolSetExists
            A file is in the way.
        CatalogueCorrupt, StaleReplica
            The replica does not hold a complete pool.
        PoolSetError, LaunchError, FabricError, ReplicaLost
            A copy could not be made or read. Nothing is left behind; but where the replica was
            lost when the local copy was whole already, that stays: it may be the only one.
        """
        options = SessionOptions(**session)
        place, spec, permissions = place_of(local), replica_spec(replica), mode_of(mode)
        return interrupts.guarded(
            lambda: cls._over(
                lambda: assembly.restore(place, spec, options, force=force, mode=permissions),
                options,
                undo=lambda made: made.forsake(),
            ),
            lambda pool: pool._unrestore(),
        )

    # --- arrays ---------------------------------------------------------------------------

    def array(
        self,
        name: str,
        shape: int | Iterable[int],
        dtype: DTypeLike = "float64",
        order: str = "C",
    ) -> NDArray[Any]:
        """Return the array of that name, after making it when there is none.

        Parameters
        ----------
        name : str
            1 to 255 bytes of printable UTF-8.
        shape : int or iterable of int
            Its shape.
        dtype : dtype-like
            Anything of fixed size without Python objects: structured and sub-array dtypes,
            strings with a length, datetime64.
        order : {"C", "F"}
            Its memory layout.

        Returns
        -------
        ndarray
            A view of the pool's memory. A new array is zero, and it and its zeros are durable
            here and on every replica; an existing one is as it was left.

        Raises
        ------
        ArrayExists
            There is one of that name with another shape, dtype or order.
        DtypeRefused
            The dtype holds Python objects, or means nothing elsewhere.
        PoolFull
            There is no room.
        ReplicaLost
            A replica broke. The array may exist locally; calling again after `detach` returns it.
        """
        form = Form.of(shape, dtype, order)
        self._check_alive()
        if self._readonly and name not in self:
            self._check_writable("create an array")
        if name in self._arrays:
            return self._arrays.open_or_create(name, form)
        return interrupts.guarded(lambda: self._arrays.open_or_create(name, form))

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a view of an existing array; `ArrayNotFound` when there is none."""
        self._check_alive()
        return self._arrays.open(name)

    def __delitem__(self, name: str) -> None:
        """Delete an array, durably here and on every replica.

        Raises BufferError while a view of it is alive. Its room can be used again at once.
        """
        self._check_alive()
        self._check_writable("delete an array")
        interrupts.guarded(lambda: self._arrays.remove(name))

    def names(self) -> list[str]:
        """Return the names of all arrays, in the order of their creation."""
        self._check_alive()
        return self._arrays.names()

    def entry(self, name: str) -> Entry:
        """Return what the catalogue says about an array: offset, length, shape, order, dtype."""
        self._check_alive()
        return self._arrays.entry(name)

    def __contains__(self, name: object) -> bool:
        self._check_alive()
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    # --- durability -----------------------------------------------------------------------

    def persist(self, x: Any = None, *, relaxed: bool = False) -> None:
        """Make a range durable here and on every replica.

        Parameters
        ----------
        x : array, buffer, (offset, length) or None
            An array or view of this pool with any strides, anything else that exports a buffer
            inside it, a pair of pool offsets, or None for the whole pool. Bytes between the
            elements of a strided view may be made durable with them.
        relaxed : bool
            Give up the promise that an aligned 8-byte word is old or new after a crash in the
            middle, never a mixture.

        Raises
        ------
        RangeError, BufferRefused
            `x` is not in the pool.
        ReplicaLost, DeadlineExceeded
            A replica broke or stopped answering. The local copy and the other replicas have the
            range durably; see the class about how to go on.
        FlushFailed
            A medium, here or there, refused: the range must not be taken for durable.
        UsageError
            The pool was opened with ``readonly=True``.
        ClosedError, ForkedError
            The pool is closed, or belongs to the parent process.
        """
        try:
            self._copies.core.persist(x, relaxed=relaxed)
        except ClosedError as error:
            self._copies.again(error, "persist", x, relaxed=relaxed)

    def persist_many(self, ranges: Any, *, relaxed: bool = False) -> None:
        """Make many ranges durable in as few messages as they fit into; like `persist`.

        Parameters
        ----------
        ranges : ndarray of uint64, shape (n, 2), or iterable
            Offsets and lengths, or anything `persist` takes. There is no order among them: after
            a crash in the middle any of them may have arrived.
        relaxed : bool
            As for `persist`.
        """
        try:
            self._copies.core.persist_many(ranges, relaxed=relaxed)
        except ClosedError as error:
            self._copies.again(error, "persist_many", ranges, relaxed=relaxed)

    def flush(self, x: Any = None, *, relaxed: bool = False) -> None:
        """Begin to make a range durable; it is when a later `drain` returns.

        The bytes that count are those at the time of `drain` at the latest: do not write to the
        range in between.
        """
        try:
            self._copies.core.flush(x, relaxed=relaxed)
        except ClosedError as error:
            self._copies.again(error, "flush", x, relaxed=relaxed)

    def drain(self) -> None:
        """Wait until everything flushed before, by any thread, is durable as after `persist`."""
        try:
            self._copies.core.drain()
        except ClosedError as error:
            self._copies.again(error, "drain")

    def deep_persist(self, x: Any = None) -> None:
        """Like `persist`, down to the lowest persistence domain that software can reach."""
        try:
            self._copies.core.deep_persist(x)
        except ClosedError as error:
            self._copies.again(error, "deep_persist", x)

    # --- reading from a replica -----------------------------------------------------------

    def read(self, x: Any, *, replica: int | Replica = 0) -> NDArray[Any]:
        """Return a copy of what a replica holds where `x` lies; the local copy is not touched.

        Parameters
        ----------
        x : array, buffer or (offset, length)
            As for `persist`.
        replica : int or Replica
            Which one.

        Returns
        -------
        ndarray
            New, with the shape and dtype of `x`; bytes for a pair.
        """
        ranges = self._copies.call("ranges_of", x)
        return transfer.copy_of(x, ranges, self._region, self._reader(replica))

    def pull(self, x: Any = None, *, replica: int | Replica = 0) -> None:
        """Overwrite all other copies with what a replica holds, durably.

        Parameters
        ----------
        x : array, buffer, (offset, length) or None
            What to overwrite; None: all arrays. What was written there and not persisted is lost.
        replica : int or Replica
            Which one to read.

        Raises
        ------
        RangeError
            `x` is not in the pool's data area.
        ReplicaLost, DeadlineExceeded, FlushFailed
            As for `persist`. What had been read by then is the same on every copy that is left;
            the rest is not changed, or counts as written and not persisted.
        StaleReplica
            The replica's catalogue is not that of the local copy (for None only).
        """
        self._check_alive()
        self._check_writable("pull")
        read = self._reader(replica)
        persist = self._copies.replicate
        if x is not None:
            ranges = self._copies.call("ranges_of", x, floor=self._copies.layout.data_start)
            transfer.into_place(ranges, self._region, read, persist)
            return
        with self._arrays.lock:
            self._check_same_catalogue(replica)
            entries = [self._arrays.entry(name) for name in self._arrays.names()]
            ranges = [(entry.offset, entry.length) for entry in entries if entry.length]
            transfer.into_place(ranges, self._region, read, persist)

    # --- the replicas ---------------------------------------------------------------------

    @property
    def replicas(self) -> list[Replica]:
        """The attached replicas, lost ones included."""
        return self._copies.replicas

    def detach(self, replica: int | Replica) -> None:
        """Go on without a replica, mostly one that was lost.

        Waits for calls in progress and begins a new generation of the pool, so that the replica
        given up is known to be behind: opening the pool with it again sends it everything.

        Parameters
        ----------
        replica : int or Replica
            Which one.

        Raises
        ------
        ReplicaLost
            Another replica is lost, too. `replica` is detached nevertheless.
        """
        self._check_alive()
        interrupts.guarded(lambda: self._copies.detach(replica))

    def attach(
        self, replica: ReplicaLike, *, create: bool = False, parts: int = 0, force: bool = False
    ) -> Replica:
        """Add a replica, or one that was lost and is back, and send it the whole pool.

        Calls of other threads wait meanwhile.

        Parameters
        ----------
        replica : replica
            As for `create`.
        create : bool
            The target has no pool there yet.
        parts : int
            As for `create`.
        force : bool
            Overwrite a newer generation, as for `open`.

        Returns
        -------
        Replica
            Equal to the local copy when this returns.

        Raises
        ------
        StaleReplica, HeaderError
            As for `open`.
        """
        self._check_alive()
        self._check_writable("attach a replica")
        spec = replica_spec(replica, parts)
        return interrupts.guarded(
            lambda: self._copies.attach(spec, create=create, force=force),
            lambda joined: self._copies.withdraw(joined, remove=create),
            undo_s=interrupts.UNDO if create else interrupts.FAREWELL,
        )

    # --- what it is -----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes from the header to the end of the data area."""
        return self._copies.layout.pool_size

    @property
    def where(self) -> str:
        """The local file, or what the buffer is."""
        return self._copies.local.where

    @property
    def medium(self) -> str:
        """What lies below the local copy: ``"pmem"``, ``"page"`` or ``"volatile"``."""
        return self._region.medium

    @property
    def level(self) -> str:
        """What an acknowledged `persist` is worth on the weakest replica.

        ``"unknown"``: the target does not tell what its medium is; ``"visible"``: in the replica's
        memory; ``"persistent"``: survives the replica's power as far as its medium does. Without
        replicas: on the local copy.
        """
        levels = [replica.level for replica in self.replicas]
        if not levels:
            return "visible" if self.medium == "volatile" else "persistent"
        return min(levels, key=LEVELS.index)

    @property
    def lanes(self) -> int:
        """How many calls can be on their way to the replicas at once."""
        lanes: int = self._copies.core.lanes
        return lanes

    @property
    def state(self) -> State:
        """Generation and phase of the local copy.

        The generation counts how often the pool was opened for writing, and replicas that came
        and went. A pool opened with ``readonly=True`` shows how its last writer left it.
        """
        return self._copies.state

    @property
    def has_writer(self) -> bool:
        """Whether another process has the pool open for writing at this moment.

        For a pool that was opened with ``readonly=True``; otherwise this process is the writer, and
        the answer is False.
        """
        return self._copies.local.has_writer

    @property
    def attributes(self) -> PoolAttributes | None:
        """What the local header says."""
        return self._copies.local.attributes

    @property
    def free(self) -> int:
        """Bytes of the data area that no array takes up, not necessarily in one stretch."""
        self._check_alive()
        taken = self._arrays.entries()
        room = self.size - self._copies.layout.data_start
        return room - sum(each.end - each.offset for each in taken)

    def __repr__(self) -> str:
        if self.closed:
            return f"<Pool {self.where}: closed>"
        return f"<Pool {self.where}: {self.size} bytes, {len(self.replicas)} replicas>"

    def _reader(self, replica: int | Replica) -> transfer.Read:
        index, _ = self._copies.find(replica)
        return lambda buffer, offset: self._copies.call("read", index, buffer, offset)

    def _check_same_catalogue(self, replica: int | Replica) -> None:
        layout = self._copies.layout
        theirs = bytearray(layout.data_start)
        self._reader(replica)(memoryview(theirs)[HEADER_SIZE:], HEADER_SIZE)
        medium = PoolMedium(Region.from_buffer(theirs))
        found = Catalogue.read(medium, layout)
        if dict(found.entries) != {name: self.entry(name) for name in self.names()}:
            raise StaleReplica(
                "the replica's catalogue is not that of the local copy",
                where=resync.name_of(self._copies.find(replica)[1]),
                hint="Close the pool and use Pool.restore",
            )
