"""Every point at which a change of a pool's copies may be cut off, with two replicas.

`world` is a pool with its two replicas on three machines, and what each of them was promised;
`operations` are the changes; `cuts` cuts each of them after every event that a recorder noted, and
`looks` lets the real code go on from what is there; `chains` does so with random operations;
`deaths` lets a target die at every message while its initiator lives.
``python -m tests.support.crashpoints`` prints where it cut, and how often.
"""
