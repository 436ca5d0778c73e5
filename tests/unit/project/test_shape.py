"""The shape of the code: short files and functions, no bare booleans, tests by public names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import rooms
from tests.support.rooms import ROOT

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
    "benchmarks/backends/ours_low.py": "asks whether parts are built, without loading them",
    "benchmarks/digests.py": "takes digests of files, with nothing around it",
    "benchmarks/resync.py": "counts the bytes of the control session",
}
#: Tests of a room that Python code reaches by way of others only.
BY_WAY_OF_OTHERS = {
    "tests/unit/fabric/test_stream_sleeps.py": "tests.support.pair makes both ends of the lanes",
    "tests/unit/service/test_service.py": "a session's LaneServer runs the service",
    "tests/unit/steps/test_steps_posts.py": "a step is C; the engine looks it up by its name",
}
PUBLIC = {"rpmem/__init__", "rpmem/errors"}
#: What ``python -m`` is given.
COMMANDS = {"rpmem/cli/__init__"}


def sources(*folders: str, endings: tuple[str, ...] = (".py", ".pyx", ".pxd")) -> list[Path]:
    return [
        path.relative_to(ROOT)
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in endings
    ]


#: ``project`` has tests of no room.
TESTS_OF_ROOMS = [
    path
    for path in sources("tests/unit", endings=(".py",))
    if path.name.startswith("test_") and path.parent.name != "project"
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


def named(text: str) -> set[str]:
    """Modules that a text imports, or names in a string, as for monkeypatch or importorskip."""
    found = rooms.imported(text)
    for name in re.findall(r"[\"'](?:import |from )?(rpmem(?:\.\w+)+)", text):
        module = name.replace(".", "/")
        while module not in rooms.modules() | rooms.packages():
            module = module.rpartition("/")[0]
        found.add(f"{module}/__init__" if module in rooms.packages() else module)
    return found


def inside(text: str) -> set[str]:
    """Modules that a text imports or names, and that are not public."""
    found = named(text) - PUBLIC - COMMANDS
    return {module for module in found if not module.startswith("rpmem/memkind/")}


def with_helpers(path: Path) -> str:
    """Return the text of a test, and of the helpers that it imports."""
    text = (ROOT / path).read_text()
    texts = [text]
    for helper, names in re.findall(
        r"^from tests\.support(?:\.(\w+))? import \(?([\w, ]*)", text, re.M
    ):
        modules = [helper] if helper else re.findall(r"\w+", re.sub(r" as \w+", "", names))
        texts += [(ROOT / "tests/support" / f"{name}.py").read_text() for name in modules]
    return "\n".join(texts)


def strangers(path: Path) -> bool:
    """Whether a test of a room imports the inside of others only."""
    text = with_helpers(path)
    own = {module for module in named(text) if room(module) == path.parent.name}
    return bool(inside(text)) and not own


def room(module: str) -> str:
    """Return a module's room; that of a fabric is ``fabric``."""
    return str(rooms.room_of(module)).partition("/")[0]


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


@pytest.mark.parametrize("path", TESTS_OF_ROOMS, ids=str)
def test_a_test_of_a_room_imports_from_it(path):
    assert path.parent.name in {each.name for each in rooms.rooms()}
    assert strangers(path) == (str(path) in BY_WAY_OF_OTHERS)


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
    assert inside(text) == {"rpmem/pool/pool", "rpmemd/config"}


@pytest.mark.parametrize(
    "text",
    [
        'pytest.importorskip("rpmem.files.header")\n',
        'monkeypatch.setattr("rpmem.files.header.Header", None)\n',
        'CODE = """\nfrom rpmem.files import (\n    header,\n)\n"""\n',
        'CODE = "import rpmem.files.header; print()"\n',
    ],
)
def test_this_test_sees_what_a_string_names(text):
    assert inside(text) == {"rpmem/files/header"}


def test_this_test_sees_a_test_in_the_room_of_another(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "test_one.py"
    for text, stranger in (
        ("from rpmem.pool import pool\n", True),
        ("from rpmem.pool import pool\nfrom rpmem.files import header\n", False),
        ("from tests.support.posts import Bench\n", True),
        ("from tests.support import media\n", False),
        ("from rpmem import Pool\n", False),
    ):
        path.write_text(text)
        assert strangers(path) == stranger, text
