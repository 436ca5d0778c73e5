"""Machines made afresh: a Debian in a folder, with python3, python3-venv, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

#: The Debians that the wheel is tried on, and the Python of each.
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
_USER = "1000"

# What the machine has beside its own files: devices, processes, the wheels, and what apt fetched
# earlier. All is mounted for one command, in a namespace that ends with it. Nothing is synced to
# the disk ("volatile"): the files are there as long as this kernel runs, so the note that they may
# not be is removed.
_ENTER = """
set -eu
rm -rf "$STATE/work/work/incompat"
mount -t overlay overlay \\
    -o "volatile,lowerdir=$BASE,upperdir=$STATE/upper,workdir=$STATE/work" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs tmpfs "$ROOT/run"
mkdir -p "$ROOT/wheels" "$ROOT/run/sshd"
mount --bind -o ro "$WHEELS" "$ROOT/wheels"
mount --bind "$APT" "$ROOT/var/cache/apt/archives"
cp -L /etc/resolv.conf "$ROOT/etc/resolv.conf"
exec chroot "--userspec=$AS" "$ROOT" /usr/bin/env -i "HOME=$HOME_THERE" LC_ALL=C.UTF-8 \\
    PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels \\
    PIP_DISABLE_PIP_VERSION_CHECK=1 \\
    UV_NO_INDEX=1 UV_FIND_LINKS=/wheels UV_OFFLINE=1 \\
    DEBIAN_FRONTEND=noninteractive bash -euc "cd; $SCRIPT"
"""

_INSTALL = (
    "apt-get -qq -o Binary::apt-get::APT::Keep-Downloaded-Packages=1 -o APT::Sandbox::User=root "
    "install -y --no-install-recommends"
)


def folder() -> Path:
    """Return where machines are kept: in the user's cache, where no tool copies them."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "rpmem" / "machines"


class Failed(Exception):
    """A command in a chroot failed."""


class Chroot:
    """One such machine, as it was installed; what is done there stays until the next `fresh`.

    Parameters
    ----------
    suite : str
        One of `SUITES`.
    work : Path
        Where the machine is, and what was fetched for it.
    wheels : Path
        A folder that the machine sees as ``/wheels``, from which alone pip and uv install.
    """

    def __init__(self, suite: str, work: Path, wheels: Path) -> None:
        self.suite = suite
        self.base = work / f"base-{suite}"
        self.state = work / f"state-{suite}"
        self.apt = work / f"apt-{suite}"
        self.wheels = wheels
        self.log = work / f"log-{suite}"

    def bootstrap(self) -> None:
        """Install the Debian, unless that was done before."""
        done = self.base / "installed"
        if done.exists():
            return
        shutil.rmtree(self.base, ignore_errors=True)
        include = "--include=python3,python3-venv"
        with self.log.open("w") as log:
            subprocess.run(
                ["debootstrap", "--variant=minbase", include, self.suite, self.base],
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )
        # The machine sees those of this one. Its own would be read for ever by whoever copies the
        # folder: /dev/zero has no end.
        shutil.rmtree(self.base / "dev")
        (self.base / "dev").mkdir()
        done.touch()

    def fresh(self) -> None:
        """Go back to what was installed, and add a user."""
        self.log.write_text("")
        shutil.rmtree(self.state, ignore_errors=True)
        for folder in (self.apt, *(self.state / name for name in ("upper", "work", "root"))):
            folder.mkdir(parents=True, exist_ok=True)
        self.root(f"useradd --create-home --shell /bin/bash --uid {_USER} me")

    def fetch(self, *packages: str) -> None:
        """Download Debian packages that are going to be installed, and what these need."""
        self.root(f"apt-get -qq update; {_INSTALL} --download-only {' '.join(packages)}")

    def install(self, *packages: str) -> None:
        """Install Debian packages that were fetched before."""
        self.root(f"{_INSTALL} --no-download {' '.join(packages)}")

    def root(self, script: str) -> str:
        """Run a script as root; return what it printed."""
        return self._run(script, "0:0", "/root")

    def user(self, script: str) -> str:
        """Run a script as the user, in the home directory; return what it printed."""
        return self._run(script, f"{_USER}:{_USER}", "/home/me")

    def _run(self, script: str, who: str, home: str) -> str:
        variables = {
            "BASE": self.base,
            "STATE": self.state,
            "ROOT": self.state / "root",
            "WHEELS": self.wheels,
            "APT": self.apt,
            "AS": who,
            "HOME_THERE": home,
            "SCRIPT": script,
        }
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _ENTER],
            env={"PATH": os.environ["PATH"], **{key: str(each) for key, each in variables.items()}},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        with self.log.open("a") as log:
            print(f"== {script}\n{done.stdout}{done.stderr}", file=log)
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise Failed(f"{self.suite}: {script.strip()}\n{end}")
        return done.stdout
