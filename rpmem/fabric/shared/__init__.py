"""Code shared by the fabrics: connecting lanes, their buffers, addresses, errors."""
