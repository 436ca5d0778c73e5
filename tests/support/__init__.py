"""Code shared by tests of several kinds, such as real servers."""
