"""What random histories of copies are like."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """What a history is like.

    Attributes
    ----------
    turns : int
        How many acts it has.
    nested, cut, snapshot : float
        How probable it is, with each step, that another writer acts in the middle, that the session
        ends, and that an image of a copy is made.
    event : float
        How probable it is, with each act, that a disk is lost or an image is put back.
    crash : float
        How probable it is that a session is to end in a crash.
    dies : int
        Within how many steps.
    apart : int
        For so many acts nothing happens to the last copy: one writer goes on with the others.
    copies : int
        How many there are.
    begin : str
        What happens first.
    """

    turns: int = 10
    nested: float = 0.03
    cut: float = 0.015
    snapshot: float = 0.03
    event: float = 0.08
    crash: float = 0.4
    dies: int = 25
    apart: int = 0
    copies: int = 3
    begin: str = ""


#: So many epochs, and new copies, while another one stays away, that no record has room for all.
LONG = Shape(turns=260, nested=0.01, cut=0.002, event=0.2, crash=0.1, apart=220)
WIDE = Shape(turns=12, copies=4)
STORM = Shape(turns=14, nested=0.05, cut=0.04, crash=0.8, dies=10)
SHAPES = (Shape(),) * 6 + (STORM,) * 3 + (WIDE,)
#: These begin with what chance brings about too seldom.
LEFT_ALONE = Shape(begin="left")
PUT_BACK = Shape(begin="put back")
HALF_OFFERED = Shape(begin="offered", copies=4)


def shape_of(seed: int) -> Shape:
    """Return what the history of a seed is like."""
    seldom = {49: LEFT_ALONE, 99: HALF_OFFERED, 149: PUT_BACK, 199: LONG}
    return seldom.get(seed % 200) or SHAPES[seed % len(SHAPES)]
