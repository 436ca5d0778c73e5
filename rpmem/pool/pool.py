"""Pool: memory, a file or a pool set that holds named arrays, and its replicas."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from rpmem.base import interrupts
from rpmem.errors import ClosedError, RangeError, StaleReplica, UsageError
from rpmem.files.drafts import PRIVATE
from rpmem.pool import assembly, restoring, resync, transfer
from rpmem.pool.arrays import Views
from rpmem.pool.attrs import Attrs
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.catalogue.entries import Entry
from rpmem.pool.findings import Report
from rpmem.pool.forms import Form, forms_of
from rpmem.pool.lifetime import OpenPool
from rpmem.pool.local import place_of
from rpmem.pool.options import (
    ReplicaLike,
    lost_copies,
    mode_of,
    named_among,
    replica_spec,
    replica_specs,
    size_of,
    source_specs,
)
from rpmem.pool.progress import Progress, checked
from rpmem.pool.tracking.tracking import Mode, wanted_of
from rpmem.pool.verification import LOCAL
from rpmem.pool.verifying import Verifier
from rpmem.session.options import SessionKeywords, SessionOptions
from rpmem.session.replica import LEVELS, Replica

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray
    from typing_extensions import Buffer

    from rpmem.epochs.record import CopyRecord, Epoch, Stamp
    from rpmem.files.attributes import PoolAttributes

_NO_FLAGS = bytes(16)


class Pool(OpenPool):
    """Named arrays in memory that is replicated.

    Use `create`, `open` or `restore` to get a pool. Its arrays are ordinary numpy arrays in the
    pool's memory; ``pool.persist(view)`` makes what was written to them durable.

    What durable means
        When `persist` returns, the range has been flushed to the local medium, and every replica
        has flushed and acknowledged it. Both happen at the same time. What a flush is worth
        depends on the medium (`medium`, `Replica.medium`): ``"pmem"`` and ``"page"`` survive a
        power failure, ``"volatile"`` (tmpfs, a buffer) does not outlive its machine. Data that was
        only written, or flushed without `drain`, may or may not survive on any copy.

    What changed
        `persist` without a range sends the pages that changed since they were last durable on
        every copy. With ``tracking="kernel"`` the kernel tells which pages were stored to (Linux
        6.7 and newer, but not on DAX): looking at 1 GiB takes half a millisecond, and the first
        store to a page after each look a microsecond more. Memory that is rewritten as a whole
        again and again is not looked at page by page: it is sent as a whole, once more than needed.
        With ``"digest"`` a digest of each page is compared, which takes about 0.1 s of a core for 1
        GiB. ``"auto"`` is the first of them that works with the pool's files, and ``"off"`` for a
        buffer, which others may store to by ways that are not seen. ``"off"`` sends the whole pool
        each time.

        All see every store of this process through the pool's memory: by numpy and other
        libraries, by C code, and by system calls such as read. Stores that come another way are not
        seen, or by digests only: through another mapping of the same file, by ``pwrite``, of
        another process, or by a device (O_DIRECT, RDMA of other libraries). For these, name the
        range, which is then sent whatever happened, or call `touched`. Once the process has forked,
        digests are compared, so that what a child stores is seen.

    When a replica is lost
        `persist` raises `ReplicaLost` (or another error that names the replica) after the other
        replicas and the local copy have finished: there the data *is* durable. Every later call
        raises again until the replica is given up with `detach`, so a program never goes on
        with fewer copies than it asked for without saying so.

    Threads
        All methods may be called from several threads at once; those that wait release the GIL.
        Each call takes a lane; calls whose ranges overlap, even if only between the elements of
        strided views, run one after another. Arrays are created and deleted one at a time. If
        two threads write to the same bytes, they have to agree on the order themselves.

    Processes
        A pool belongs to the process that opened it, and is locked against others. After
        ``fork()`` its methods raise `ForkedError` in the child.

    Signals
        If a signal handler raises, for instance KeyboardInterrupt, the current call ends within
        0.2 s, unless a single system call takes longer. The data of that call is not
        acknowledged. Whatever the call was creating, opening or attaching is undone first; a
        target gets 2 s for its part, and the exception's notes name what may be left there.

    Ending
        `close` unmaps the memory; it raises BufferError while views of arrays exist, since a view
        of unmapped memory would crash the process. Leaving a ``with`` block always ends the
        replication and releases the lock; the memory is unmapped together with the last view, and
        what views store after the block reaches no file. Both first persist what was stored and
        not persisted, on every copy, and mark all copies as complete: no copy shows what another
        one does not. If a replica is lost meanwhile, it is not marked, and only the log says so.

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
        tracking: str = "auto",
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Create an empty pool and all its replicas.

        Parameters
        ----------
        local : path or buffer
            A file that does not exist, a poolset(5) file whose parts do not exist, or a writable
            C-contiguous buffer, which is overwritten.
        size : int or str, optional
            Size of a plain file in bytes, or such as ``"64MiB"``; at least 2 MiB. Pool sets and
            buffers already have a size.
        replicas : iterable of replicas, optional
            ``"TARGET NAME.set"``, ``(target, "NAME.set")`` or `ReplicaSpec`. None: those of the
            ``REPLICA`` lines of the poolset file.
        parts : int
            Let each target write the pool set file itself, with this many parts; 0: it exists.
        mode : int
            Permissions of new local files; the umask is ignored. Anyone who may read a pool can
            lock it, and so keep others from opening it. On targets, the option ``file-mode``
            decides.
        user_flags : bytes
            16 bytes for the header; zeros: the machine's architecture, as PMDK does.
        tracking : {"auto", "kernel", "digest", "off"}
            How changes are found; see the class.
        **session
            How to reach the replicas: ``nlanes``, ``timeout``, ``provider``, ``step`` and
            ``launcher``, see `rpmem.session.options.SessionOptions`.

        Returns
        -------
        Pool
            Its empty catalogue is durable here and on every replica.

        Raises
        ------
        PoolSetExists
            There already is a pool.
        PoolSetError, LaunchError, FabricError
            A copy could not be created. Nothing is left behind on either side, except perhaps on
            a target that was lost meanwhile; the log then says so.
        """
        place, options = place_of(local), SessionOptions(**session)
        specs = place.replicas if replicas is None else replica_specs(replicas)
        specs = [replica_spec(spec, parts) for spec in specs]
        wanted, permissions, how = size_of(size), mode_of(mode), wanted_of(tracking)
        return interrupts.guarded(
            lambda: cls._over(
                lambda: assembly.create(place, wanted, specs, options, user_flags, permissions),
                options,
                undo=lambda made: made.undo(remove=True),
                tracking=how,
            ),
            lambda pool: pool._unmake(),
            undo_s=interrupts.UNDO_S,
        )

    @classmethod
    def open(
        cls,
        local: str | os.PathLike[str] | Buffer,
        replicas: Iterable[ReplicaLike] | ReplicaLike | None = None,
        *,
        readonly: bool = False,
        discard: Iterable[ReplicaLike] | ReplicaLike = (),
        progress: Progress | None = None,
        rate_limit: int | str | None = None,
        tracking: str = "auto",
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Open a pool and its replicas.

        A replica that may differ from the local copy, as one of them was not closed or the pool was
        used without it, is sent the pages that it has missed, or that differ (by PMDK's rpmemd,
        all). A new epoch begins with the copies named here; members that are not are given up.

        Parameters
        ----------
        local : path or buffer
            As for `create`.
        replicas : iterable of replicas, optional
            None: those of the ``REPLICA`` lines of the poolset file. The next open with one that is
            left out sends it what it lacks.
        readonly : bool
            Only look at the local copy: no replica is connected, arrays are read-only, nothing is
            changed. Files need not be writable and are not locked, so another process may write
            meanwhile (`has_writer`). Arrays then show what it stores, durable or not; the names are
            those that existed when the pool was opened.
        discard : iterable of replicas
            Those of the replicas that may be overwritten even if they hold what the local copy does
            not: acknowledged data that only they have is lost.
        progress, rate_limit : optional
            As for `restore`, while a replica is sent the pool.
        tracking, **session
            As for `create`.

        Returns
        -------
        Pool
            All its replicas equal the local copy.

        Raises
        ------
        StaleReplica
            A replica holds everything that the local copy does, and more: the local copy is out of
            date. Use `restore`, or `discard`.
        SplitBrain
            A replica and the local copy each hold what the other lacks: `restore`, or `discard`.
        HeaderError
            A replica or a part belongs to another pool.
        CatalogueCorrupt
            The local copy cannot be read: use `restore`. Or the record of a replica is damaged: use
            `discard`, if the local copy is the one to keep.
        PoolSetError, LaunchError, FabricError
            A copy could not be opened.
        """
        place, options = place_of(local), SessionOptions(**session)
        specs = place.replicas if replicas is None else replica_specs(replicas)
        discarded = named_among(specs, discard)
        told, how = checked(progress, rate_limit), wanted_of(tracking)
        all_of = functools.partial(assembly.open_all, discard=discarded, progress=told)
        make = functools.partial(all_of, place, specs, options)
        if readonly:
            make = functools.partial(assembly.open_readonly, place)
        return interrupts.guarded(
            lambda: cls._over(make, options, undo=_disconnect, readonly=readonly, tracking=how),
            lambda pool: pool.close(),
        )

    @classmethod
    def restore(
        cls,
        local: str | os.PathLike[str] | Buffer,
        replicas: Iterable[ReplicaLike] | ReplicaLike,
        *,
        lost: Iterable[ReplicaLike] | ReplicaLike = (),
        mode: int = PRIVATE,
        progress: Progress | None = None,
        rate_limit: int | str | None = None,
        tracking: str = "auto",
        **session: Unpack[SessionKeywords],
    ) -> Self:
        """Create a new local copy of a pool from the best of its replicas.

        The newest epoch that one of them records wins. Copies that have everything acknowledged in
        it are read at the same time; what arrives is compared with digests of what they hold, and
        where it is something else the next one is read. Where copies of a closed pool differ, most
        of them are right. Replicas that hold less are never read, but sent what they lack.

        A new epoch begins with the new copy and these replicas. All other ones are given up: they
        can be attached again, unless somebody has gone on with one of them meanwhile.

        Parameters
        ----------
        local : path or buffer
            As for `create`; a buffer has at least the pool's size. Files get their names only when
            they are complete and durable; an existing file is never touched.
        replicas : iterable of replicas
            One, or all that there are. One that cannot be reached has to be named in `lost`, too.
        lost : iterable of replicas
            Other copies that may be left out whatever they hold: replicas, or uuids as ``rpmem
            info`` shows them. The local copy that is restored need not be named.
        progress : callable, optional
            ``progress(done_bytes, total_bytes, what)`` is called now and then, perhaps in another
            thread. What it raises undoes the call, as an interrupt does, and is raised here.
        rate_limit : int or str, optional
            The most bytes that are read, compared or sent in a second, or such as ``"100MB"``.
        mode, tracking, **session
            As for `create`.

        Returns
        -------
        Pool
            Open, with these replicas, lost ones too: calls raise until those are detached.

        Raises
        ------
        NotProvenNewest
            A copy that was not reached may hold more.
        CatalogueCorrupt, StaleReplica
            None of the newest replicas holds a complete pool, or they are mixtures.
        SplitBrain
            Two replicas each hold what the other lacks: name one of them, and the other in `lost`.
        CopyCorrupt
            No copy sends what it holds, or copies of a closed pool differ.
        PoolSetError, LaunchError, FabricError, ReplicaLost
            A copy could not be created, as a file of that name exists, or not be read. Nothing is
            left behind, unless all replicas were lost once the local copy was complete.
        """
        options = SessionOptions(**session)
        specs = source_specs(replicas)
        place, permissions, given_up = place_of(local), mode_of(mode), lost_copies(lost)
        told, how = checked(progress, rate_limit), wanted_of(tracking)
        make = functools.partial(
            restoring.restore, place, specs, options, lost=given_up, mode=permissions, progress=told
        )
        return interrupts.guarded(
            lambda: cls._over(make, options, undo=lambda made: made.forsake(), tracking=how),
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
        """Return the array with that name; create it if it does not exist.

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
            A view of the pool's memory. A new array is filled with zeros and is durable here and on
            every replica; an existing one is as it was left.

        Raises
        ------
        ArrayExists
            The array exists with another shape, dtype or order.
        DtypeRefused
            The dtype holds Python objects, or makes no sense in other processes.
        PoolFull
            There is not enough room.
        ReplicaLost
            A replica was lost. The array may exist locally; call again after `detach` to get it.
        """
        form = Form.of(shape, dtype, order)
        self._check_alive()
        if self._readonly and name not in self:
            self._check_writable("create an array")
        if name in self._arrays:
            return self._arrays.open_or_create(name, form)
        return interrupts.guarded(lambda: self._arrays.open_or_create(name, form))

    def arrays(self, wanted: Mapping[str, tuple[Any, ...]]) -> Views:
        """Return many arrays; create those that do not exist, all of them in one change.

        Parameters
        ----------
        wanted : mapping
            ``(shape, dtype)`` or ``(shape, dtype, order)`` by name, each as for `array`.

        Returns
        -------
        Mapping of str to ndarray
            The arrays by name, in the order of `wanted`. Each view is made when it is asked for.

        Raises
        ------
        ArrayExists, DtypeRefused, PoolFull, ReplicaLost
            As for `array`. A crash or an error leaves all new arrays there, or none of them.
        """
        forms = forms_of(wanted)
        self._check_alive()
        if self._readonly and any(name not in self for name in forms):
            self._check_writable("create an array")
        interrupts.guarded(lambda: self._arrays.require(forms))
        return Views(self._arrays, forms)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a view of an existing array; raise `ArrayNotFound` if it does not exist."""
        self._check_alive()
        return self._arrays.open(name)

    def __delitem__(self, name: str) -> None:
        """Delete an array, durably here and on every replica.

        Raises BufferError while a view of it exists. Its space can be reused immediately.
        """
        self._check_alive()
        self._check_writable("delete an array")
        interrupts.guarded(lambda: self._arrays.remove(name))

    def rename(self, old: str, new: str) -> None:
        """Give an array another name, durably here and on every replica; its views live on.

        Raises
        ------
        ArrayNotFound, ArrayExists
            There is no array with the old name, or one with the new.
        UsageError, PoolFull, ReplicaLost
            As for `array`.
        """
        self._check_alive()
        self._check_writable("rename an array")
        interrupts.guarded(lambda: self._arrays.rename(old, new))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a view of an array, or `default` if it does not exist."""
        self._check_alive()
        # Not by catching the error: that one lists names, of which there may be very many.
        with self._arrays.lock:
            return self._arrays.open(name) if name in self._arrays else default

    def keys(self) -> list[str]:
        """Return the names of all arrays, as `names` does."""
        return self.names()

    def items(self) -> ItemsView[str, NDArray[Any]]:
        """Return names and arrays as of now; each view is made when it is come to."""
        return Views(self._arrays, self.names()).items()

    def attrs(self, name: str | None = None) -> Attrs:
        """Return the attributes of an array, or of the pool: a mapping of str to JSON values.

        Parameters
        ----------
        name : str, optional
            The array; without one, the pool.

        Returns
        -------
        MutableMapping
            Each change of it is durable here and on every replica when it returns; ``update`` is
            one change. It holds up to 64 KiB of JSON. Those of an array go when it is deleted, and
            stay when it is renamed.

        Raises
        ------
        ArrayNotFound
            There is no such array.
        UsageError, PoolFull, ReplicaLost
            A change that is no JSON or too large, or as for `array`.
        """
        self._check_alive()
        self._arrays.attrs_of(name)

        def load() -> str:
            self._check_alive()
            return self._arrays.attrs_of(name)

        def change(how: Callable[[str], str]) -> None:
            self._check_alive()
            self._check_writable("change attributes")
            interrupts.guarded(lambda: self._arrays.change_attrs(name, how))

        return Attrs(load, change)

    def names(self) -> list[str]:
        """Return the names of all arrays, in the order of their creation; a renamed one is last."""
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

    def persist(self, x: Any = None, *, relaxed: bool = False, narrow: bool = False) -> None:
        """Make a range, or everything that changed, durable here and on every replica.

        Without a range, pages are sent that changed since they were last durable on every copy; the
        first such call of an open pool sends all that is in use. What a failed call was to send is
        sent by the next one. If nothing changed, nothing is sent, and a replica that was lost
        without any call noticing is not noticed. A range that is named is sent whatever happened to
        it.

        Parameters
        ----------
        x : array, buffer, (offset, length) or None
            An array or view of this pool with any strides, anything else that exports a buffer
            inside it, a pair of pool offsets, or None for all that changed. Bytes between the
            elements of a strided view may be made durable with them.
        relaxed : bool
            Give up the promise that, after a crash, each aligned 8-byte word is either old or new
            and never a mixture.
        narrow : bool
            Send only what changed of `x`, found as without a range.

        Raises
        ------
        RangeError, BufferRefused
            `x` is not in the pool.
        ReplicaLost, DeadlineExceeded
            A replica was lost or stopped answering. The range is durable on the local copy and the
            other replicas; the class's documentation says how to go on.
        FlushFailed
            A medium on either side refused the data: do not assume that the range is durable.
        UsageError
            The pool was opened with ``readonly=True``.
        ClosedError, ForkedError
            The pool is closed, or belongs to the parent process.
        """
        if x is None:
            self._tracking.persist(relaxed=relaxed)
        elif narrow:
            self._tracking.persist_changed(x, relaxed=relaxed)
        else:
            try:
                if relaxed:
                    self._copies.core.persist(x, relaxed=True)
                else:
                    self._copies.core.persist(x)
            except ClosedError as error:
                self._copies.again(error, "persist", x, relaxed=relaxed)

    def touched(self, x: Any) -> None:
        """Say that `x` was stored to in a way that `tracking` does not see.

        Parameters
        ----------
        x : array, buffer or (offset, length)
            As for `persist`; its pages are sent by the next `persist` without a range. To be called
            when the store is complete.
        """
        self._tracking.touched(x)

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
        """Start making a range durable; it is durable when a later `drain` returns.

        Do not write to the range until then: its bytes may be sent at any time up to the `drain`.
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
        """Return a copy of what a replica holds in the place of `x`; do not touch the local copy.

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
            What to overwrite; None: all arrays. Data written there but not persisted is lost.
        replica : int or Replica
            Which one to read.

        Raises
        ------
        RangeError
            `x` is not in the pool's data area, or the catalogue lies in it.
        ReplicaLost, DeadlineExceeded, FlushFailed
            As for `persist`. What had been read by then is the same on all remaining copies; the
            rest is unchanged, or counts as written but not persisted.
        StaleReplica
            The replica's catalogue differs from that of the local copy (only for None).
        """
        self._check_alive()
        self._check_writable("pull")
        read = self._reader(replica)
        persist = self._copies.replicate
        if x is not None:
            ranges = self._copies.call("ranges_of", x, floor=self._copies.layout.data_start)
            for offset, length in ranges:
                if self._arrays.holds_catalogue(offset, length):
                    raise RangeError(
                        f"the catalogue lies in the {length} bytes at {offset}",
                        where=self.where,
                        hint="Pull arrays, or everything",
                    )
            transfer.into_place(ranges, self._region, read, persist)
            return
        with self._arrays.lock:
            self._check_same_catalogue(replica)
            entries = [self._arrays.entry(name) for name in self._arrays.names()]
            ranges = [(entry.offset, entry.length) for entry in entries if entry.length]
            transfer.into_place(ranges, self._region, read, persist)

    # --- comparing ------------------------------------------------------------------------

    def verify(
        self,
        repair: str | int | Replica | None = None,
        *,
        deep: bool = False,
        progress: Progress | None = None,
        rate_limit: int | str | None = None,
    ) -> Report:
        """Compare the local copy with its replicas, while others go on using the pool.

        Pages that differ although they should not are reported, and nothing else: what was stored
        and not persisted yet differs too, and is only counted.

        Parameters
        ----------
        repair : str, int or Replica, optional
            The copy that gets the bytes of the others where it differs: ``"local"``, or a replica
            by its number, its name ``"TARGET NAME.set"`` or itself. No other copy is written to.
            The local one is repaired only while no views of arrays exist.
        deep : bool
            Read past the kernel's cache: what the media hold, which may be something else than
            memory shows. ``depths`` of the report says for which copies that was done: on tmpfs and
            DAX, memory is the medium.
        progress : callable, optional
            As for `restore`.
        rate_limit : int or str, optional
            Most bytes of the pool that are compared per second: 104857600, or ``"100MiB"``.

        Returns
        -------
        Report
            See `rpmem.pool.findings.Report`; ``good`` says whether all is well.

        Raises
        ------
        UsageError
            There is no replica; the replicas were changed meanwhile; the local copy is to be
            repaired while it is in use.
        ReplicaLost, DeadlineExceeded, FlushFailed
            As for `persist`.

        Notes
        -----
        *Never a false alarm.* A page is reported when all calls that sent something of it have
        ended, on every copy, and it cannot be that it was only stored to: the kernel saw no store
        to it since all copies were equal, or no view of it was ever handed out, or a replica has
        something else than it had, though nothing was sent meanwhile, or the replicas differ from
        each other.

        *What cannot be known.* A page that was stored to and not persisted is counted as
        ``unpersisted``, and one that may have been, where nobody saw it, as ``unclear``: a flipped
        bit in it is found once it was persisted, unless that has overwritten it. Stores are seen
        with ``tracking="kernel"``, from the first call of this method or of `persist` without a
        range on; so a page that differed before that, in an array that the program has opened, is
        ``unclear`` until the copies are equal there. Otherwise every page of which a view was ever
        handed out may have been stored to, and differs on the replicas' side only.

        *Stores that are not seen* (see the class) look like flipped bits of the local copy: call
        `touched` after them.
        """
        self._check_alive()
        self._check_writable("verify")
        told = checked(progress, rate_limit)
        side = None if repair is None else self._side(repair)
        with self._arrays.lock:
            if self._verifier is None:
                self._verifier = Verifier(self._copies, self._tracking, self._arrays, self._region)
        verifier = self._verifier
        return interrupts.guarded(lambda: verifier.run(repair=side, deep=deep, progress=told))

    def _side(self, side: str | int | Replica) -> int:
        """Return the number of a copy that a user names."""
        if side == "local":
            return LOCAL
        if isinstance(side, str):
            named = [resync.name_of(each) for each in self.replicas]
            if side not in named:
                raise UsageError(
                    f"{side!r} is not a copy of this pool", hint=f"It has local, {', '.join(named)}"
                )
            return named.index(side)
        return self._copies.find(side)[0]

    # --- the replicas ---------------------------------------------------------------------

    @property
    def replicas(self) -> list[Replica]:
        """The attached replicas, including lost ones."""
        return self._copies.replicas

    def detach(self, replica: int | Replica) -> None:
        """Continue without a replica, usually one that was lost.

        Waits for calls in progress and begins a new epoch of the pool without it, so that it is
        known to be out of date: opening the pool with it again compares them. A replica that
        can still be reached records that it left; another one is given up, and the epoch says so.

        Parameters
        ----------
        replica : int or Replica
            Which one.

        Raises
        ------
        ReplicaLost
            Another replica has been lost as well. `replica` is detached nevertheless.
        """
        self._check_alive()
        interrupts.guarded(lambda: self._copies.detach(replica))

    def attach(
        self,
        replica: ReplicaLike,
        *,
        create: bool = False,
        parts: int = 0,
        discard: bool = False,
        progress: Progress | None = None,
        rate_limit: int | str | None = None,
    ) -> Replica:
        """Add a new replica, or one that was lost and is back, and send it what it lacks.

        That is what was persisted since it was detached, if that is known, and otherwise what
        differs. Meanwhile, calls in other threads wait.

        Parameters
        ----------
        replica : replica
            As for `create`.
        create : bool
            The target has no pool there yet.
        parts : int
            As for `create`.
        discard : bool
            Overwrite it even if it holds what the local copy does not, as for `open`.
        progress, rate_limit : optional
            As for `restore`, while the replica is sent the pool. `progress` must not use the pool,
            whose calls wait.

        Returns
        -------
        Replica
            It equals the local copy, in everything that was persisted, when this returns.

        Raises
        ------
        StaleReplica, SplitBrain, HeaderError, CatalogueCorrupt
            As for `open`.
        """
        self._check_alive()
        self._check_writable("attach a replica")
        spec, told = replica_spec(replica, parts), checked(progress, rate_limit)
        return interrupts.guarded(
            lambda: self._copies.attach(spec, create=create, discard=discard, progress=told),
            lambda joined: self._copies.withdraw(joined, remove=create),
            undo_s=interrupts.UNDO_S if create else interrupts.FAREWELL_S,
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
        """What holds the local copy: ``"pmem"``, ``"page"`` or ``"volatile"``."""
        return self._region.medium

    @property
    def level(self) -> str:
        """What an acknowledged `persist` is worth on the weakest replica.

        ``"unknown"``: the target does not say what its medium is; ``"visible"``: in the replica's
        memory; ``"persistent"``: survives a power failure of the replica as far as its medium
        does. Without replicas: the same for the local copy.
        """
        levels = [replica.level for replica in self.replicas]
        if not levels:
            return "visible" if self.medium == "volatile" else "persistent"
        return min(levels, key=LEVELS.index)

    @property
    def tracking(self) -> Mode:
        """How `persist` without a range finds what changed: "kernel", "digest" or "off".

        A pool begins with what `create`, `open` or `restore` was asked for; "kernel" becomes
        "digest" once the process has forked.
        """
        return self._tracking.mode

    @property
    def lanes(self) -> int:
        """How many calls can be in progress at once."""
        lanes: int = self._copies.core.lanes
        return lanes

    @property
    def record(self) -> CopyRecord:
        """What the local copy records: its uuid, its epoch, and how it stands in that.

        A pool opened with ``readonly=True`` shows how its last writer left it.
        """
        return self._copies.members.mine

    @property
    def epoch(self) -> Epoch:
        """The epoch of the local copy.

        One begins each time the pool is opened for writing, restored, or a replica is attached or
        detached. All copies of one epoch have everything that was acknowledged in it.
        """
        return self.record.epoch

    @property
    def history(self) -> tuple[Stamp, ...]:
        """The epochs whose contents the pool holds, the running one first."""
        return (self.epoch.stamp, *self.epoch.history)

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
        """Bytes that arrays can still take; they need not be contiguous."""
        self._check_alive()
        return self._arrays.free

    def __repr__(self) -> str:
        if self.closed:
            return f"<Pool {self.where}: closed>"
        return f"<Pool {self.where}: {self.size} bytes, {len(self.replicas)} replicas>"

    def _reader(self, replica: int | Replica) -> transfer.Read:
        index, _ = self._copies.find(replica)
        return lambda buffer, offset: self._copies.call("read", index, buffer, offset)

    def _check_same_catalogue(self, replica: int | Replica) -> None:
        read = self._reader(replica)
        where = resync.name_of(self._copies.find(replica)[1])
        found = Catalogue.read(transfer.RemoteSource(read), self._copies.layout, where=where)
        if dict(found.entries) != {name: self.entry(name) for name in self.names()}:
            raise StaleReplica(
                "the replica's catalogue differs from that of the local copy",
                where=where,
                hint="Close the pool and use Pool.restore",
            )


def _disconnect(made: assembly.Assembly) -> None:
    made.undo(remove=False)
