"""What two fabrics have in common has one place: no six lines of one stand in another."""

from __future__ import annotations

from pathlib import Path

from tests.support.rooms import ROOT

_RUN = 6
_FABRICS = ("libfabric", "verbs")
#: Both list the names of the contract.
_ALIKE = {"api.py"}


def lines(path: Path) -> list[str]:
    """The lines of a file that say something: neither comments nor lone brackets."""
    stripped = (line.strip() for line in path.read_text().splitlines())
    return [line for line in stripped if len(line) > 1 and line[0] not in "#)" and line != '"""']


def runs(folder: Path) -> dict[tuple[str, ...], str]:
    """Every run of six lines in the code of a fabric, with the file it is in.

    Stubs are left out: a signature has to be written down for each class.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".py", ".pyx", ".pxd") and path.name not in _ALIKE:
            said = lines(path)
            for start in range(len(said) - _RUN + 1):
                found[tuple(said[start : start + _RUN])] = path.name
    return found


def twins(folder: Path) -> list[str]:
    """What stands in more than one fabric, by file and first line."""
    one, other = (runs(folder / name) for name in _FABRICS)
    return [f"{one[run]} and {other[run]}: {run[0]}" for run in one.keys() & other.keys()]


def test_no_six_lines_stand_in_two_fabrics():
    assert not twins(ROOT / "rpmem" / "fabric")


def test_this_test_sees_twins(tmp_path):
    for name in _FABRICS:
        (tmp_path / name).mkdir()
        body = "\n".join(f"    step_{number}()  # of {name}" for number in range(6))
        (tmp_path / name / "lane.pyx").write_text(f"def {name}():\n{body}\n")
    assert not twins(tmp_path)
    for name in _FABRICS:
        (tmp_path / name / "lane.pyx").write_text("def f():\n" + "\n    # why\n    step()\n" * 6)
    assert "lane.pyx and lane.pyx: def f():" in twins(tmp_path)
