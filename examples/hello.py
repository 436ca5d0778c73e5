"""Say hello to the next run: every run shows the message that the one before left on the target.

    python examples/hello.py [TARGET [POOL_SET]]

Run it several times. To remove the pool: python examples/basic.py remove local: hello.set
"""

import argparse
import sys

import rpmem

SIZE = 2 << 20
PLACE = 4096
ROOM = 64
GREETINGS = [
    "Hello world!",
    "Hallo Welt!",
    "Bonjour tout le monde !",
    "¡Hola, mundo!",
    "Witaj świecie!",
    "こんにちは世界",
]


def connect(target: str, pool_set: str, memory: bytearray) -> rpmem.Replica:
    """Open the pool, or create it if there is none."""
    try:
        return rpmem.open(target, pool_set, memory)
    except rpmem.PoolSetNotFound:
        attributes = rpmem.PoolAttributes(signature=b"HELLO", major=1)
        return rpmem.create(target, pool_set, memory, attributes=attributes, parts=1)


def main(target: str, pool_set: str) -> None:
    memory = bytearray(SIZE)

    with connect(target, pool_set, memory) as replica:
        greeting = memoryview(memory)[PLACE : PLACE + ROOM]
        replica.read(greeting, PLACE)
        found = bytes(greeting).rstrip(b"\0").decode()
        print(f"{target} says: {found}" if found else f"{target} says nothing yet")

        following = (GREETINGS.index(found) + 1) % len(GREETINGS) if found else 0
        greeting[:] = GREETINGS[following].encode().ljust(ROOM, b"\0")
        replica.persist(PLACE, ROOM)
        greeting.release()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("target", nargs="?", default="local:")
    parser.add_argument("pool_set", nargs="?", default="hello.set")
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
