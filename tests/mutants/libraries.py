"""Mistakes in what is opened at run time, and in what does without it."""

from __future__ import annotations

from tests.mutants import Mutant

_LIBRARIES = ("tests/unit/base/test_libraries.py",)

MUTANTS = (
    Mutant(
        "the libssl of Python is another one",
        "_open",
        'if name == "libssl":',
        "if False:",
        _LIBRARIES,
    ),
    Mutant(
        "a missing libssl is not noticed by the check",
        "_encryption",
        "providers.load(STREAM).need_encryption()",
        "providers.load(STREAM)",
        _LIBRARIES,
    ),
    Mutant(
        "a function of a library is taken in whatever version there is",
        "address_of",
        "if version == NULL:",
        "if True:",
        _LIBRARIES,
    ),
    Mutant(
        "a function that a library lacks is called",
        "address_of",
        "if found == NULL:",
        "if False:",
        _LIBRARIES,
    ),
    Mutant(
        "a device is mapped plainly where there is no libpmem2",
        "map_pmem2",
        "if not all(is_regular(fd) for fd, _, _ in parts):",
        "if False:",
        _LIBRARIES,
    ),
    Mutant(
        "without libpmem2 no file can be mapped",
        "map_pmem2",
        "if not all(is_regular(fd) for fd, _, _ in parts):",
        "if True:",
        _LIBRARIES,
    ),
    Mutant(
        "a library that is not to be used is looked for",
        "_wanted",
        "if path == _NONE:",
        "if False:",
        _LIBRARIES,
    ),
    Mutant(
        "a library is opened from the current directory",
        "chosen",
        "os.path.isabs(place)",
        "bool(place)",
        _LIBRARIES,
    ),
    Mutant(
        "the first libfabric there is passes for that of an MPI",
        "_of_mpi",
        "return os.path.realpath(str(file.locate()))",
        "return FILES[name][0]",
        _LIBRARIES,
    ),
    Mutant(
        "persistent memory is flushed by bytes",
        "use_map",
        "segment.pmem_unit = 64 if",
        "segment.pmem_unit = 1 if",
        ("tests/unit/memory/test_pmem.py",),
    ),
)
