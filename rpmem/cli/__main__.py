"""``python -m rpmem.cli``: the command without its script."""

from __future__ import annotations

from rpmem.cli import main

main()
