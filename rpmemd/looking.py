"""What an initiator sees without opening a pool: one pool's bytes, and which pool sets there are.

Nothing is locked and nothing changed, so it works beside whoever uses the pool, and with files that
may only be read. What is read may be in the middle of a change: who looks reads again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rpmem.base.handles import Closing
from rpmem.control.messages import (
    MAX_LISTED,
    Content,
    List,
    Listed,
    Look,
    Peek,
    PoolSetRow,
    Seen,
)
from rpmem.errors import RangeError
from rpmem.files.poolfiles import PoolFiles
from rpmemd.database import Database
from rpmemd.listing import rows


class Looker(Closing):
    """Answers the requests of one session that looks.

    Parameters
    ----------
    database : Database
        The pool sets it may see.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool: PoolFiles | None = None
        self._rows: Iterator[PoolSetRow] | None = None
        self._next: PoolSetRow | None = None

    def answer(self, request: Look | Peek | List) -> Seen | Content | Listed:
        """Carry out a request.

        Raises
        ------
        PoolSetError, HeaderError
            There is no such pool, or it cannot be looked at.
        RangeError
            The bytes asked for are not in the pool.
        """
        match request:
            case Look(pool_set=name):
                return self._look(name)
            case Peek(offset=offset, length=length):
                return self._peek(offset, length)
            case List():
                return self._list()

    def _look(self, name: str) -> Seen:
        pool = self._pool = self._database.look(name)
        return Seen(
            pool_size=pool.size,
            attributes=None if pool.attributes is None else pool.attributes.pack(),
            medium=pool.region.medium,
            writer=pool.has_writer,
        )

    def _peek(self, offset: int, length: int) -> Content:
        pool = self._pool
        if pool is None or offset + length > pool.size:
            raise RangeError(f"there are no {length} bytes at {offset} to look at")
        with memoryview(pool.region) as view:
            data = bytes(view[offset : offset + length])
        # Asked afterwards: a writer that came meanwhile may have changed them.
        return Content(data=data, writer=pool.has_writer)

    def _list(self) -> Listed:
        if self._rows is None:
            self._rows = rows(self._database)
            self._next = next(self._rows, None)
        page = [] if self._next is None else [self._next]
        page.extend(islice(self._rows, MAX_LISTED - 1))
        self._next = next(self._rows, None)
        return Listed(sets=tuple(page), last=self._next is None)

    def close(self) -> None:
        """Unmap what was looked at."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
