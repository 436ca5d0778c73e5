"""Debian packages of a suite that this machine does not run, unpacked and never installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.rdma.bench.report import BenchError, Unavailable, complaint

ARCHITECTURE = "amd64"
_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)


class Archive:
    """An apt of its own: the machine's sources, rewritten to other suites.

    Parameters
    ----------
    folder : Path
        For its lists, its state and what it downloads.
    suite : str
        Such as ``trixie``, or ``trixie-backports``, which brings its base suite along.

    Raises
    ------
    Unavailable
        There is no apt here, or no archive that carries the suite.
    """

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise Unavailable("there is no apt here: the bench is made of Debian packages")
        for part in ("lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # Nothing counts as installed: what a package needs is fetched to the last library.
        (folder / "status").touch()
        self._environment = dict(
            os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive", APT_CONFIG=self._configure()
        )
        self._read_lists()

    def _configure(self) -> str:
        """Write the configuration: how to fetch is the machine's, all else is ours."""
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)
        fetching = [
            line
            for line in dump.stdout.splitlines()
            if line.startswith("Acquire::") and '"' in line and "::IndexTargets" not in line
        ]
        ours = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Default-Release": self._suite,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::sourcelist": f"{self._folder}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": f"{self._folder}/lists",
            "Dir::State::status": f"{self._folder}/status",
            "Dir::State::extended_states": f"{self._folder}/extended_states",
            "Dir::Cache::archives": f"{self._folder}/archives",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
        }
        path = self._folder / "apt.conf"
        path.write_text("\n".join([*fetching, *(f'{k} "{v}";' for k, v in ours.items())]) + "\n")
        return str(path)

    def _read_lists(self) -> None:
        keyring = next((path for path in _KEYRINGS if os.path.exists(path)), None)
        options = f"[arch={ARCHITECTURE}" + (f" signed-by={keyring}]" if keyring else "]")
        suites = sorted({self._suite.removesuffix("-backports"), self._suite})
        problems = []
        for archive in _archives():
            lines = [f"deb {options} {archive} {suite} main\n" for suite in suites]
            (self._folder / "sources.list").write_text("".join(lines))
            result = self._run("apt-get", "-q", "update")
            if result.returncode == 0:
                return
            problems.append(complaint(result.stderr))
        reason = "; ".join(problems) or "this machine's apt names no Debian archive"
        raise Unavailable(f"the packages of {self._suite} cannot be had: {reason}")

    def _run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _must(self, *command: str, cwd: Path | None = None) -> str:
        result = self._run(*command, cwd=cwd)
        if result.returncode:
            raise BenchError(f"{' '.join(command[:3])}: {complaint(result.stderr)}")
        return result.stdout

    def fields(self, package: str) -> dict[str, str]:
        """Return what the lists say about a package; nothing when it is not in them."""
        result = self._run("apt-cache", "show", "--no-all-versions", package)
        return dict(re.findall(r"^([A-Za-z-]+): (.*)$", result.stdout, re.MULTILINE))

    def unpack(self, names: Sequence[str], into: Path, *, alone: bool = False) -> list[str]:
        """Fetch packages with all that they need (`alone`: without) and unpack them.

        Returns
        -------
        list of str
            The file names of what was unpacked; they tell the versions.
        """
        archives = self._folder / "archives"
        if alone:
            self._must("apt-get", "-q", "download", *names, cwd=archives)
        else:
            self._must("apt-get", "-qy", "--download-only", "install", *names)
        files = sorted(archives.glob("*.deb"))
        for file in files:
            _unpack(file, into)
            file.unlink()
        return [file.name for file in files]


def _archives() -> list[str]:
    """Return the archives of full Debian releases that this machine's apt knows."""
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    listing = subprocess.run(
        ["apt-get", "indextargets", "--no-release-info", "--format", fields],
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[str] = []
    for line in listing.stdout.splitlines():
        words = line.split()
        # "bookworm-security" and its like are archives of their own.
        if len(words) == 3 and words[2] == "main" and words[1].isalpha():
            found.append(words[0])
    return list(dict.fromkeys(found))


def _unpack(package: Path, into: Path) -> None:
    """Unpack one package's files; /bin, /lib and /sbin of `into` may be links into /usr."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
    ) as reading:
        tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", into]
        written = subprocess.run(tar, stdin=reading.stdout, check=False)
    if reading.returncode or written.returncode:
        raise BenchError(f"{package.name} cannot be unpacked")
