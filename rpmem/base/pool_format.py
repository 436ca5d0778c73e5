"""Numbers of PMDK's pool format that every room has to agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["HEADER_SIZE", "MINIMUM_SIZE"]

#: Size of a header, which fills a page at the beginning of a part.
HEADER_SIZE: Final = 4096
#: Size of the smallest part.
MINIMUM_SIZE: Final = 2 << 20
