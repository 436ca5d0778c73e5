"""The file system a guest starts from: modules, a static busybox and our own first program."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.rdma.bench.cache import Cache
from tests.rdma.bench.kernel import MODULES, Kernel
from tests.rdma.bench.packages import Archive
from tests.rdma.bench.report import BenchError, step
from tests.rdma.bench.userland import SUITE

_SCRIPTS = Path(__file__).parent / "guest"
_FOLDERS = ("bin", "dev", "proc", "sys", "modules", "over", "root")
_FOLDER, _PROGRAM, _FILE, _DEVICE = 0o40755, 0o100755, 0o100644, 0o20600


@dataclass(frozen=True)
class Entry:
    """One member of an archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: Iterable[Entry]) -> bytes:
    """Return a cpio archive in the format the kernel reads ("newc")."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0)
        header = "".join(f"{field:08X}" for field in (*fields, *entry.device, len(name), 0))
        for piece in (b"070701" + header.encode() + name, entry.content):
            out += piece
            out += bytes(-len(out) % 4)
    return bytes(out)


def get(cache: Cache, kernel: Kernel) -> Path:
    """Return the part of the initramfs that is the same for every boot of a kernel."""

    def make(folder: Path) -> None:
        with step(f"kernel {kernel.name}: collecting its modules"):
            entries = [Entry(name, _FOLDER) for name in _FOLDERS]
            entries.append(Entry("bin/busybox", _PROGRAM, _busybox(cache).read_bytes()))
            entries.append(Entry("dev/console", _DEVICE, device=(5, 1)))
            order = []
            for name, content in kernel.modules():
                order.append(name)
                entries.append(Entry(f"modules/{name}.ko", _FILE, content))
            entries.append(Entry("modules/order", _FILE, "\n".join(order).encode() + b"\n"))
            (folder / "initramfs").write_bytes(archive(entries))

    recipe = f"{kernel.release} {' '.join(MODULES)} {' '.join(_FOLDERS)}"
    return cache(f"initramfs-{kernel.name}", recipe, make) / "initramfs"


def _busybox(cache: Cache) -> Path:
    def make(folder: Path) -> None:
        Archive(cache.folder / "apt" / SUITE, SUITE).unpack(["busybox-static"], folder, alone=True)

    folder = cache("busybox", SUITE, make)
    for path in (folder / "usr/bin/busybox", folder / "bin/busybox"):
        if path.exists():
            return path
    raise BenchError("the package busybox-static holds no busybox")


def own(settings: dict[str, str]) -> bytes:
    """Return the rest: our scripts and what one boot is told.

    Parameters
    ----------
    settings : dict
        Shell variables, for the scripts.
    """
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
    return archive(
        [
            Entry("init", _PROGRAM, (_SCRIPTS / "init.sh").read_bytes()),
            Entry("host.sh", _FILE, (_SCRIPTS / "host.sh").read_bytes()),
            Entry("settings", _FILE, "".join(lines).encode()),
        ]
    )
