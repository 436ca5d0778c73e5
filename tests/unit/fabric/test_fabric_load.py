"""Loading libfabric quickly must change nothing but the time it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.without import has_library

PSM_LIBRARIES = ("libpsm2.so", "libpsm_infinipath.so", "libinfinipath.so")
PROLOGUE = """
import ctypes, sys
from rpmem.fabric import providers

def maps():
    return open("/proc/self/maps").read()

def names():
    # Every provider on offer, told by libfabric itself; once, though it is there for each address,
    # and other tests make network devices meanwhile.
    library = ctypes.CDLL("libfabric.so.1")
    library.fi_tostr.restype = ctypes.c_char_p
    first = ctypes.c_void_p()
    query = (0x10009, None, None, ctypes.c_uint64(0), None, ctypes.byref(first))
    assert library.fi_getinfo(*query) == 0
    entry, found = first, []
    while entry:
        text = library.fi_tostr(entry, 0).decode()
        found += [line.strip() for line in text.splitlines() if "prov_name" in line]
        entry = ctypes.c_void_p(ctypes.cast(entry, ctypes.POINTER(ctypes.c_void_p))[0])
    return list(dict.fromkeys(found))
"""


@pytest.fixture(scope="module", autouse=True)
def libfabric_is_here() -> None:
    if not has_library("libfabric"):
        pytest.skip("libfabric is not here")


def run(code: str, **environment: str) -> str:
    """Run code in a fresh process; return what it printed."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("FI_", "RPMEM_", "PSM"))}
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + code],
        capture_output=True,
        text=True,
        env=keep | environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_psm() -> None:
    plain = run("providers.load(); print(maps())", RPMEM_PLAIN_LIBFABRIC="1")
    if "libpsm2.so" not in plain:
        pytest.skip("this libfabric is not linked with PSM")
    if any(name.startswith(("ipath", "hfi1")) for name in os.listdir("/dev")):
        pytest.skip("this machine has PSM hardware")


def test_the_same_providers_are_on_offer_either_way() -> None:
    code = "providers.load(); print(*names(), sep='\\n')"
    quick, plain = run(code), run(code, RPMEM_PLAIN_LIBFABRIC="1")
    assert quick == plain
    assert "tcp" in quick


def test_stand_ins_keep_the_psm_libraries_out() -> None:
    needs_psm()
    mapped = run("providers.load(); print(maps())")
    assert not [name for name in PSM_LIBRARIES if name in mapped]
    assert "no_psm2." in mapped


@pytest.mark.parametrize(
    "environment",
    [{"RPMEM_PLAIN_LIBFABRIC": "1"}, {"PSM2_DEVICES": "self,shm"}, {"FI_PROVIDER": "^psm3"}],
    ids=["plain", "psm2-wanted", "psm-named"],
)
def test_the_real_libraries_are_used_when_asked_for(environment: dict[str, str]) -> None:
    needs_psm()
    assert "libpsm2.so" in run("providers.load(); print(maps())", **environment)


def test_libraries_already_in_the_process_are_left_alone() -> None:
    needs_psm()
    code = """
already = ctypes.CDLL("libpsm2.so.2")
providers.load()
print(maps())
"""
    mapped = run(code)
    assert "libpsm2.so" in mapped
    assert "no_psm2." not in mapped


def test_a_stand_in_that_lacks_a_function_gives_way_to_the_real_library(tmp_path: Path) -> None:
    needs_psm()
    source, script, library = tmp_path / "a.c", tmp_path / "a.map", tmp_path / "a.so"
    source.write_text("int psm2_init(void) { return 21; }\n")
    script.write_text("PSM2_1.0 { global: psm2_*; local: *; };\n")
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libpsm2.so.2"]
    command += [f"-Wl,--version-script={script}", str(source), "-o", str(library)]
    subprocess.run(command, check=True, timeout=60)
    code = f"""
from rpmem.fabric.libfabric import startup
built = startup._built
startup._built = lambda name: {str(library)!r} if name == "no_psm2" else built(name)
providers.load()
print(len(names()))
print(maps())
"""
    mapped = run(code)
    assert "libpsm2.so" in mapped
    assert str(library) not in mapped


def test_kernel_symbols_are_not_read() -> None:
    if os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
        pytest.skip("this machine has RDMA devices: libfabric reads kallsyms on purpose")
    code = """
def bytes_read():
    return int(open("/proc/self/io").readline().split()[1])
begun = bytes_read()
providers.load()
names()
print(bytes_read() - begun)
"""
    plain = int(run(code, RPMEM_PLAIN_LIBFABRIC="1"))
    if plain < 2_000_000:
        pytest.skip("this libfabric, or this kernel, has no long list of symbols to read")
    assert int(run(code)) < 500_000


def test_the_function_table_of_libfabric_is_put_back() -> None:
    code = """
providers.load()
library = ctypes.CDLL("libfabric.so.1")
from rpmem.base import libraries
from rpmem.fabric.libfabric import load as _load
# Were the entry still exchanged, a second turn would keep its own function as the real one and
# every later fopen() of libfabric would never return.
for _ in range(3):
    _load.start_without_kernel_symbols(libraries.opened("libfabric"))
print(len(names()) > 0)
"""
    assert run(code).strip() == "True"
