"""The hot path: ranges, free lanes, one call on every replica."""
