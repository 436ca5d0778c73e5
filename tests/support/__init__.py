"""What tests of several kinds share: servers that are really there."""
