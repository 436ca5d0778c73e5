"""The resources of an open pool, from its assembled copies to its end."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from rpmem.base import interrupts
from rpmem.base.handles import Closing
from rpmem.base.pool_format import POOL_FLOOR
from rpmem.errors import ForkedError, RpmemError, UsageError
from rpmem.pool import maps
from rpmem.pool.arrays import NamedArrays
from rpmem.pool.assembly import Assembly
from rpmem.pool.catalogue.catalogue import Catalogue
from rpmem.pool.copies import Copies
from rpmem.pool.medium import PoolMedium
from rpmem.pool.tracking.noted import Noted
from rpmem.pool.tracking.tracking import Tracking, Wanted
from rpmem.pool.tracking.ways import set_for
from rpmem.pool.verifying import Verifier
from rpmem.session.options import SessionOptions

#: Between looks for views that nobody uses any more; then they are taken for used.
_PAUSES_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.0)

log = logging.getLogger(__name__)


class OpenPool(Closing):
    """Copies, memory and arrays of a pool, which end together.

    Parameters
    ----------
    parts : Assembly
        Copies that are all equal.
    options : SessionOptions
        How replicas are reached.
    readonly : bool
        The local copy is only read.
    tracking : str
        How changes are found; see `rpmem.Pool.create`.
    """

    _instead = (
        "Copy what is in it (numpy.array(pool[name])), or open the pool in the other process."
    )

    def __init__(
        self, parts: Assembly, options: SessionOptions, *, readonly: bool, tracking: Wanted
    ) -> None:
        if readonly or (tracking == "auto" and not parts.copy.keeps_zeros):
            # Whoever else has a buffer may store to it by ways that are not seen.
            tracking = "off"
        self._region = parts.copy.region
        # Whoever has a buffer may store to all of it.
        keeps = parts.copy.keeps_zeros and not readonly
        touched = set_for(self._region) if keeps else None
        noted = Noted(touched, keep=tracking != "off")
        copies = Copies(parts, options, noted.note)
        self._readonly = readonly
        self._pid = os.getpid()
        layout = parts.layout
        medium = PoolMedium(self._region, copies.replicate_many, touched)
        catalogue = parts.catalogue
        if catalogue is None:
            catalogue = Catalogue.format(medium, layout, zeroed=parts.zeroed)
            copies.found()
            parts.copy.publish()
        elif not readonly:
            catalogue.settle(medium, keeps_zeros=parts.copy.keeps_zeros)
        self._arrays = NamedArrays(self._region, catalogue, writable=not readonly, touched=touched)
        self._tracking = Tracking(
            self._region,
            copies,
            floor=POOL_FLOOR,
            size=layout.pool_size,
            mark=lambda: catalogue.mark,
            noted=noted,
            wanted=tracking,
            touched=touched,
        )
        self._copies = copies
        self._verifier: Verifier | None = None
        if len(copies.absent):
            # They are to be sent what is stored from now on, and nothing else.
            self._tracking.begin()

    @classmethod
    def _over(
        cls,
        make: Callable[[], Assembly],
        options: SessionOptions,
        *,
        undo: Callable[[Assembly], None],
        readonly: bool = False,
        tracking: Wanted = "auto",
    ) -> Self:
        made = make()
        try:
            return cls(made, options, readonly=readonly, tracking=tracking)
        except BaseException:
            undo(made)
            raise

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._copies.ended

    def close(self) -> None:
        """Make all copies equal, mark them as complete, disconnect the replicas and unmap.

        What was stored and not persisted is persisted, as far as that is possible: a replica that
        is lost meanwhile is not marked. Closing again is harmless. Calls in progress in other
        threads are waited for.

        Raises
        ------
        BufferError
            Views of arrays exist; nothing was closed. Drop them and try again.
        FlushFailed
            The local medium refused data or the mark; the pool is closed nevertheless.
        """
        if self._is_forked():
            raise ForkedError(
                "the pool belongs to the parent process", where=self._copies.local.where
            )
        interrupts.guarded(self._close)

    def _close(self) -> None:
        if not self._region.closed:
            self._refuse_live_views()
        with self._unverified(), self._arrays.lock:
            if self._region.closed:
                return
            self._refuse_live_views()
            try:
                self._finish()
            finally:
                self._tracking.close()
                self._copies.local.close()

    def __enter__(self) -> Self:
        self._check_alive()
        return self

    def _leave(self) -> None:
        if not self._is_forked():
            interrupts.guarded(self._end)

    def _unverified(self) -> AbstractContextManager[None]:
        """Let nobody compare the copies meanwhile."""
        return nullcontext() if self._verifier is None else self._verifier.ended()

    def _end(self) -> None:
        with self._unverified(), self._arrays.lock:
            try:
                self._finish()
            finally:
                self._let_go()

    def _finish(self) -> None:
        """End the copies, and mark them as complete."""
        if self._readonly:
            self._copies.end(None)
            return
        room: Sequence[int] = ()
        if not self._copies.ended:
            try:
                self._arrays.tidy()
            except RpmemError as error:
                log.info("the catalogue stays as it is: %s", error)
            try:
                length = maps.length_for(self._copies.layout)
                room = self._arrays.spare_room(length, self._copies.partings)
            except RpmemError as error:
                log.info("there is no room for maps: %s", error)
            # The end will say what failed.
        self._copies.end(self._tracking, room)

    def _let_go(self, *, remove: bool = False) -> None:
        self._tracking.close()
        try:
            self._copies.local.close(remove=remove)
        except BufferError:
            self._copies.local.release()

    def _unmake(self) -> None:
        """Undo the creation: all copies are removed."""
        self._copies.abandon(remove=True)
        self._let_go(remove=True)

    def _unrestore(self) -> None:
        """Undo the restore: the local copy is removed, unless it is the only one."""
        alone = all(replica.failure is not None for replica in self._copies.replicas)
        self._copies.abandon(remove=False)
        self._let_go(remove=not alone)

    def __del__(self) -> None:
        copies = getattr(self, "_copies", None)
        if copies is None or copies.ended or self._is_forked() or sys.is_finalizing():
            return
        text = f"{self!r} was never closed"
        copies.drop()
        self._tracking.close()
        warnings.warn(text, ResourceWarning, stacklevel=2)

    def _check_alive(self) -> None:
        self._copies.call("check_usable")

    def _check_writable(self, what: str) -> None:
        if self._readonly:
            raise UsageError(f"cannot {what}: the pool was opened with readonly=True")

    def _is_forked(self) -> bool:
        return os.getpid() != self._pid

    def _refuse_live_views(self) -> None:
        live = self._arrays.live()
        for pause_s in _PAUSES_S:
            if not live:
                return
            # It does nothing while another thread collects: then that one has to end first.
            gc.collect()
            live = self._arrays.live()
            if live:
                time.sleep(pause_s)
        if live:
            names = ", ".join(map(repr, live))
            raise BufferError(f"the pool cannot be closed while views of {names} exist")
