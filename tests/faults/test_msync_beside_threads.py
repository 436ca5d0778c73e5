"""One page's msync fails while other threads persist: from then on nobody is told that all is well.

As a kernel does, the failed call drops what it should have written, and the next one passes.
"""

from __future__ import annotations

import errno
import json
import shlex
import sys
from typing import Any

import pytest

import rpmem
from tests.support.preload import run_with, shim

THREADS = 3
PAGES = 8

_PROGRAM = """
import json, sys, threading, time
import numpy as np
import rpmem

path, target, command, verb = sys.argv[1:5]
threads, pages = int(sys.argv[5]), int(sys.argv[6])
pool = rpmem.Pool.create(path, "4MiB", target, parts=1, nlanes=threads + 1, command=command)
pool.array("numbers", (threads + 1) * pages * 512, "u8")
pool.array("bytes", 2 * 4096, "u1")
numbers = pool["numbers"]
victim = pool["bytes"]
# The first byte of a page decides what its msync does.
first = -victim.ctypes.data % 4096
warm, failed = threading.Barrier(threads + 1), threading.Event()
said = {"errors": [], "late": 0, "last": [0] * threads, "rounds": 0}

def work(number):
    mine = numbers[number * pages * 512 : (number + 1) * pages * 512]
    count = 0
    while True:
        count += 1
        late = failed.is_set()
        mine[:] = count
        try:
            getattr(pool, verb)(mine)
        except rpmem.RpmemError as error:
            said["errors"].append((type(error).__name__, error.errno))
            return
        said["last"][number] = count
        said["late"] += late
        if late:
            return
        if count == 5:
            warm.wait()

running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for each in running:
    each.start()
warm.wait()
victim[first] = ord("E")
try:
    getattr(pool, verb)(victim[first : first + 8])
    said["victim"] = "ok"
except rpmem.RpmemError as error:
    said["victim"] = type(error).__name__
failed.set()
for each in running:
    each.join()
for call in (pool.persist, pool.deep_persist, pool.drain, pool.flush):
    try:
        call(*([numbers[:8]] if call != pool.drain else []))
        said["errors"].append((call.__name__, "ok"))
    except rpmem.RpmemError as error:
        said["errors"].append((type(error).__name__, error.errno))
del numbers, victim
try:
    pool.close()
    said["close"] = "ok"
except rpmem.RpmemError as error:
    said["close"] = type(error).__name__
print(json.dumps(said))
"""


def rpmemd(side: str) -> str:
    """Return what starts rpmemd, with the shim in front of it where that is the side."""
    preload = f"LD_PRELOAD={shim('refusing_msync')}" if side == "target" else "--unset=LD_PRELOAD"
    return shlex.join(["env", preload, sys.executable, "-P", "-m", "rpmemd"])


def run(side: str, *arguments: object) -> dict[str, Any]:
    """Run the program with the shim on one side; return what it said."""
    shimmed = "refusing_msync" if side == "initiator" else None
    said: dict[str, Any] = json.loads(run_with(shimmed, _PROGRAM, *arguments, THREADS, PAGES))
    return said


@pytest.mark.parametrize("verb", ["persist", "deep_persist"])
@pytest.mark.parametrize("side", ["initiator", "target"])
def test_nothing_is_acknowledged_after_it(tmp_path, side, verb):
    (tmp_path / "there").mkdir()
    path, target = tmp_path / "a.pool", f"local:{tmp_path / 'there'} r.set"
    said = run(side, path, target, rpmemd(side), verb)
    assert said["victim"] == "FlushFailed"
    assert said["late"] == 0
    assert len(said["errors"]) == THREADS + 4
    assert {tuple(each) for each in said["errors"]} == {("FlushFailed", errno.EIO)}
    # The local copy could not be marked; that the replica was lost has been said.
    assert said["close"] == ("FlushFailed" if side == "initiator" else "ok")
    assert min(said["last"]) >= 5
    if side == "initiator":
        # The replica has everything, and says so.
        with pytest.raises(rpmem.StaleReplica):
            rpmem.Pool.open(path, target)
        path.rename(tmp_path / "spoiled.pool")
        opened = rpmem.Pool.restore(path, target)
    else:
        opened = rpmem.Pool.open(path, target)
    with opened as pool:
        for view in (pool["numbers"], pool.read(pool["numbers"])):
            for number, last in enumerate(said["last"]):
                assert (view.reshape(THREADS + 1, -1)[number] >= last).all()
