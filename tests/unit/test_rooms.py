"""The layout of the code is the one that CONTRIBUTING.md draws: arrows go downwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path.relative_to(ROOT)
    for package in ("rpmem", "rpmemd")
    for path in (ROOT / package).rglob("*")
    if path.suffix in (".py", ".pyx", ".pxd") and "__pycache__" not in path.parts
)
IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<home>rpmemd?(?:\.\w+)*)\s+c?import\s+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|c?import\s+(?P<module>rpmemd?(?:\.\w+)*))",
    re.M,
)


@dataclass(frozen=True)
class Room:
    name: str
    patterns: tuple[str, ...]
    below: frozenset[str]


def rooms() -> list[Room]:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = []
    for name, modules, below in re.findall(
        r"^\| (\w+) \| [^|]+ \| (`[^|]+`) \| ([\w ]*)\|$", text, re.M
    ):
        patterns = (
            pattern if pattern.startswith("rpmemd/") else f"rpmem/{pattern}"
            for pattern in modules.replace("`", "").split()
        )
        found.append(Room(name, tuple(patterns), frozenset(below.split())))
    return found


ROOMS = rooms()


def room_of(module: str) -> str | None:
    """Return the room of a module such as ``rpmem/launch/base``; the closest pattern counts."""
    matches = [
        (len(pattern), room.name)
        for room in ROOMS
        for pattern in room.patterns
        if fnmatch(module, pattern)
    ]
    return max(matches)[1] if matches else None


def module_of(path: Path) -> str:
    return str(path.with_suffix(""))


MODULES = {module_of(path) for path in SOURCES}


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, wherever in it."""
    found = set()
    # What is imported for annotations only is no arrow; nor are the face's names.
    text = re.sub(
        r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)*", "", (ROOT / path).read_text(), flags=re.M
    )
    for match in IMPORT.finditer(text):
        home = (match["home"] or match["module"]).replace(".", "/")
        names = re.findall(r"\w+", re.sub(r"\bas \w+", "", match["names"] or ""))
        inner = {f"{home}/{name}" for name in names} & (MODULES | packages())
        if inner:
            found |= inner
        else:
            found.add(home)
    return {f"{name}/__init__" if name in packages() else name for name in found}


def packages() -> set[str]:
    return {str(path.parent) for path in SOURCES if path.name == "__init__.py"}


def test_the_table_is_read():
    names = [room.name for room in ROOMS]
    assert len(names) == len(set(names)) > 10
    for room in ROOMS:
        assert room.below <= set(names)
        assert room.name not in room.below


def test_the_table_goes_downwards():
    """Rooms are listed from the bottom up; none uses one that comes later."""
    seen: set[str] = set()
    for room in ROOMS:
        assert room.below <= seen, room.name
        seen.add(room.name)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_keeps_to_its_room(path):
    room = room_of(module_of(path))
    assert room is not None, f"give {path} a room in CONTRIBUTING.md"
    allowed = {room} | next(each.below for each in ROOMS if each.name == room)
    for imported in imports(path):
        home = room_of(imported)
        assert home is not None, f"{path} imports {imported}, which has no room"
        assert home in allowed, f"{path} ({room}) must not import {imported} ({home})"


def test_this_test_sees_imports():
    assert imports(Path("rpmem/pool.py")) >= {"rpmem/assembly", "rpmem/_pmem", "rpmem/copies"}
    assert imports(Path("rpmem/_core.pyx")) >= {"rpmem/_steps", "rpmem/_ranges", "rpmem/errors"}
    assert "rpmem/fabric/__init__" in imports(Path("rpmemd/lanes.py"))
    assert "rpmem/session" in imports(Path("rpmem/cli/check.py"))
    assert room_of("rpmemd/_service") == "service"
    assert room_of("rpmem/launch/openssh") == "launch"
    assert room_of("rpmem/elsewhere") is None


def test_no_pattern_is_idle():
    for room in ROOMS:
        for pattern in room.patterns:
            assert any(fnmatch(module, pattern) for module in MODULES), f"{pattern} matches nothing"


def test_the_control_protocols_do_no_input_or_output():
    forbidden = re.compile(r"^\s*(?:import|from) (socket|subprocess|select|threading|time)\b", re.M)
    for path in SOURCES:
        if "control" in path.parts:
            assert not forbidden.search((ROOT / path).read_text()), path
