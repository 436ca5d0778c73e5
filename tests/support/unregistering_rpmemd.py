"""rpmemd on a fabric that cannot register the pool, as RDMA devices cannot most files.

Started through ``command=``: ``python -P -m tests.support.unregistering_rpmemd SIZE [options]``,
where SIZE is the pool's.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any

from rpmem.errors import RegistrationFailed
from rpmem.fabric import providers
from rpmemd.__main__ import main as serve


def command(size: int) -> str:
    """Return what to give as ``command=``, with the provider ``tcp``."""
    module = "tests.support.unregistering_rpmemd"
    return shlex.join([sys.executable, "-P", "-m", module, str(size), "--log-level", "warn"])


def main() -> int:
    """Serve one initiator."""
    size = int(sys.argv.pop(1))
    module: Any = providers.load("tcp")
    register = module.Memory

    def refusing(domain: Any, address: int, length: int, **options: Any) -> Any:
        if length == size:
            raise RegistrationFailed("the pool cannot be registered", errno=14)
        return register(domain, address, length, **options)

    module.Memory = refusing
    return serve()


if __name__ == "__main__":
    sys.exit(main())
