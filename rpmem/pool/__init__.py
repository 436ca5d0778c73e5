"""Named arrays on several copies."""
