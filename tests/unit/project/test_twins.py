"""Shared code has one place: no six lines of code are repeated anywhere."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rooms import ROOT, SUFFIXES

_RUN = 6
_FOLDERS = ("rpmem", "rpmemd", "tests/support")
#: Where two places are better, by what `twins` says of them.
_ALIKE = {
    "rpmem/cli/attach.py and rpmem/cli/sync.py: rate_limit: str | None,": (
        "each command names its own parameters"
    ),
    "rpmem/cli/restore.py and rpmem/cli/sync.py: @rate_option": (
        "each command names its own options"
    ),
    "rpmem/fabric/contract.py and rpmem/fabric/contract.py: def Fabric(": (
        "mypy wants the whole signature of what takes one parameter more"
    ),
    "rpmem/fabric/libfabric/api.py and rpmem/fabric/verbs/api.py: __all__ = [": (
        "both list the names of the contract"
    ),
    "rpmem/launch/child.py and rpmem/launch/openssh.py: def __init__(": (
        "a class names the parameters that it hands on to its base"
    ),
    "rpmem/session/start.py and rpmem/session/start.py: pool_size: int | None = None,": (
        "two public calls with their own signatures"
    ),
    "tests/support/powercut/headers.py and tests/support/powercut/threads.py: seed: int,": (
        "the nightly run calls both by the same parameters"
    ),
}


def without_docstring(string: re.Match[str]) -> str:
    return string[0] if string[1] is None else ""


def lines(text: str) -> Iterator[str]:
    """Yield the lines that say something: no imports, docstrings, comments or lone brackets."""
    text = re.sub(r'(^ *)?""".*?"""', without_docstring, text, flags=re.M | re.S)
    text = re.sub(r"^ *(from [\w.]+ )?c?import (\([^)]*\)|.*)$", "", text, flags=re.M)
    for line in text.splitlines():
        said = re.sub(r"(^|\s+)#.*", "", line).strip()
        if re.search(r"\w", said):
            yield said


def twins(root: Path) -> set[str]:
    """Return what stands in two places, by the files and the first line.

    Stubs are left out: a signature has to be written down for each class.
    """
    said = {
        str(path.relative_to(root)): list(lines(path.read_text()))
        for folder in _FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in SUFFIXES
    }
    places = defaultdict(list)
    for name, of_file in said.items():
        for start in range(len(of_file) - _RUN + 1):
            places[tuple(of_file[start : start + _RUN])].append((name, start))
    pairs = {
        (one, other)
        for found in places.values()
        for number, one in enumerate(found)
        for other in found[number + 1 :]
        if one[0] != other[0] or other[1] - one[1] >= _RUN
    }
    return {
        f"{one} and {other}: {said[one][first]}"
        for (one, first), (other, second) in pairs
        # Longer ones are told by where they begin.
        if ((one, first - 1), (other, second - 1)) not in pairs
    }


def test_no_six_lines_stand_twice():
    assert twins(ROOT) == _ALIKE.keys()


def body(*said: str) -> str:
    return "".join(f"    {line}\n" for line in said)


@pytest.fixture
def tree(tmp_path):
    """A tree that takes the text of some files and says what stands in two of them."""

    def write(**files: str) -> set[str]:
        for name, text in files.items():
            path = tmp_path / "rpmem" / f"{name}.pyx"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return twins(tmp_path)

    return write


STEPS = [f"step_{number}()" for number in range(_RUN)]


def test_this_test_sees_twins_in_two_files(tree):
    commented = body(*(f"\n    # why\n    {step}  # and how" for step in STEPS))
    assert tree(one="def f():\n" + body(*STEPS), two="def g():\n" + commented) == {
        "rpmem/one.pyx and rpmem/two.pyx: step_0()"
    }
    assert not tree(two="def g():\n" + body(*STEPS[:-1]))


def test_this_test_sees_twins_in_one_file(tree):
    assert tree(one=f"def f():\n{body(*STEPS)}def g():\n{body(*STEPS, 'more()')}") == {
        "rpmem/one.pyx and rpmem/one.pyx: step_0()"
    }


def test_a_run_that_goes_on_is_told_once(tree):
    longer = body(*STEPS, "one_more()", "another()")
    assert len(tree(one="def f():\n" + longer, two="def g():\n" + longer)) == 1


def test_what_says_nothing_is_no_twin(tree):
    names = "".join(f"    name_{number},\n" for number in range(_RUN))
    imports = "".join(f"from rpmem cimport name_{number}\n" for number in range(_RUN))
    head = f'"""Of one.\n\n{names}"""\nfrom os import (\n{names})\n{imports}'
    assert not tree(one=head + "def f(): ...\n", two=head + "def g(): ...\n")


def test_a_string_that_is_no_docstring_counts(tree):
    string = f'CODE = """\n{body(*STEPS)}"""\n'
    after = f'{string}def f():\n    return 1\n"""A docstring."""\n'
    assert "return 1" in list(lines(after))
    assert tree(one=string, two=string) == {'rpmem/one.pyx and rpmem/two.pyx: CODE = """'}
