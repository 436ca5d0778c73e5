"""The wheels under every Python of this machine, whoever built it: the system's, pyenv's, uv's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.wheel.chroot import Failed
from tests.wheel.steps import expect, first_program

_TARGET = "127.0.0.1"
# In place of ssh: what would run on the target runs here, and lanes go over TCP as they do to
# another machine, so they have to be encrypted.
_SSH = f"""#!/bin/sh
while [ "$1" != {_TARGET} ]; do shift; done
shift
exec sh -c "$*"
"""
_ENCRYPTED = """
import ssl, sys, rpmem
with rpmem.Pool.open("copy.pool", replicas="127.0.0.1 run.set") as pool:
    print(pool.replicas[0].encryption, "|", sys.version.split()[0], ssl.OPENSSL_VERSION)
"""


def installed(python: Path, wheels: Path) -> str:
    """Install with a Python's pip; run the first program, the same encrypted, the demonstration."""
    with tempfile.TemporaryDirectory(prefix="rpmem-here-") as name:
        home = Path(name)
        run = _runner(home)
        run(python, "-m", "venv", "v")
        run("v/bin/pip", "install", "-q", "--no-index", "--find-links", wheels, "rpmem")
        said = run("v/bin/python", "-c", first_program("local:"))
        expect(r"\['field'\] (19\.9|20\.0)", said)
        for file in home.glob("*.pool"):
            file.unlink()
        run("v/bin/rpmem", "remove", "--pool-set", "local:", "run.set")
        (home / "ssh").write_text(_SSH)
        (home / "ssh").chmod(0o755)
        expect(r"\['field'\] (19\.9|20\.0)", run("v/bin/python", "-c", first_program(_TARGET)))
        found = run("v/bin/python", "-c", _ENCRYPTED)
        expect(r"^TLS 1\.3 ", found)
        run("v/bin/rpmem", "demo")
        return found.strip()


def _runner(home: Path) -> Callable[..., str]:
    """Return what runs commands in a home directory that knows nothing of this machine's."""
    variables = {
        "HOME": str(home),
        "PATH": f"{home}/v/bin:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "RPMEM_SSH": str(home / "ssh"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def run(*command: str | Path) -> str:
        program = str(command[0])
        if "/" in program and not os.path.isabs(program):
            program = str(home / program)
        done = subprocess.run(
            [program, *command[1:]],
            cwd=home,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise Failed(f"{' '.join(map(str, command))}\n{end}")
        return done.stdout

    return run
