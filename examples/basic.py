"""Create, open or remove a pool on a target, as librpmem's example "basic" does.

    python examples/basic.py create TARGET POOL_SET [BYTES]
    python examples/basic.py open   TARGET POOL_SET [BYTES]
    python examples/basic.py remove TARGET POOL_SET

TARGET is [user@]host[:port], or local: for rpmemd as a child process on this machine.
"""

import argparse
import sys

import rpmem

HEADER = 4096


def create(target: str, pool_set: str, size: int) -> None:
    memory = bytearray(size)
    memory[HEADER:] = bytes(range(256)) * ((size - HEADER) // 256)
    attributes = rpmem.PoolAttributes(signature=b"EXAMPLE", major=1, user_flags=b"sixteen bytes...")
    with rpmem.create(target, pool_set, memory, attributes=attributes, parts=1) as replica:
        replica.persist(HEADER, size - HEADER)
        print(f"created with {replica.pool_size} bytes, {replica.nlanes} lanes")


def open_again(target: str, pool_set: str, size: int) -> None:
    memory = bytearray(size)
    with rpmem.open(target, pool_set, memory) as replica:
        replica.read(memory, 0)  # opening copies nothing, in either direction
        found = replica.attributes
        if found is not None:
            name = found.signature.rstrip(b"\0").decode()
            print(f"opened: signature {name}, version {found.major}, {found.user_flags!r}")
        whole = memory[HEADER:] == bytes(range(256)) * ((size - HEADER) // 256)
        print("its bytes are", "as they were created" if whole else "others")


def main(verb: str, target: str, pool_set: str, size: int) -> None:
    match verb:
        case "create":
            create(target, pool_set, size)
        case "open":
            open_again(target, pool_set, size)
        case "remove":
            rpmem.remove(target, pool_set, pool_set=True)
            print("removed")


def size_in_pages(text: str) -> int:
    size = int(text)
    if size <= HEADER or size % HEADER:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of {HEADER}, two at least")
    return size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("verb", choices=["create", "open", "remove"])
    parser.add_argument("target")
    parser.add_argument("pool_set")
    parser.add_argument("size", type=size_in_pages, nargs="?", default=4 << 20)
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
