"""The layout of the code is the one in CONTRIBUTING.md: arrows go downwards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import rooms
from tests.support.rooms import ROOT, imports, module_of, room_of, sources


def test_the_table_is_read():
    names = [room.name for room in rooms.rooms()]
    assert len(names) == len(set(names)) > 10
    for room in rooms.rooms():
        assert room.below <= set(names)
        assert room.name not in room.below


def test_the_table_goes_downwards():
    """Rooms are listed from the bottom up; none uses one that comes later."""
    seen: set[str] = set()
    for room in rooms.rooms():
        assert room.below <= seen, room.name
        seen.add(room.name)


@pytest.mark.parametrize("path", sources(), ids=str)
def test_every_module_keeps_to_its_room(path):
    room = room_of(module_of(path))
    assert room is not None, f"give {path} a room in CONTRIBUTING.md"
    allowed = {room} | next(each.below for each in rooms.rooms() if each.name == room)
    for imported in imports(path):
        home = room_of(imported)
        assert home is not None, f"{path} imports {imported}, which has no room"
        assert home in allowed, f"{path} ({room}) must not import {imported} ({home})"


def test_every_room_is_there_and_every_right_is_used():
    used = set(rooms.arrows())
    for room in rooms.rooms():
        folder = room.name if room.name.startswith("rpmem") else f"rpmem/{room.name}"
        inside = {module for module in rooms.modules() if room_of(module) == room.name}
        assert (ROOT / folder).is_dir() or inside, room.name
        for module in room.besides:
            assert module in rooms.modules(), module
        idle = {below for below in room.below if (room.name, below) not in used}
        assert not idle, f"{room.name} uses nothing of {idle}"


def test_no_module_lies_outside_the_rooms():
    flat = {path.name for path in sources() if path.parent == Path("rpmem")}
    assert flat == {
        "__init__.py",
        "_core.pxd",
        "_core.pyx",
        "_version.py",
        "errors.py",
    }


def test_this_test_sees_imports():
    assert imports(Path("rpmem/pool/pool.py")) >= {
        "rpmem/pool/assembly",
        "rpmem/pool/transfer",
        "rpmem/pool/lifetime",
    }
    assert imports(Path("rpmem/_core.pyx")) >= {
        "rpmem/steps/reading",
        "rpmem/engine/ranges",
        "rpmem/errors",
    }
    assert "rpmem/fabric/providers" in imports(Path("rpmemd/lane_server.py"))
    assert "rpmem/session/start" in imports(Path("rpmem/cli/check.py"))
    assert room_of("rpmemd/service") == "service"
    assert room_of("rpmemd/session") == "rpmemd"
    assert room_of("rpmem/launch/openssh") == "launch"
    assert room_of("rpmem/fabric/verbs/queue") == "fabric/verbs"
    assert room_of("rpmem/elsewhere") is None


def test_a_circle_is_seen(monkeypatch):
    there = [*rooms.arrows(), ("base", "files")]
    monkeypatch.setattr(rooms, "arrows", lambda: iter(there))
    with pytest.raises(ValueError, match=r"a circle of rooms: .*base"):
        rooms.floors()


def test_the_rooms_can_be_printed():
    last = rooms.report().splitlines()[-1]
    counted = re.fullmatch(r"(\d+) modules in (\d+) rooms on (\d+) floors, (\d+) arrows", last)
    assert counted, last
    assert [int(number) for number in counted.groups()] == [
        len(rooms.modules()),
        len(rooms.rooms()),
        max(rooms.floors().values()),
        len(list(rooms.arrows())),
    ]


def test_the_control_protocols_do_no_input_or_output():
    forbidden = re.compile(r"^\s*(?:import|from) (socket|subprocess|select|threading|time)\b", re.M)
    for path in sources():
        if "control" in path.parts:
            assert not forbidden.search((ROOT / path).read_text()), path
