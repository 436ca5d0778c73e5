"""A Debian kernel and the modules that the bench needs of it."""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rdma.bench.cache import Cache
from tests.rdma.bench.packages import Archive
from tests.rdma.bench.report import BenchError, step

#: What the option --kernel takes, and the suite that has it.
KERNELS = {"lts": "trixie", "new": "trixie-backports"}

# In this order, each after what it depends on; a name that a kernel has built in, or no longer
# has, is passed over.
MODULES = (
    *("overlay", "virtio_blk", "virtio_console"),
    *("nfit", "nd_pmem", "dax_pmem", "device_dax"),
    *("crc32_generic", "crc32c_generic", "crc32c_intel", "ext4"),
    *("veth", "dummy", "sch_netem", "ib_uverbs", "rdma_ucm", "rdma_rxe"),
)


@dataclass(frozen=True)
class Kernel:
    """A kernel, unpacked.

    Attributes
    ----------
    name : str
        What it is called here: ``lts`` or ``new``.
    release : str
        As ``uname -r`` says.
    folder : Path
        Holds ``boot`` and the tree of modules.
    """

    name: str
    release: str
    folder: Path

    @property
    def image(self) -> Path:
        """What QEMU boots."""
        for path in (
            self.folder / "boot" / f"vmlinuz-{self.release}",
            self._modules / "vmlinuz",
        ):
            if path.exists():
                return path
        raise BenchError(f"the packages of kernel {self.release} have no image")

    @property
    def _modules(self) -> Path:
        return self.folder / "usr/lib/modules" / self.release

    def modules(self) -> Iterator[tuple[str, bytes]]:
        """Yield the names of modules and their content, in loading order."""
        files = {
            path.name.partition(".")[0].replace("-", "_"): path
            for path in self._modules.rglob("*.ko*")
        }
        done: set[str] = set()
        for name in MODULES:
            yield from _with_needs(name, files, done)


def _with_needs(name: str, files: dict[str, Path], done: set[str]) -> Iterator[tuple[str, bytes]]:
    if name in done or name not in files:
        return
    done.add(name)
    path = files[name]
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    # A module says itself what it needs; no index has to be made for that.
    needs = re.search(rb"\0depends=([^\0]*)\0", content)
    for other in (needs.group(1).decode() if needs else "").split(","):
        yield from _with_needs(other.replace("-", "_"), files, done)
    yield name, content


def get(cache: Cache, name: str) -> Kernel:
    """Return the kernel of that name, fetched on first use."""
    suite = KERNELS[name]

    def make(folder: Path) -> None:
        with step(f"kernel {name}: fetching it from {suite}"):
            archive = Archive(cache.folder / "apt" / suite, suite)
            depends = archive.fields("linux-image-amd64").get("Depends", "")
            found = re.search(r"linux-image-(\d[^ ,]*-amd64)", depends)
            if not found:
                raise BenchError(f"{suite} has no linux-image-amd64")
            release = found.group(1)
            # Up to 6.x one package holds all, later it is cut in several.
            pieces = [f"linux-binary-{release}", f"linux-modules-{release}"]
            packages = [piece for piece in pieces if archive.fields(piece)]
            (folder / "usr/lib").mkdir(parents=True)
            (folder / "lib").symlink_to("usr/lib")
            archive.unpack(packages or [f"linux-image-{release}"], folder, alone=True)
            (folder / "release").write_text(release)

    folder = cache(f"kernel-{name}", suite, make)
    return Kernel(name, (folder / "release").read_text(), folder)
