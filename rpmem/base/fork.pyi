"""Nothing in this module is visible to Python."""
