"""The long proofs, in parts: ``make nightly PART=name``."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One long proof.

    Attributes
    ----------
    name : str
        What ``make nightly PART=`` takes.
    proves : str
        What is true when it passes.
    command : str
        One round of it, for the shell, in the root of the tree. ``{python}`` is the interpreter of
        ``.venv``, ``{pytest}`` its pytest, ``{options}`` the options with which pytest reports its
        figures, ``{resume}`` the option ``--resume`` when the round was cut off before. The seed
        stands in RPMEM_TEST_SEED and where ``{seed}`` is. A round that has figures writes them to
        the file RPMEM_NIGHTLY_FIGURES, a JSON object; those of pytest are added by themselves,
        numbers of ``record_property`` among them.
    rounds : int
        How often, each with the next seed.
    minutes : int
        About how long all rounds take on two cores.
    """

    name: str
    proves: str
    command: str
    rounds: int
    minutes: int
