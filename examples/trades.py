"""A ring of trades in a structured array: every trade is on two machines before it counts.

    python examples/trades.py LOCAL_FILE REPLICA [HOW_MANY]
    python examples/trades.py trades.pool "local: trades.set" 1000

Each run adds trades to those of earlier runs, and shows the newest.
"""

import argparse
import os
import random
import sys

import numpy as np

import rpmem

ROOM = 4096
AT_ONCE = 50
TRADE = np.dtype([("time", "M8[us]"), ("symbol", "S8"), ("price", "f8"), ("size", "u4")])


class Ring:
    """The newest trades, and the total number of trades.

    The oldest `AT_ONCE` rows of a full ring do not count: new trades may be half written there.
    """

    def __init__(self, pool: rpmem.Pool) -> None:
        self.pool = pool
        self.trades = pool.array("trades", ROOM, TRADE)
        self.count = pool.array("count", 1, "u8")

    def add(self, *trades: tuple) -> None:
        """Add up to `AT_ONCE` trades: all of them or, after a crash, none."""
        first = int(self.count[0])
        rows = [(first + index) % ROOM for index in range(len(trades))]
        for row, trade in zip(rows, trades, strict=True):
            self.trades[row] = trade
        self.pool.persist_many(self.trades[row : row + 1] for row in rows)
        # Until this word is durable, the rows above do not count.
        self.count[0] = first + len(trades)
        self.pool.persist(self.count)

    def newest(self, how_many: int) -> np.ndarray:
        """Return the newest trades, oldest first."""
        count = int(self.count[0])
        how_many = min(how_many, count, ROOM - AT_ONCE)
        return self.trades[np.arange(count - how_many, count) % ROOM]


def made_up() -> tuple:
    symbol = random.choice([b"ALPHA", b"BETA", b"GAMMA"])
    return np.datetime64("now", "us"), symbol, random.gauss(100, 5), random.randint(1, 500)


def main(path: str, replica: str, how_many: int) -> None:
    if os.path.exists(path):
        pool = rpmem.Pool.open(path, replica)
    else:
        pool = rpmem.Pool.create(path, "4MiB", replica, parts=1)
    with pool:
        ring = Ring(pool)
        print(f"{ring.count[0]} trades so far")
        for begin in range(0, how_many, AT_ONCE):
            ring.add(*(made_up() for _ in range(min(AT_ONCE, how_many - begin))))
        print(f"{ring.count[0]} trades now, the newest:")
        for time, symbol, price, size in ring.newest(5).tolist():
            print(f"  {time:%H:%M:%S}  {symbol.decode():6} {price:8.2f} x {size}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("path")
    parser.add_argument("replica")
    parser.add_argument("how_many", type=int, nargs="?", default=1000)
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
