"""Every mutant has its place in the code, and tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import Mutant
from tests.mutants.every import ALL
from tests.support.mutation import NotFound, Tree, functions

ROOT = Path(__file__).resolve().parents[3]


def test_names_are_unique():
    names = [mutant.what for mutant in ALL]
    assert len(names) == len(set(names))
    assert len(names) >= 120


def test_each_text_is_found_once():
    tree = Tree(ROOT)
    lost = []
    for mutant in ALL:
        try:
            place = tree.find(mutant)
        except NotFound as error:
            lost.append(str(error))
            continue
        assert place.path.read_text()[place.begin : place.end] == mutant.old
        assert mutant.new != mutant.old
    assert lost == []


def test_the_tests_are_there():
    named = {test for mutant in ALL for test in mutant.tests}
    assert all(mutant.tests for mutant in ALL)
    missing = []
    for test in sorted(named):
        path, _, node = test.partition("::")
        text = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
        if f"def {node.partition('[')[0]}(" not in text if node else not text:
            missing.append(test)
    assert missing == []


def test_a_text_that_is_not_there_is_an_error(tmp_path):
    package = tmp_path / "rpmem"
    package.mkdir()
    (package / "one.py").write_text("def f():\n    return 1\n\n\ndef g():\n    return 1\n")
    found = Tree(tmp_path).find(Mutant("m", "f", "return 1", "return 2", ("t",)))
    assert found.begin == len("def f():\n    ")
    for function, old in (("f", "return 3"), ("h", "return 1")):
        with pytest.raises(NotFound):
            Tree(tmp_path).find(Mutant("m", function, old, "", ("t",)))
    (package / "two.py").write_text("def f():\n    return 1\n")
    with pytest.raises(NotFound):
        Tree(tmp_path).find(Mutant("m", "f", "return 1", "return 2", ("t",)))


def test_functions_of_all_three_languages_are_found():
    python = "class A:\n    def one(\n        self,\n    ) -> int:\n        return 1\n\n    x = 2\n"
    (one,) = functions(python)
    assert one.name == "A.one"
    assert python[one.begin : one.end].strip().endswith("return 1")
    cython = (
        "cdef class B:\n    cdef int two(self) noexcept nogil:\n        return 2\n\ncdef int x\n"
    )
    (two,) = functions(cython)
    assert (two.name, cython[two.begin : two.end].strip()[-8:]) == ("B.two", "return 2")
    c = "    static int three(int a) {\n        if (a) {\n        }\n        return 3;\n    }\n"
    (three,) = functions(c)
    assert three.name == "three"
    assert "return 3" in c[three.begin : three.end]
