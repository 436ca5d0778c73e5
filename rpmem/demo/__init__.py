"""The demonstration behind ``rpmem demo``: measure, kill, restore, verify."""

from __future__ import annotations

from rpmem.demo.story import run

__all__ = ["run"]
