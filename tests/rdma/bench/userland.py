"""The guests' userland: Debian packages in a folder, with what their scripts would have done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.rdma.bench.cache import Cache
from tests.rdma.bench.packages import Archive
from tests.rdma.bench.report import BenchError, complaint, step

SUITE = "trixie"

_SYSTEM = (
    "base-files base-passwd bash coreutils dash e2fsprogs findutils grep hostname iproute2 "
    "libc-bin mount procps sed util-linux"
)
_HARDWARE = "ndctl ibverbs-providers ibverbs-utils rdmacm-utils perftest libfabric-bin"
_PYTHON = (
    "python3-numpy python3-click python3-rich python3-paramiko python3-pyverbs "
    "python3-pytest python3-pytest-timeout python3-hypothesis"
)
_BUILDING = (
    "gcc libc6-dev pkgconf python3-dev python3-setuptools "
    "libfabric-dev libpmem2-dev libxxhash-dev libibverbs-dev librdmacm-dev librpma-dev"
)
PACKAGES = " ".join((_SYSTEM, _HARDWARE, _PYTHON, _BUILDING)).split()

_FOLDERS = ("dev", "etc", "mnt", "proc", "project", "root", "run", "sys", "tmp", "var/lib")
# Stands in the recipe: a change of what `_finish` does makes a new userland.
_EDITION = 3
_ROOT = Path(__file__).resolve().parents[3]
_WHEEL_TAGS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
# What update-alternatives would have made.
_LINKS = {
    f"{_LIBRARIES}/libblas.so.3": "blas/libblas.so.3",
    f"{_LIBRARIES}/liblapack.so.3": "lapack/liblapack.so.3",
}


def get(cache: Cache) -> tuple[Path, Path]:
    """Return the userland as a folder and as an image of a disk, made on first use."""

    def fill(folder: Path) -> None:
        with step(f"userland: fetching {SUITE}'s packages (some 300 MB)"):
            for name in ("bin", "sbin", "lib", "lib64"):
                (folder / "usr" / name).mkdir(parents=True)
                (folder / name).symlink_to(f"usr/{name}")
            for name in _FOLDERS:
                (folder / name).mkdir(parents=True)
            archive = Archive(cache.folder / "apt" / SUITE, SUITE)
            names = archive.unpack(PACKAGES, folder)
            (folder / "packages").write_text("\n".join(names) + "\n")
        with step(f"userland: finishing {len(names)} packages"):
            _finish(folder)

        with step(f"userland: fetching {' '.join(wanted)} for its Python"):
            _fetch_wheels(folder, wanted)

    def draw(folder: Path) -> None:
        with step("userland: making it a disk"):
            image(root, root, folder / "disk")

    wanted = _newer_than_packaged()
    recipe = f"{_EDITION} {SUITE} {PACKAGES} {wanted}"
    root = cache("userland", recipe, fill)
    return root, cache("disk", recipe, draw) / "disk"


def image(root: Path, folder: Path, path: Path) -> None:
    """Make an ext4 image of a folder: for a guest that is much faster than sharing the folder.

    Parameters
    ----------
    root : Path
        The userland, which has the program for it.
    folder : Path
        What to put in.
    path : Path
        The image, somewhere below the folder's parent.
    """
    size = sum(each.lstat().st_blocks for each in folder.rglob("*")) * 512
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(size + size // 8 + (16 << 20))
    # What is mounted in the folder meanwhile is not seen through another mount.
    make = ["/usr/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal"]
    names = [str(each.relative_to(folder.parent)) for each in (folder, path)]
    within(root, [*make, "-E", "root_owner=0:0", "-d", *names], project=folder.parent)


def _newer_than_packaged() -> list[str]:
    """Return what the build needs in a newer version than the suite has."""
    with open(_ROOT / "pyproject.toml", "rb") as file:
        needs = tomllib.load(file)["build-system"]["requires"]
    return [need for need in needs if need.lower().startswith("cython")]


def _fetch_wheels(folder: Path, wanted: list[str]) -> None:
    version = next(folder.glob("usr/include/python3.*")).name.removeprefix("python")
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        + ["--no-deps", "--only-binary", ":all:", "--python-version", version]
        + [word for tag in _WHEEL_TAGS for word in ("--platform", tag)]
        + ["--target", str(folder / f"usr/local/lib/python{version}/dist-packages"), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise BenchError(f"pip: {complaint(result.stderr)}")


def _finish(folder: Path) -> None:
    base = folder / "usr/share/base-passwd"
    shutil.copy(base / "passwd.master", folder / "etc/passwd")
    shutil.copy(base / "group.master", folder / "etc/group")
    (folder / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (folder / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
    for link, target in _LINKS.items():
        if not os.path.lexists(folder / link):
            (folder / link).symlink_to(target)
    for name in ("doc", "locale", "man"):
        shutil.rmtree(folder / "usr/share" / name, ignore_errors=True)
    within(folder, ["/usr/sbin/ldconfig"])
    # Compiling at every import is slow under emulation.
    python = ["/usr/bin/python3", "-m", "compileall", "-q", "-j2", "-x", "/(test|tests|idlelib)/"]
    within(folder, [*python, "/usr/lib/python3.13", "/usr/lib/python3"], tolerant=True)


def within(
    root: Path,
    command: Sequence[str],
    *,
    project: Path | None = None,
    environment: dict[str, str] | None = None,
    tolerant: bool = False,
    output: Callable[[str], None] | None = None,
) -> str:
    """Run a command in the userland and return what it printed.

    Parameters
    ----------
    root : Path
        The userland.
    command : sequence of str
        With its path in there.
    project : Path, optional
        Folder that is ``/project`` meanwhile, and the current directory.
    environment : dict, optional
        More variables.
    tolerant : bool
        Its exit status does not matter.
    output : callable, optional
        Gets each line as it is printed.

    Raises
    ------
    BenchError
        It failed.
    """
    # Mounts of a namespace of its own go away by themselves.
    script = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc"'
    script += ' && mount -t tmpfs tmp "$0/tmp"'
    if project is not None:
        script += f" && mount --bind {_quoted(project)} " + '"$0/project"'
    script += ' && exec chroot "$0" "$@"'
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if os.getuid() != 0:
        enter.append("--map-root-user")
    if project is not None:
        command = ["/bin/sh", "-c", 'cd /project && exec "$@"', "sh", *command]
    lines = []
    with subprocess.Popen(
        [*enter, "/bin/sh", "-c", script, str(root), *command],
        env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if output is not None:
                output(line.rstrip("\n"))
    printed = "".join(lines)
    if process.returncode and not tolerant:
        raise BenchError(
            f"{' '.join(command)[:100]} in {SUITE}'s userland: exit {process.returncode}: "
            f"{complaint(printed)}"
        )
    return printed


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
