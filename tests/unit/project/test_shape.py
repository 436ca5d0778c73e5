"""How the code is cut: short files and functions, no bare booleans, tests by public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 70
CODE = ("rpmem", "rpmemd", "benchmarks", "tests/support")

#: Longer files, and why each is one concept.
LONG_FILES = {
    "rpmem/_core.pyx": "one class: a call on every replica at once, and what it raises",
    "rpmem/errors.py": "one table: a class of a few lines for each kind of error",
    "rpmem/pool/pool.py": "one class, whose docstrings are the manual: two lines of three",
}
#: Switches that come by position, and why.
SWITCHES = {
    "rpmem/session/replica.py: close(remove)": "public",
    "rpmem/session/start.py: remove(force)": "public, as rpmem_remove(3)'s flags",
    "rpmem/session/start.py: remove(pool_set)": "public, as rpmem_remove(3)'s flags",
    "rpmem/cli/": "click gives every parameter by its name",
}
#: What of the inside integration tests, examples and benchmarks use, and why.
INSIDE = {
    "benchmarks/overhead.py": "measures the core alone, over a fabric that does nothing",
    "tests/integration/test_cli.py": "the command is called in this process",
    "tests/integration/test_dropped.py": "asks a pool that was left for its phase",
    "tests/integration/test_pool.py": "puts faults between the steps of an open and an attach",
    "tests/integration/test_readme.py": "compares README with rpmemd's options",
    "tests/integration/test_recorded_pools.py": "reads what lies in a pool, word by word",
    "tests/integration/test_replica.py": "writes headers that rpmem does not write",
    "tests/integration/test_secrets.py": "knows the secrets that it looks for",
    "tests/integration/test_staging.py": "takes a fabric that reaches no pool for one that does",
}
PUBLIC = re.compile(r"rpmem|rpmem\.errors|rpmem\.memkind(\..*)?")


def sources(*folders: str, endings: tuple[str, ...] = (".py", ".pyx", ".pxd")) -> list[Path]:
    return [
        path.relative_to(ROOT)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in endings
    ]


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def cython_functions(text: str) -> Iterator[tuple[str, int]]:
    """Names and lengths, from the line of the name to the last that is indented under it."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        begin = re.match(r"( *)(?:cp?def (?!class\b|struct\b|enum\b)|def )[^=]*?(\w+)\(", line)
        if begin is None:
            continue
        depth, last = 0, number
        for at, following in enumerate(lines[number:], number):
            code = following.partition("#")[0]
            if depth == 0 and at > number and code.strip():
                if len(following) - len(following.lstrip()) <= len(begin[1]):
                    break
                last = at
            depth += code.count("(") - code.count(")")
            if depth == 0 and at == last == number and not code.rstrip().endswith(":"):
                break  # a declaration
        yield begin[2], last - number + 1


def functions(path: Path, text: str) -> Iterator[tuple[str, int]]:
    return python_functions(text) if path.suffix == ".py" else cython_functions(text)


def positional_switches(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            for argument in (*node.args.posonlyargs, *node.args.args):
                if argument.annotation is not None and ast.unparse(argument.annotation) == "bool":
                    yield f"{node.name}({argument.arg})"


def inside(text: str) -> set[str]:
    """Modules of the product that are not public and are imported, wherever that stands."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    ours = {name for name in found if name.split(".")[0] in ("rpmem", "rpmemd")}
    return {name for name in ours if not PUBLIC.fullmatch(name)}


def test_files_are_short():
    long = {
        str(path)
        for path in sources(*CODE)
        if len((ROOT / path).read_text().splitlines()) > MOST_LINES_OF_A_FILE
    }
    assert long == LONG_FILES.keys()


def test_functions_are_short():
    long = {
        f"{path}: {name}"
        for path in sources(*CODE)
        for name, length in functions(path, (ROOT / path).read_text())
        if length > MOST_LINES_OF_A_FUNCTION
    }
    assert long == set()


def test_no_switch_comes_by_position():
    found = {
        f"{path}: {switch}"
        for path in sources("rpmem", "rpmemd", endings=(".py",))
        for switch in positional_switches((ROOT / path).read_text())
    }
    known = {each for each in found if each.startswith(tuple(SWITCHES))}
    assert found == known
    assert all(any(each.startswith(one) for each in known) for one in SWITCHES)


def test_integration_tests_examples_and_benchmarks_use_public_names():
    found = {
        str(path)
        for path in sources("tests/integration", "examples", "benchmarks", endings=(".py",))
        if inside((ROOT / path).read_text())
    }
    assert found == INSIDE.keys()


@pytest.mark.parametrize("path", sources(*CODE, endings=(".pyx",)), ids=str)
def test_every_function_of_a_compiled_part_is_seen(path):
    text = (ROOT / path).read_text()
    seen = [name for name, _ in cython_functions(text)]
    begun = re.findall(r"^ *(?:cp?def (?!class )[^=(\n]*?|def )(\w+)\(", text, re.M)
    assert seen == begun


def test_this_test_sees_lengths():
    body = "        x = 1\n" * 70
    python = f"class A:\n    def one(self):\n{body}\n    def two(self): ...\n"
    assert dict(python_functions(python)) == {"one": 71, "two": 1}
    cython = (
        "cdef int three(int a,\n           int b) noexcept nogil:\n    return a\n\n\n"
        f"cdef class B:\n    cdef int four(self) except -1:\n{body}\n"
        "    # a comment\n    def five(self, (int) a=f(1)):\n        # why\n        return 2\n"
        "cdef int six(int a)\n"
    )
    assert dict(cython_functions(cython)) == {"three": 3, "four": 71, "five": 3, "six": 1}


def test_this_test_sees_switches_and_imports():
    text = (
        "def f(a: bool, *, b: bool): ...\n"
        "import rpmem.pool.pool\nfrom rpmem.errors import X\nfrom rpmem import Pool\n"
        "def g():\n    from rpmemd import config\n"
    )
    assert list(positional_switches(text)) == ["f(a)"]
    assert inside(text) == {"rpmem.pool.pool", "rpmemd"}
