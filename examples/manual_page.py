"""The example of librpmem's manual page: replicate memory, make two ranges durable, close.

    python examples/manual_page.py [TARGET [POOL_SET]]

TARGET is [user@]host[:port]; without one, rpmemd runs as a child process on this machine, and the
pool is in the home directory.
"""

import argparse
import mmap
import sys

import rpmem

SIZE = 4 << 20
HEADER = 4096  # the first page of a pool is its header; do not write to it


def main(target: str, pool_set: str) -> None:
    memory = mmap.mmap(-1, SIZE)  # any writable buffer: a bytearray, a numpy array
    attributes = rpmem.PoolAttributes(signature=b"MANPAGE", major=1)

    # parts=1: let the target write the pool set file if it does not exist.
    with rpmem.create(
        target, pool_set, memory, nlanes=4, attributes=attributes, parts=1
    ) as replica:
        half = (SIZE - HEADER) // 2
        memory[HEADER : HEADER + 5] = b"first"
        replica.persist(HEADER, half)
        memory[HEADER + half : HEADER + half + 6] = b"second"
        replica.persist(HEADER + half, half, lane=1)

        found = bytearray(6)
        replica.read(found, HEADER + half)
        print(f"{replica}: {replica.nlanes} lanes, {replica.step}, {replica.medium} medium")
        print("over there:", found.decode())

    rpmem.remove(target, pool_set, pool_set=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("target", nargs="?", default="local:")
    parser.add_argument("pool_set", nargs="?", default="manpage.set")
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
