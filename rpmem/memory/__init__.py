"""Mapped memory, and how each medium is flushed."""
