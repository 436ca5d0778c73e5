"""The two hosts, both on this machine, and the target's memory."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.room import MIB, PROJECT, Absent, Setting

#: The part of the device for each rival, so that all fit at once: rpmem's pool begins at 0.
POOL = 8 * MIB
OFFSETS = {"verbs": 64 * MIB, "librpma": 96 * MIB}
_HEADER = 4096
_HUGE = 2 * MIB


@dataclass(frozen=True)
class Hosts:
    """The locations of the two ends.

    Attributes
    ----------
    initiator, target : str
        Addresses of RDMA devices.
    enter : tuple of str
        Words that run a command on the target, such as ``ip netns exec b``; empty: run it here.
    device : str
        A device DAX for the target's pools; empty: memory.
    """

    initiator: str
    target: str
    enter: tuple[str, ...] = ()
    device: str = ""
    variables: dict[str, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of_bench(cls) -> Hosts:
        """Return the hosts of the emulated machine.

        Raises
        ------
        Absent
            This is another machine.
        """
        if "BENCH_TARGET" not in os.environ:
            raise Absent("this is not the bench's machine: --initiator and --target are needed")
        return cls(
            os.environ["BENCH_INITIATOR"],
            os.environ["BENCH_TARGET"],
            tuple(os.environ.get("BENCH_ENTER_TARGET", "").split()),
            os.environ.get("RPMEM_TEST_DEVDAX", ""),
        )

    def memory(self, rival: str, setting: Setting) -> list[object]:
        """Return PATH, OFFSET and PERSIST of a C program's target."""
        if setting.medium == "pmem":
            return [self.device, OFFSETS[rival], "pmem"]
        return ["-", 0, "none"]

    def pool_set(self, folder: Path, setting: Setting) -> None:
        """Write rpmem's pool set, on cleared memory."""
        line = f"{setting.pool} {folder}/part"
        if setting.medium == "pmem":
            line = f"AUTO {self.device}"
            with open(self.device, "r+b") as file, mmap.mmap(file.fileno(), _HUGE) as view:
                view[:_HEADER] = bytes(_HEADER)
        (folder / "bench.set").write_text(f"PMEMPOOLSET\n{line}\n")

    def ssh(self, folder: Path) -> Path:
        """Return a replacement for ssh, which runs its last argument on the target."""
        script = folder / "ssh"
        script.write_text(
            "#!/bin/sh\n"
            "for command; do :; done\n"
            f"export SSH_CONNECTION='{self.initiator} 40000 {self.target} 22'\n"
            f"export PYTHONPATH={PROJECT}\n"
            f'exec {" ".join(self.enter)} /bin/sh -c "exec $command"\n'
        )
        script.chmod(0o755)
        return script
