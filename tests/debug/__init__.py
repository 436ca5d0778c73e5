"""The debug build: a copy of the tree whose compiled parts check themselves; `scripts/debug`.

The copy lies in ``build/debug`` and has a ``.venv`` of its own, whose interpreter loads the
sanitizers' runtime first. Nothing in it can be taken for a release build, nor the other way round:
the working tree is only read.
"""
