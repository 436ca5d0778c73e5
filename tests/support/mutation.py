"""Finding the place of a mutant in the tree: functions in Python, Cython and C by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.mutants import Mutant

PACKAGES = ("rpmem", "rpmemd")
SUFFIXES = (".py", ".pyx", ".pxd", ".c", ".h")

# A definition of Python or Cython: whatever stands between the keyword and the name is its type.
_DEFINED = re.compile(r"(?:async\s+)?(?:def|cdef|cpdef)\s[^=#]*?\b(\w+)\s*\(")
_CLASS = re.compile(r"(?:cdef\s+|cpdef\s+)?class\s+(\w+)")
_C_FUNCTION = re.compile(r"(?:static|__attribute__|int|void)\b[^;=#]*?\b(\w+)\s*\([^;]*$")


class Place(NamedTuple):
    """Where a mutant's text stands."""

    path: Path
    begin: int
    end: int


class Function(NamedTuple):
    """A function in a file: characters `begin` to `end` of the text."""

    name: str
    begin: int
    end: int


class NotFound(LookupError):
    """The text of a mutant is nowhere, or in several places."""


class Tree:
    """The functions of a tree, read once.

    Parameters
    ----------
    root : Path
        Where the packages are.
    """

    def __init__(self, root: Path) -> None:
        self._bodies: dict[str, list[tuple[Path, int, str]]] = {}
        for path in _sources(root):
            text = path.read_text()
            for function in functions(text, c_like=path.suffix in (".c", ".h")):
                body = path, function.begin, text[function.begin : function.end]
                self._bodies.setdefault(function.name, []).append(body)

    def find(self, mutant: Mutant) -> Place:
        """Return where the mutant's old text stands.

        Raises
        ------
        NotFound
            No function of that name has the text exactly once, or several have.
        """
        bodies = self._bodies.get(mutant.function, [])
        places = [
            Place(
                path,
                begin + body.index(mutant.old),
                begin + body.index(mutant.old) + len(mutant.old),
            )
            for path, begin, body in bodies
            if body.count(mutant.old) == 1
        ]
        if len(places) != 1:
            raise NotFound(
                f"{mutant.what!r}: {len(places)} of {len(bodies)} functions called "
                f"{mutant.function} have the text {mutant.old!r} once"
            )
        return places[0]


def apply(mutant: Mutant, root: Path) -> Path:
    """Make the mistake in the tree below `root`; return the file that was changed."""
    place = Tree(root).find(mutant)
    text = place.path.read_text()
    place.path.write_text(text[: place.begin] + mutant.new + text[place.end :])
    return place.path


def functions(text: str, *, c_like: bool = False) -> Iterator[Function]:
    """Yield every function of a file, methods as ``Class.method``, C inside Cython too."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    classes: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        words = line.strip()
        if not words:
            continue
        indent = len(line) - len(line.lstrip())
        while classes and classes[-1][0] >= indent and not words.startswith(("#", ")")):
            classes.pop()
        if found := _CLASS.match(words):
            classes.append((indent, found[1]))
        elif not c_like and (found := _DEFINED.match(words)):
            name = ".".join([*(each for _, each in classes), found[1]])
            yield Function(name, starts[number], starts[_indented(lines, number, indent)])
        elif (found := _C_FUNCTION.match(words)) and "class " not in words:
            end = _braced(lines, number, indent)
            if end is not None:
                yield Function(found[1], starts[number], starts[end])


def _indented(lines: list[str], number: int, indent: int) -> int:
    """Return the number of the line after a block that is held together by its indentation."""
    # The head ends where its parentheses close and a colon stands, or at once (a declaration).
    depth = 0
    for at in range(number, len(lines)):
        code = lines[at].split("#")[0]
        depth += code.count("(") + code.count("[") - code.count(")") - code.count("]")
        if depth <= 0:
            break
    for after in range(at + 1, len(lines)):
        line = lines[after]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return after
    return len(lines)


def _braced(lines: list[str], number: int, indent: int) -> int | None:
    """Return the number of the line after the closing brace of a C function; None if none opens."""
    opened = False
    for at in range(number, len(lines)):
        line = lines[at]
        opened = opened or "{" in line
        if not opened and (";" in line or at > number + 4):
            return None
        if opened and line.strip() == "}" and len(line) - len(line.lstrip()) == indent:
            return at + 1
        if opened and at == number and line.rstrip().endswith("}"):
            return at + 1
    return None


def _sources(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path
