"""Numbers of PMDK's pools that every room has to agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["HEADER_SIZE", "MINIMUM_SIZE"]

#: Bytes of a header, and of the page that it occupies, at the beginning of a part.
HEADER_SIZE: Final = 4096
#: Bytes of the smallest part.
MINIMUM_SIZE: Final = 2 << 20
