"""What the fabrics share: how lanes come about, their buffers, addresses, errors."""
