"""What is tried on a machine made afresh, in this order: each step adds to the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.wheel.chroot import Chroot, Failed

ROOT = Path(__file__).resolve().parents[2]

#: What Debian packages the steps install, one after the other.
SSH = ("openssh-client", "openssh-server")
DEBIANS = ("libfabric1", "libpmem2", "libibverbs1", "librdmacm1", "ibverbs-providers", "rdma-core")
BUILD = ("gcc", "libc6-dev", "libpython3-dev", "binutils")

_PLAIN = """
import rpmem
with rpmem.Pool.create("plain.pool", "8MiB") as pool:
    pool.array("x", 1000, "f8")[:] = 1
    pool.persist()
    print(pool.medium)
with rpmem.Pool.open("plain.pool") as pool:
    print(pool["x"].sum())
rpmem.Pool.create(
    "two.pool", "8MiB", replicas="local: two.set", parts=1, provider="tcp"
).close()
"""
_CLEAN = "rm -rf ~/*.pool ~/*.set ~/*.set.part* ~/pools"
_USED = """
import os, tempfile, rpmem
from rpmem.base import libraries
from rpmem.fabric import providers
print(providers.load("tcp").version(), providers.load("verbs").devices())
with tempfile.TemporaryFile() as file:
    file.truncate(1 << 20)
    region = rpmem.Region.map_parts([(file.fileno(), 0, 1 << 20)], force_pmem=True)
    print(region.medium, *map(libraries.file_name, ("libfabric", "libpmem2", "librdmacm")))
"""
_MAPPED = """
with open("/proc/self/maps") as maps:
    print(*sorted({line.split()[-1] for line in maps if "/libfabric.so" in line}))
"""
_SSHD = """
mkdir -p /home/me/.ssh /run/sshd
for key in id_ed25519 id_shell; do ssh-keygen -q -t ed25519 -N '' -f /home/me/.ssh/$key; done
ssh-keygen -A
{ printf 'command="/usr/local/bin/rpmemd --forced-command --poolset-dir $HOME/pools",restrict '
  cat /home/me/.ssh/id_ed25519.pub /home/me/.ssh/id_shell.pub; } > /home/me/.ssh/authorized_keys
{ printf '[127.0.0.1]:2222 '; cat /etc/ssh/ssh_host_ed25519_key.pub; } > /home/me/.ssh/known_hosts
{ printf 'Host *\\nHostName 127.0.0.1\\nPort 2222\\nIdentitiesOnly yes\\n'
  printf 'Host node2\\nIdentityFile ~/.ssh/id_ed25519\\n'
  printf 'Host node3\\nIdentityFile ~/.ssh/id_shell\\n'
} > /home/me/.ssh/config
chown -R me:me /home/me/.ssh; chmod 700 /home/me/.ssh
ln -sf /home/me/v/bin/rpmemd /usr/local/bin/rpmemd
"""
_OVER_SSH = """
/usr/sbin/sshd -p 2222
as_me() { setpriv --reuid=me --regid=me --init-groups env HOME=/home/me "$@"; }
cd /home/me; as_me mkdir -p pools
as_me v/bin/rpmem check node2
as_me v/bin/python first.py
as_me v/bin/rpmem demo node3
"""


def first_program(target: str) -> str:
    """Return the README's first program, with another target."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.S)
    assert found is not None
    return found[1].replace("local: run.set", f"{target} run.set")


def written(name: str, text: str) -> str:
    """Return a script that writes a file."""
    return f"cat > {name} <<'END_OF_FILE'\n{text}\nEND_OF_FILE\n"


def expect(pattern: str, text: str) -> None:
    """Raise unless a text has a pattern in it."""
    if not re.search(pattern, text):
        raise Failed(f"expected {pattern!r} in:\n{text}")


def pip_alone(machine: Chroot) -> str:
    """Install with pip; a plain pool works, and what lanes over libfabric's tcp need is named."""
    machine.root("! command -v gcc && ! ls /usr/lib/*/libfabric* /usr/lib/*/libpmem2* 2>/dev/null")
    machine.user("python3 -m venv v && v/bin/pip install -q rpmem && v/bin/rpmemd --version")
    said = machine.user(
        written("plain.py", _PLAIN) + "v/bin/python plain.py 2>&1 && exit 1 || true\n" + _CLEAN
    )
    expect(r"(page|volatile)\n1000\.0\n", said)
    expect(r"libfabric\.so\.1 .*apt-get install libfabric1\)", said)
    return machine.user("du -sh v/lib/python3*/site-packages/rpmem | cut -f1").strip()


def uv(machine: Chroot) -> str:
    """Install with uv."""
    machine.user(
        "v/bin/python -m venv --without-pip tools && v/bin/pip --python tools install -q uv pipx"
    )
    machine.user("tools/bin/uv venv -q w && tools/bin/uv pip install -q --python w rpmem")
    return machine.user("w/bin/rpmem --version && rm -rf w").strip()


def pipx(machine: Chroot) -> str:
    """Install with pipx."""
    machine.user("tools/bin/pipx install rpmem")
    return machine.user(".local/bin/rpmem --version && .local/bin/rpmemd --version").strip()


def lanes(machine: Chroot) -> str:
    """Run the README's first program, and the demonstration, without any library."""
    said = machine.user(
        written("first.py", first_program("local:")) + f"v/bin/python first.py\n{_CLEAN}"
    )
    expect(r"\['field'\] (19\.9|20\.0)", said)
    machine.user(f"v/bin/rpmem demo; {_CLEAN}")
    return said.strip()


def ssh(machine: Chroot) -> str:
    """With ssh: the same program with a key that opens pools only, and the demonstration.

    That one needs a key that opens a shell: with it, it kills its target.
    """
    machine.install(*SSH)
    machine.root(_SSHD)
    machine.user(written("first.py", first_program("node2")))
    said = machine.root(_OVER_SSH + "ls pools")
    expect(r"create .* stream, .*encryption TLS 1\.3", said)
    expect(r"everything works", said)
    expect(r"\['field'\] (19\.9|20\.0)", said)
    expect(r"target +node3\n", said)
    expect(r"acknowledged bytes compared, 0 wrong", said)
    expect(r"run\.set\.part0", said)
    machine.user(_CLEAN)
    return "over ssh, with a confined key, encrypted; and the demonstration"


def mpi(machine: Chroot) -> str:
    """In one process with an MPI that brings its own libfabric, which is used if asked for."""
    machine.user("v/bin/pip install -q mpich mpi4py")
    program = f"from mpi4py import MPI\n{first_program('local:')}\n{_MAPPED}"
    machine.user(written("mpi.py", program) + f"v/bin/python mpi.py\n{_CLEAN}")
    lent = machine.user(
        written("lent.py", first_program("local:") + _MAPPED)
        + f"RPMEM_PROVIDER=tcp RPMEM_LIBRARIES=libfabric=mpi v/bin/python lent.py\n{_CLEAN}"
    )
    expect(r"\n\S+/lib/mpich/libfabric\.so\S*\n", lent)
    return f"lent: {lent.splitlines()[-1]}"


def hardware(machine: Chroot) -> str:
    """With the libraries of hardware: the same installation uses them, and beside that MPI."""
    machine.install(*DEBIANS)
    said = machine.user(written("used.py", _USED) + "v/bin/python used.py")
    expect(r"pmem \S+libfabric\.so\S* \S+libpmem2\.so\S* \S+librdmacm\.so", said)
    alone = machine.user(f"RPMEM_PROVIDER=tcp v/bin/python lent.py\n{_CLEAN}")
    expect(r"\n/usr/lib/\S+/libfabric\.so\S*\n", alone)
    own = "RPMEM_PROVIDER=tcp RPMEM_LIBRARIES=libfabric=$(readlink -f /usr/lib/*/libfabric.so.1)"
    both = machine.user(f"{own} v/bin/python mpi.py\n{_CLEAN}")
    expect(r"\n\S+/lib/mpich/libfabric\.so\S* /usr/lib/\S+/libfabric\.so\S*\n", both)
    return f"{said.splitlines()[-1]}; both: {both.splitlines()[-1]}"


def elsewhere(machine: Chroot) -> str:
    """Build the source archive, and run tests of it."""
    machine.install(*BUILD)
    machine.user(
        "python3 -m venv b && b/bin/pip install -q 'setuptools>=77' 'Cython<3.4' numpy click rich "
        "paramiko pytest pytest-timeout pytest-xdist hypothesis\n"
        "mkdir src && tar -xzf /wheels/rpmem-*.tar.gz -C src --strip-components=1\n"
        "cd src && ../b/bin/python setup.py --quiet build_ext --inplace"
    )
    tests = "project/test_rooms pool/test_pool_local base/test_libraries base/test_parts"
    names = " ".join(f"tests/unit/{name}.py" for name in tests.split())
    said = machine.user(f"cd src && ../b/bin/python -m pytest -q -p no:cacheprovider {names}")
    return said.splitlines()[-1]


STEPS: tuple[Callable[[Chroot], str], ...] = (
    pip_alone,
    uv,
    pipx,
    lanes,
    ssh,
    mpi,
    hardware,
    elsewhere,
)
