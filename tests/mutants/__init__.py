"""Single mistakes in the code that the tests have to notice; `make mutants` tries them all.

A mutant names a function and a piece of its text, never a file or a line: it follows the function
wherever it moves. `tests.support.mutation` finds the place; `scripts/mutants` makes the mistake in
a copy of the tree, builds what has to be built, and runs the tests that should turn red.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One mistake.

    Parameters
    ----------
    what : str
        What goes wrong, in a few words; unique.
    function : str
        ``function``, ``Class.method`` or the name of a C function.
    old, new : str
        A piece of the function's text, which occurs there once, and what takes its place.
    tests : tuple of str
        Files or node ids of the tests that should notice.
    """

    what: str
    function: str
    old: str
    new: str
    tests: tuple[str, ...]
