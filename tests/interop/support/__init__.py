"""What the interop tests are made of: the originals, target nodes, and programs to drive them."""

import pytest

# Tests lie in classes here, which test modules derive from: their asserts explain themselves too.
pytest.register_assert_rewrite(
    "tests.interop.support.calls",
    "tests.interop.support.objects",
    "tests.interop.support.refusals",
)
