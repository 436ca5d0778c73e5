"""What is cut off by a power failure: a program in the guest that persists numbered records.

    python3 -m tests.rdma.workload --look disk/0 --pool disk/1 --provider tcp --first 200

It prints what one pool's file holds (``state``), then writes to another and prints
``acknowledged N`` after every record that is durable.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import rpmem
from tests.rdma.records import HEADER, RECORD, SIZE, SLOTS, look, record
from tests.rdma.support import node
from tests.rdma.support.places import DEVICE
from tests.support import faulty_rpmemd

_PART = 2 << 20
FOLDERS = {"disk": Path("/mnt/disk"), "fsdax": Path("/mnt/pmem"), "devdax": Path("/run")}


@dataclass(frozen=True)
class Store:
    """Where a target keeps the pool, named as PLACE/NAME: a file, or all of the device."""

    place: str
    name: str

    @property
    def folder(self) -> Path:
        """Of the pool set file."""
        return FOLDERS[self.place] / f"pools-{self.name}"

    @property
    def device(self) -> bool:
        """Whether it is the device, which has no file to create."""
        return self.place == "devdax"

    @property
    def part(self) -> Path:
        """What holds the bytes."""
        return DEVICE.resolve() if self.device else self.folder / "part"

    @property
    def line(self) -> str:
        """Of the pool set."""
        return f"{'AUTO' if self.device else _PART} {self.part}"

    def content(self) -> bytes:
        """Return the records as they lie there."""
        with self.part.open("r+b") as file, mmap.mmap(file.fileno(), _PART) as view:
            return view[:SIZE]

    def clear(self) -> None:
        """Make a new pool possible."""
        if self.device:
            with self.part.open("r+b") as file, mmap.mmap(file.fileno(), _PART) as view:
                view[:SIZE] = bytes(SIZE)


def main() -> None:
    """Look at what is there, then write until the power goes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--look", type=_store, help="PLACE/NAME of a pool to look at first")
    parser.add_argument("--pool", type=_store, help="PLACE/NAME of the one to write to")
    parser.add_argument("--new", action="store_true", help="there is no such pool yet")
    parser.add_argument("--provider")
    parser.add_argument("--step", default="auto")
    parser.add_argument("--breakage", type=int, default=0)
    parser.add_argument("--first", type=int, help="number of the first record")
    options = parser.parse_args()
    if options.look is not None:
        print("state", json.dumps(look(options.look.content())), flush=True)
        print("looked", flush=True)
    if options.pool is not None:
        write(options)


def _store(text: str) -> Store:
    return Store(*text.split("/"))


def write(options: argparse.Namespace) -> None:
    """Persist one record after the other, for ever."""
    folder = options.pool.folder
    folder.mkdir(exist_ok=True)
    os.environ["RPMEM_SSH"] = str(node.make_ssh(Path("/run")))
    os.environ["RPMEM_LAUNCHER"] = "openssh"
    target = node.Node(folder, ["--persist-apm"])
    target.pool_set("a.set", options.pool.line)
    command = faulty_rpmemd.command(shadow=False, breakage=options.breakage)
    keywords = {
        "provider": options.provider,
        "step": options.step,
        "nlanes": 1,
        "command": f"{command} --poolset-dir {folder}" if options.breakage else target.command,
        "timeout": 60,
    }
    memory = mmap.mmap(-1, _PART)
    if not options.new:
        replica = rpmem.open(node.TARGET, "a.set", memory, **keywords)
        replica.read(memoryview(memory)[HEADER:], HEADER)
    else:
        options.pool.clear()
        attributes = node.ATTRIBUTES
        replica = rpmem.create(node.TARGET, "a.set", memory, attributes=attributes, **keywords)
        # What a test's own set-up needs is not what it tests.
        os.sync()
    print("serving", replica.provider, replica.step, replica.medium, replica.staged, flush=True)
    number = options.first
    while True:
        at = HEADER + number % SLOTS * RECORD
        memory[at : at + RECORD] = record(number)
        if number % 3 == 2:
            replica.flush(at, RECORD)
            replica.drain()
        else:
            replica.persist(at, RECORD, relaxed=bool(number % 2))
        print("acknowledged", number, flush=True)
        number += 1


if __name__ == "__main__":
    main()
