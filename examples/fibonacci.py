"""Fibonacci numbers, one per run, with a state that no crash can tear.

    python examples/fibonacci.py [TARGET [POOL_SET]]

Each of two slots holds a state; one 8-byte word says which of them is valid. A run writes the other
slot, makes it durable, and then changes the word: after any crash, a strict persist, the default,
leaves either the old word or the new one on the target.
"""

import argparse
import sys

import numpy as np

import rpmem

HEADER = 4096
STATE = np.dtype([("index", "<u8"), ("previous", "<u8"), ("current", "<u8")])


def connect(target: str, pool_set: str, memory: np.ndarray) -> rpmem.Replica:
    """Open the pool, or create it if there is none."""
    try:
        return rpmem.open(target, pool_set, memory)
    except rpmem.PoolSetNotFound:
        attributes = rpmem.PoolAttributes(signature=b"FIBO", major=1)
        return rpmem.create(target, pool_set, memory, attributes=attributes, parts=1)


def main(target: str, pool_set: str) -> None:
    memory = np.zeros(2 << 20, "u1")
    which = memory[HEADER : HEADER + 8].view("<u8")  # 0: no state yet, else 1 + the slot
    slots = memory[HEADER + 64 : HEADER + 64 + 2 * STATE.itemsize].view(STATE)

    with connect(target, pool_set, memory) as replica:
        replica.read(memory[HEADER : HEADER + 4096], HEADER)
        if which[0] == 0:
            new, state = 0, (0, 1, 0)
        else:
            index, previous, current = slots[which[0] - 1].tolist()
            new, state = 2 - int(which[0]), (index + 1, current, (previous + current) % 2**64)

        slots[new] = state
        replica.persist(HEADER + 64 + new * STATE.itemsize, STATE.itemsize)
        which[0] = 1 + new
        replica.persist(HEADER, 8)

    print(f"F({state[0]}) = {state[2]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("target", nargs="?", default="local:")
    parser.add_argument("pool_set", nargs="?", default="fibonacci.set")
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
