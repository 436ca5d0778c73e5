"""The rooms of the code, as CONTRIBUTING.md lists them, and the imports between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".py", ".pyx", ".pxd")
_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<home>rpmemd?(?:\.\w+)*)\s+c?import\s+(?P<names>\([^)]*\)|[^\n#]*)"
    r"|c?import\s+(?P<module>rpmemd?(?:\.\w+)*))",
    re.M,
)
_ROW = re.compile(r"^\| `([\w/]+?)/?`((?: `[\w/.]+`)*) \| [^|]+ \| ([\w/ ]*)\|$", re.M)


@dataclass(frozen=True)
class Room:
    """A folder of modules, what else belongs to it, and the rooms that it may use."""

    name: str
    besides: tuple[str, ...]
    below: frozenset[str]


@cache
def rooms() -> tuple[Room, ...]:
    """Return the rooms in the order of the table, which is from the bottom up."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return tuple(
        Room(
            name,
            tuple(each.partition(".")[0] for each in besides.replace("`", "").split()),
            frozenset(below.split()),
        )
        for name, besides, below in _ROW.findall(text)
    )


@cache
def sources() -> tuple[Path, ...]:
    """Return every file of the two packages, as paths from the root."""
    return tuple(
        sorted(
            path.relative_to(ROOT)
            for package in ("rpmem", "rpmemd")
            for path in (ROOT / package).rglob("*")
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts
        )
    )


def module_of(path: Path) -> str:
    """Return the name of a file's module, such as ``rpmem/launch/base``."""
    return str(path.with_suffix(""))


@cache
def modules() -> frozenset[str]:
    """Return the names of all modules."""
    return frozenset(map(module_of, sources()))


@cache
def packages() -> frozenset[str]:
    """Return the names of all packages."""
    return frozenset(str(path.parent) for path in sources() if path.name == "__init__.py")


def room_of(module: str) -> str | None:
    """Return the room of a module: the one that names it, else that of its closest folder."""
    for room in rooms():
        if module in room.besides:
            return room.name
    folders = {room.name for room in rooms()}
    folder = module
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        for name in (folder, folder.removeprefix("rpmem/")):
            if name in folders:
                return name
    return "rpmemd" if folder == "rpmemd" else None


def imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, wherever in it."""
    return imported((ROOT / path).read_text())


def imported(text: str) -> set[str]:
    """Return the modules of ours that a text imports, in programs that it quotes too."""
    found = set()
    # What is imported for annotations only is no arrow.
    text = re.sub(r"^if TYPE_CHECKING:\n(?:(?:[ \t].*)?\n)*", "", text, flags=re.M)
    for match in _IMPORT.finditer(text):
        home = (match["home"] or match["module"]).replace(".", "/")
        names = re.findall(r"\w+", re.sub(r"\bas \w+", "", match["names"] or ""))
        inner = {f"{home}/{name}" for name in names} & (modules() | packages())
        found |= inner or {home}
    return {f"{name}/__init__" if name in packages() else name for name in found}


def arrows() -> Iterator[tuple[str, str]]:
    """Yield the rooms between which there are imports, each pair once."""
    seen = set()
    for path in sources():
        begin = room_of(module_of(path))
        for imported in imports(path):
            end = room_of(imported)
            if begin and end and begin != end and (begin, end) not in seen:
                seen.add((begin, end))
                yield begin, end


def floors() -> dict[str, int]:
    """Return on which floor each room is: one above the highest that it uses."""
    used: dict[str, set[str]] = {room.name: set() for room in rooms()}
    for begin, end in arrows():
        used[begin].add(end)
    heights: dict[str, int] = {}

    def height(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            raise ValueError("a circle of rooms: " + " -> ".join((*above, name)))
        if name not in heights:
            heights[name] = 1 + max(
                (height(each, (*above, name)) for each in used[name]), default=0
            )
        return heights[name]

    return {name: height(name) for name in used}


def report() -> str:
    """Return a line for each room, from the top floor down, and one with the sums."""
    used: dict[str, set[str]] = {room.name: set() for room in rooms()}
    for begin, end in arrows():
        used[begin].add(end)
    heights = floors()
    order = list(used)
    lines = []
    for name in sorted(order, key=lambda name: (-heights[name], order.index(name))):
        count = sum(room_of(each) == name for each in modules())
        below = " ".join(sorted(used[name], key=order.index))
        lines.append(f"{heights[name]:2}  {name:17} {count:3} modules  {below}")
    lines.append(
        f"{len(modules())} modules in {len(order)} rooms on {max(heights.values())} floors, "
        f"{sum(map(len, used.values()))} arrows"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
