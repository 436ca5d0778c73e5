"""A simulation that loses nothing: a checkpoint on every step, here and on another machine.

    python examples/checkpoint.py LOCAL_FILE REPLICA [STEPS]

    python examples/checkpoint.py heat.pool "local: heat.set" 100
    python examples/checkpoint.py heat.pool "user@node2 heat.set" 100

Kill it at any time and start it again: it continues at the step it had reached. Delete LOCAL_FILE:
it still continues, from the replica.
"""

import argparse
import os
import sys

import numpy as np

import rpmem

EDGE = 256


def open_or_restore(path: str, replica: str) -> rpmem.Pool:
    """Open the local copy, else restore it from the replica, else create a new pool."""
    if os.path.exists(path):
        return rpmem.Pool.open(path, replica)
    try:
        return rpmem.Pool.restore(path, replica)
    except rpmem.PoolSetNotFound:
        return rpmem.Pool.create(path, "8MiB", replica, parts=1)


def diffuse(old: np.ndarray, new: np.ndarray) -> None:
    """Compute one step of the heat equation, from one grid into the other."""
    new[:] = old
    flow = old[:-2, 1:-1] + old[2:, 1:-1] + old[1:-1, :-2] + old[1:-1, 2:]
    new[1:-1, 1:-1] += 0.2 * (flow - 4 * old[1:-1, 1:-1])


def main(path: str, replica: str, steps: int) -> None:
    with open_or_restore(path, replica) as pool:
        grids = pool.array("grids", (2, EDGE, EDGE))
        step = pool.array("step", 1, "i8")
        if step[0] == 0:
            grids[0, EDGE // 4 : EDGE // 2, EDGE // 3] = 100.0
            pool.persist()
        print(f"at step {step[0]} of {steps}, heat {grids[step[0] % 2].sum():.6f}")

        for number in range(int(step[0]) + 1, steps + 1):
            # The grid of the last step stays unchanged until the new one is durable.
            diffuse(grids[(number - 1) % 2], grids[number % 2])
            pool.persist()  # the pages that changed, in no order: the step has to wait
            step[0] = number
            pool.persist()

        final = grids[step[0] % 2]
        print(f"at step {step[0]}, heat {final.sum():.6f}, hottest {final.max():.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("path")
    parser.add_argument("replica")
    parser.add_argument("steps", type=int, nargs="?", default=100)
    try:
        main(**vars(parser.parse_args()))
    except rpmem.RpmemError as error:
        sys.exit(f"{error.code}: {error}")
