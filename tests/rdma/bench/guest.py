"""One guest: QEMU without any help of the hardware, and a command that runs inside."""

from __future__ import annotations

import re
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.rdma.bench import initramfs
from tests.rdma.bench.kernel import Kernel
from tests.rdma.bench.report import BenchError, Unavailable, say

_QEMU = "qemu-system-x86_64"
# All that QEMU can emulate (clwb, avx2, ...) but for what makes it slower.
_CPU = "max,la57=off,smap=off,smep=off,pku=off"
_KERNEL_OPTIONS = (
    "console=ttyS0 loglevel=5 panic=-1 nokaslr mitigations=off audit=0 random.trust_cpu=on "
    "init_on_alloc=0 preempt=full"
)
_PARALLEL = ("-accel", "tcg,thread=multi,tb-size=256", "-smp", "2")
_STEADY = ("-accel", "tcg,thread=single,tb-size=256", "-smp", "1", "-icount", "shift=0,sleep=off")
_MEGABYTE = 1 << 20
_MEMORY, _NVDIMM, _DISK = 2048, 256, 256
_CONTROL = b"\002"
_COMPLAINTS = re.compile(r"Oops|BUG:|WARNING: |Call Trace|refcount_t:")
# QEMU orders parallel CPUs less strictly than a real machine: now and then a kernel trips over
# itself while it patches its own code.
_BOOTS = 3
_TRIPPED = "int3"
_BOOT_LIMIT = 180.0


@dataclass(frozen=True)
class Machine:
    """What a guest is made of.

    Attributes
    ----------
    kernel : Kernel
    initramfs : Path
        That kernel's.
    userland, project : Path
        Images of its disks; what it writes there is forgotten.
    work : Path
        Folder for the images of disks, which are kept from one boot to the next, and for logs.
    steady : bool
        One processor, and a clock that counts its instructions (one each nanosecond): what this
        machine does beside it does not show in any figure.
    """

    kernel: Kernel
    initramfs: Path
    userland: Path
    project: Path
    work: Path
    steady: bool = False

    @property
    def console(self) -> Path:
        """The kernel's messages."""
        return self.work / "console"


@dataclass
class Outcome:
    """How a run ended.

    Attributes
    ----------
    status : int or None
        Of the command; None when the guest ended without telling.
    cut : bool
        The plug was pulled because of `cut_on`.
    late : bool
        The plug was pulled because time was up.
    boot : float or None
        Seconds of the guest's clock until the command began.
    complaints : list of str
        Lines of its kernel that should not be.
    """

    status: int | None = None
    cut: bool = False
    late: bool = False
    boot: float | None = None
    notes: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def qemu() -> str:
    """Return the path of QEMU; Unavailable when there is none."""
    path = shutil.which(_QEMU)
    if path is None:
        raise Unavailable(f"{_QEMU} is not here (Debian: qemu-system-x86)")
    return path


def run(
    machine: Machine,
    command: str,
    *,
    output: Callable[[str], None],
    limit: float,
    cut_on: str | None = None,
    hosts: int = 1,
) -> Outcome:
    """Boot, run a command in the initiator's network, and wait until the guest is gone.

    Parameters
    ----------
    machine : Machine
    command : str
        For bash, in /project.
    output : callable
        Gets each line that the command prints.
    limit : float
        Seconds after which the plug is pulled.
    cut_on : str, optional
        The plug is pulled at once when a line contains this; until then nothing but the command
        itself writes dirty pages back.
    hosts : int
        2: initiator and target are network namespaces with an RDMA device each.
    """
    settings = {
        "KERNEL": machine.kernel.name,
        "HOSTS": str(hosts),
        "KEEP_DIRTY": str(int(cut_on is not None)),
        "COMMAND": command,
    }
    machine.work.mkdir(parents=True, exist_ok=True)
    (machine.work / "initramfs").write_bytes(
        machine.initramfs.read_bytes() + initramfs.own(settings)
    )
    for attempt in range(1, _BOOTS + 1):
        outcome = _Boot(machine, output, limit, cut_on).run()
        outcome.complaints = _complaints(machine.console)
        tripped = outcome.status is None and any(_TRIPPED in line for line in outcome.complaints)
        if tripped and not outcome.cut and attempt < _BOOTS:
            say("the guest's kernel tripped over QEMU while it patched its own code: once more")
            continue
        if outcome.boot is not None:
            return outcome
        say(f"the guest did not come up (attempt {attempt} of {_BOOTS}); its last words:")
        for line in _tail(machine.work / "qemu", 5) + _tail(machine.console, 20):
            say(f"  | {line}")
    raise BenchError("the guest does not boot")


class _Boot:
    """One QEMU process, from its start to its end."""

    def __init__(
        self,
        machine: Machine,
        output: Callable[[str], None],
        limit: float,
        cut_on: str | None,
    ) -> None:
        self._machine = machine
        self._output = output
        self._limit = limit
        self._cut_on = cut_on
        self._rest = b""
        self._outcome = Outcome()

    def run(self) -> Outcome:
        ours, theirs = socket.socketpair()
        begun = time.monotonic()
        with open(self._machine.work / "qemu", "wb") as errors:
            process = subprocess.Popen(
                _leash() + _arguments(self._machine, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        try:
            with ours, selectors.DefaultSelector() as selector:
                selector.register(ours, selectors.EVENT_READ)
                while not self._outcome.cut:
                    limit = self._limit
                    if self._outcome.boot is None and not self._machine.steady:
                        limit = _BOOT_LIMIT
                    left = begun + limit - time.monotonic()
                    if left <= 0:
                        self._outcome.late = True
                        break
                    if selector.select(min(left, 1.0)):
                        data = ours.recv(1 << 16)
                        if not data:
                            break
                        self._take(data)
                    elif process.poll() is not None:
                        break
        finally:
            process.kill()
            process.wait()
        if self._rest:
            self._output(self._rest.decode(errors="replace"))
        return self._outcome

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if line.startswith(_CONTROL):
                self._hear(text[1:])
                continue
            self._output(text)
            if self._cut_on is not None and self._cut_on in text:
                self._outcome.cut = True
                return

    def _hear(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "up":
            self._outcome.boot = float(rest)
            say(f"the guest is up, {rest} s after its kernel started")
        elif word == "exit":
            self._outcome.status = int(rest)
        elif word == "note":
            self._outcome.notes.append(rest)
            say(f"the guest: {rest}")


def _leash() -> list[str]:
    """QEMU must not outlive us, however we end; and other work goes first."""
    return [*(["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []), "nice"]


def _arguments(machine: Machine, output: int) -> list[str]:
    def escaped(path: Path) -> str:
        return str(path).replace(",", ",,")

    def drive(path: Path | str, name: str, more: str) -> list[str]:
        return [
            "-drive",
            f"file={path},format=raw,if=none,id={name},{more}",
            "-device",
            f"virtio-blk-pci,drive={name},serial={name}",
        ]

    def image(name: str, megabytes: int) -> str:
        path = machine.work / name
        with open(path, "ab") as file:
            if file.tell() == 0:
                file.truncate(megabytes * _MEGABYTE)
        return escaped(path)

    most = _MEMORY + 2 * _NVDIMM + 1024
    arguments = [
        *(qemu(), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *(_STEADY if machine.steady else _PARALLEL),
        *("-cpu", _CPU),
        *("-machine", "q35,usb=off,smbus=off,sata=off,nvdimm=on,nvdimm-persistence=mem-ctrl"),
        *("-m", f"size={_MEMORY}M,slots=2,maxmem={most}M"),
        *("-kernel", str(machine.kernel.image), "-initrd", str(machine.work / "initramfs")),
        *("-append", _KERNEL_OPTIONS),
        *("-chardev", f"file,id=console,path={escaped(machine.console)}"),
        *("-serial", "chardev:console"),
        *("-device", "virtio-serial-pci", "-chardev", f"socket,id=out,fd={output}"),
        *("-device", "virtserialport,chardev=out,name=out"),
        *drive(escaped(machine.userland), "userland", "readonly=on"),
        *drive(escaped(machine.project), "project", "readonly=on"),
        *drive(image("disk", _DISK), "disk", "cache=writeback"),
    ]
    for number, name in enumerate(("fsdax", "devdax")):
        path = image(name, _NVDIMM)
        arguments += ["-object", f"memory-backend-file,id=memory{number},share=on,mem-path={path},"]
        arguments[-1] += f"size={_NVDIMM}M,align=2M"
        arguments += ["-device", f"nvdimm,id=nvdimm{number},slot={number},memdev=memory{number}"]
    return arguments


def _tail(path: Path, count: int) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(errors="replace").splitlines()[-count:]


def _complaints(console: Path) -> list[str]:
    if not console.exists():
        return []
    return [
        line
        for line in console.read_text(errors="replace").splitlines()
        if _COMPLAINTS.search(line)
    ]
