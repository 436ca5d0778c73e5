"""What a fabric is, to those who use one: the classes of its module, and what each promises.

The objects of one module belong together, which no signature here says: a Domain that is given
another module's Fabric raises TypeError. What lanes do once they are connected is no business of
Python's; that is the table of functions in ``rpmem/wire/lane.pxd``.

Nothing here is there at run time but names: what mypy makes of them it checks where fabrics are
used, and at the end of this file, where they are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from rpmem.memory.region import Region

__all__ = [
    "Domain",
    "Fabric",
    "FabricModule",
    "Lane",
    "Listener",
    "Memory",
    "Queue",
    "Request",
    "VerbsModule",
]


class Fabric(Protocol):
    """One provider, towards one address."""

    @property
    def provider(self) -> str:
        """Its name."""

    @property
    def pins(self) -> bool:
        """Whether registering memory pins it; then it is registered once per session."""

    @property
    def paces(self) -> bool:
        """Whether a message that no buffer waits for waits in the connection, not failing it."""

    @property
    def commits(self) -> bool:
        """Whether a WRITE may complete when its bytes are in the persistence domain."""

    @property
    def flushes(self) -> bool:
        """Whether there is a FLUSH that makes earlier WRITEs persistent."""

    @property
    def lane_limit(self) -> int:
        """The most lanes that a session can have."""

    @property
    def description(self) -> dict[str, object]:
        """What is known of it, for diagnostics."""

    def await_lanes(
        self, lanes: list[Lane], timeout: float, check: Callable[[], None] | None = None
    ) -> None:
        """Wait until all of `lanes` are connected.

        `check` is called now and then meanwhile, and may raise to end the wait.

        Raises
        ------
        ConnectFailed
            The target refused one, or hung up.
        DeadlineExceeded
            It did not answer within `timeout` seconds.
        """

    def close(self) -> None:
        """Free everything; what was made of it has to be closed before. Idempotent."""


class Domain(Protocol):
    """Where memory is registered and lanes are made."""

    def close(self) -> None:
        """Free it; its lanes, queues and memory have to be closed before. Idempotent."""


class Memory(Protocol):
    """A registered range of memory."""

    @property
    def key(self) -> int:
        """By which the other side reaches it."""

    @property
    def address(self) -> int:
        """What the other side adds its offsets to."""

    @property
    def handle(self) -> int:
        """What posts on lanes of the same domain pass along for this memory."""

    @property
    def flushes(self) -> bool:
        """Whether a FLUSH reaches it."""

    def close(self) -> None:
        """Deregister it. Idempotent."""


class Queue(Protocol):
    """Where completions arrive: one per lane (initiator), one per service thread (target)."""

    def close(self) -> None:
        """Free it; its lanes have to be closed before. Idempotent."""


class Lane(Protocol):
    """One connection with its message buffers; derives from `rpmem.wire.lane.Lane`."""

    @property
    def index(self) -> int:
        """The lane's number in its session."""

    @property
    def key(self) -> int:
        """By which `Listener.next` knows it."""

    @property
    def connected(self) -> bool:
        """Whether the other side has agreed, and nobody has hung up since."""

    @property
    def fault(self) -> tuple[int, int]:
        """``(state, detail)``: 0 while the lane is up, else the fault that ended it."""

    def aim(self, address: int, key: int, size: int) -> None:
        """Set what one-sided operations reach."""

    def connect(self, data: bytes) -> None:
        """Start connecting, with `data` as proof; `Fabric.await_lanes` waits for it."""

    def post_receives(self) -> None:
        """Post every receive buffer."""

    def accept(self) -> None:
        """Accept the request that the lane was made for."""

    def hang_up(self) -> None:
        """Tell the other side that the lane is over, from the thread that polls its queue."""

    def close(self) -> None:
        """Disconnect; the queue must not be polled meanwhile. Idempotent."""


class Request(Protocol):
    """A request for a connection: it becomes a Lane, or is rejected."""

    @property
    def data(self) -> bytes:
        """The proof that came with it; some providers pad it."""

    @property
    def peer(self) -> tuple[str, int]:
        """Where it comes from: address and port."""

    def reject(self) -> None:
        """Turn it down."""


class Listener(Protocol):
    """Where lanes are waited for, at a port of the system's choice."""

    @property
    def port(self) -> int:
        """Where lanes are to connect to."""

    def next(self, timeout: float, lanes: dict[int, Lane]) -> Request | Lane | None:
        """Wait for what happens next: a request, a lane that is connected, or nothing.

        Parameters
        ----------
        timeout : float
            Seconds.
        lanes : dict
            ``lane.key`` to lane, for those accepted and not yet connected; the one that is
            reported (or failed) is taken out.
        """

    def close(self) -> None:
        """Stop listening. Idempotent."""


# The module's names are those of the classes.
_Fabric: TypeAlias = Fabric
_Domain: TypeAlias = Domain
_Memory: TypeAlias = Memory
_Queue: TypeAlias = Queue
_Lane: TypeAlias = Lane
_Request: TypeAlias = Request
_Listener: TypeAlias = Listener


class FabricModule(Protocol):
    """What `rpmem.fabric.providers.load` returns: how each of the objects is made."""

    def Fabric(
        self,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
    ) -> _Fabric:
        """Open a provider: towards `host` and `port`, or with `listen` at `host`.

        `queue_size` operations may be under way on a lane; 0 leaves it to the provider.
        """

    def Domain(self, fabric: _Fabric) -> _Domain:
        """Make a domain."""

    def Memory(
        self,
        domain: _Domain,
        address: int,
        length: int,
        *,
        remote: bool = False,
        source: bool = False,
        persistent: bool = False,
        key: int = 0,
        keep: Region | None = None,
    ) -> _Memory:
        """Register memory.

        The other side reaches it if it is `remote`; nothing is read into a `source`; commits and
        flushes reach what is `persistent`. `key` is a wish, and `keep` is pinned meanwhile.

        Raises
        ------
        RegistrationFailed
            Most often the limit of locked memory.
        """

    def Queue(self, domain: _Domain, size: int = 0, *, answers: bool = True) -> _Queue:
        """Make a queue for `size` completions, on which mostly messages (`answers`) are awaited."""

    def FabricLane(
        self,
        domain: _Domain,
        queue: _Queue,
        index: int,
        send: tuple[int, int],
        receive: tuple[int, int],
        pool: _Memory | None = None,
        request: _Request | None = None,
    ) -> _Lane:
        """Make a lane, with number and size of its buffers; it answers the `request`, if any."""

    @property
    def Request(self) -> type[_Request]:
        """The class of requests; `Listener.next` makes them."""

    def Listener(self, fabric: _Fabric, *, lanes: int = 0) -> _Listener:
        """Listen at the fabric's address for about so many lanes."""


class VerbsModule(FabricModule, Protocol):
    """What the fabric ``verbs`` has beside."""

    def Fabric(
        self,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
        shared: object = None,
    ) -> _Fabric:
        """Open a device, or use what is `shared` of a user's own objects."""

    def share(self, given: object) -> object:
        """Return what of a user's pyverbs objects lanes can be made in.

        Raises
        ------
        MissingExtension
            There is no pyverbs, or not one that rpmem can look into.
        """

    def devices(self) -> list[dict[str, object]]:
        """Return what is known of each RDMA device of this machine."""


if TYPE_CHECKING:
    from rpmem.fabric.libfabric import api as _over_libfabric
    from rpmem.fabric.verbs import api as _over_verbs
    from rpmem.wire import lane as _wire

    # This is where mypy compares each fabric with the contract.
    _libfabric: FabricModule = _over_libfabric
    _verbs: VerbsModule = _over_verbs
    _lanes: tuple[type[_wire.Lane], ...] = (_over_libfabric.FabricLane, _over_verbs.FabricLane)
