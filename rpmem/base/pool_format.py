"""Numbers of the formats that every room has to agree on."""

from __future__ import annotations

from typing import Final

__all__ = ["HEADER_SIZE", "MINIMUM_SIZE", "POOL_FLOOR", "RECORD_OFFSET", "RECORD_SIZE"]

#: Size of a header, which fills a page at the beginning of a part.
HEADER_SIZE: Final = 4096
#: Size of the smallest part.
MINIMUM_SIZE: Final = 2 << 20
#: Where the record of a copy lies in a pool that rpmem laid out, and its bytes.
RECORD_OFFSET: Final = HEADER_SIZE
RECORD_SIZE: Final = 16384
#: The first byte of such a pool that all copies have in common: persist touches nothing below it.
POOL_FLOOR: Final = RECORD_OFFSET + RECORD_SIZE
