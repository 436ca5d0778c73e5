"""The contract of a fabric with its users: the classes of its module, and their promises.

The objects of one module belong together, which the signatures here do not express: a Domain that
is given another module's Fabric raises TypeError. Once lanes are connected, they are driven from C,
through the table of functions in ``rpmem/wire/lane.pxd``.

At run time these are only names: mypy checks them where fabrics are used and, at the end of this
file, against each fabric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import socket

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
    "StreamModule",
    "Taker",
    "VerbsModule",
]


class Fabric(Protocol):
    """One provider, for one address."""

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def pins(self) -> bool:
        """Whether registering memory pins it; if so, it is registered once per session."""

    @property
    def paces(self) -> bool:
        """Whether a message without a receive buffer waits in the connection, not failing it."""

    @property
    def commits(self) -> bool:
        """Whether a WRITE may complete when its bytes are in the persistence domain."""

    @property
    def flushes(self) -> bool:
        """Whether there is a FLUSH that makes earlier WRITEs persistent."""

    @property
    def bypasses(self) -> bool:
        """Whether a WRITE may reach memory without rpmemd, so that a READ after it proves more."""

    @property
    def encrypts(self) -> bool:
        """Whether `secure` can be called."""

    def secure(self, nonce: bytes, proofs: Sequence[bytes]) -> None:
        """Encrypt all lanes that are made from now on, by the tokens in their proofs.

        Parameters
        ----------
        nonce : bytes
            Names the session to whoever listens; 16 bytes, drawn for it.
        proofs : sequence of bytes
            Of every lane, by its number.

        Raises
        ------
        MissingExtension
            The library for it is missing on this machine.
        ProviderUnavailable
            It does not encrypt.
        """

    @property
    def lane_limit(self) -> int:
        """The highest number of lanes that a session can have."""

    @property
    def description(self) -> dict[str, object]:
        """What is known about it, for diagnostics."""

    def await_lanes(
        self, lanes: list[Lane], timeout: float, check: Callable[[], None] | None = None
    ) -> None:
        """Wait until all of `lanes` are connected.

        `check` is called now and then, and may raise to end the wait.

        Raises
        ------
        ConnectFailed
            The target refused a lane, or hung up.
        DeadlineExceeded
            The target did not answer within `timeout` seconds.
        """

    def close(self) -> None:
        """Free everything; objects made from it have to be closed first. Idempotent."""


class Domain(Protocol):
    """A domain in which memory is registered and lanes are made."""

    def close(self) -> None:
        """Free it; its lanes, queues and memory have to be closed first. Idempotent."""


class Memory(Protocol):
    """A registered range of memory."""

    @property
    def key(self) -> int:
        """The key by which the other side reaches it."""

    @property
    def address(self) -> int:
        """The address that the other side adds its offsets to."""

    @property
    def handle(self) -> int:
        """The handle that posts on lanes of the same domain need for this memory."""

    @property
    def flushes(self) -> bool:
        """Whether a FLUSH reaches it."""

    def close(self) -> None:
        """Deregister it. Idempotent."""


class Queue(Protocol):
    """Receives completions: one per lane (initiator), one per service thread (target)."""

    def close(self) -> None:
        """Free it; its lanes have to be closed first. Idempotent."""


class Lane(Protocol):
    """One connection with its message buffers; derives from `rpmem.wire.lane.Lane`."""

    @property
    def index(self) -> int:
        """The lane's number in its session."""

    @property
    def key(self) -> int:
        """The key by which `Listener.next` identifies it."""

    @property
    def connected(self) -> bool:
        """Whether the other side has agreed, and neither side has hung up since."""

    @property
    def fault(self) -> tuple[int, int]:
        """``(state, detail)``: state 0 while the lane is up, else the fault that ended it."""

    def aim(self, address: int, key: int, size: int) -> None:
        """Set the memory that one-sided operations reach."""

    def connect(self, data: bytes) -> None:
        """Start connecting, with `data` as proof; `Fabric.await_lanes` waits for it."""

    def post_receives(self) -> None:
        """Post every receive buffer."""

    def accept(self) -> None:
        """Accept the request that the lane was made for."""

    def hang_up(self) -> None:
        """Tell the other side that the lane has ended, from the thread that polls its queue."""

    def close(self) -> None:
        """Disconnect; the queue must not be polled meanwhile. Idempotent."""


class Request(Protocol):
    """A request for a connection: it becomes a Lane, or is rejected."""

    @property
    def data(self) -> bytes:
        """The proof that came with the request; some providers pad it."""

    @property
    def peer(self) -> tuple[str, int]:
        """Its origin: address and port."""

    def reject(self) -> None:
        """Reject the request."""


class Listener(Protocol):
    """Waits for lanes, at a port chosen by the system."""

    @property
    def port(self) -> int:
        """The port that lanes connect to."""

    def next(self, timeout: float, lanes: dict[int, Lane]) -> Request | Lane | None:
        """Wait for the next event: a request, a lane that is connected, or nothing.

        Parameters
        ----------
        timeout : float
            Seconds.
        lanes : dict
            ``lane.key`` to lane, for lanes accepted and not yet connected; the one that is reported
            (or has failed) is removed.
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
    """The return type of `rpmem.fabric.providers.load`: how each of the objects is made."""

    def Fabric(
        self,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
    ) -> _Fabric:
        """Open a provider: to connect to `host` and `port`, or with `listen` at `host`.

        At most `queue_size` operations may be under way on a lane; 0: the provider decides.
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

        The other side reaches it if it is `remote`; data is never read into a `source`; commits and
        flushes reach `persistent` memory. `key` is a preference, and `keep` is pinned meanwhile.

        Raises
        ------
        RegistrationFailed
            Most often the limit of locked memory.
        """

    def Queue(self, domain: _Domain, size: int = 0, *, answers: bool = True) -> _Queue:
        """Make a queue for `size` completions; with `answers`, waits are mostly for messages."""

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
        """Make a lane, given number and size of its buffers; it answers the `request`, if any."""

    @property
    def Request(self) -> type[_Request]:
        """The class of requests; `Listener.next` makes them."""

    def Listener(self, fabric: _Fabric, *, lanes: int = 0) -> _Listener:
        """Listen at the fabric's address for about `lanes` lanes."""


class Taker(Protocol):
    """Takes lanes that the target passes to its parent."""

    def take_descriptor(self) -> int:
        """Return the descriptor of the next one, which belongs to the caller."""

    def close(self) -> None:
        """Drop what was passed and not taken. Idempotent."""


_Taker: TypeAlias = Taker


class StreamModule(FabricModule, Protocol):
    """What the fabric over sockets has and takes in addition."""

    def Taker(self, over: socket.socket, timeout_s: float) -> _Taker:
        """Take what is passed over a Unix socket, each in so many seconds."""

    def can_carry(self, descriptor: int) -> bool:
        """Return whether descriptors can be passed over one."""

    def need_encryption(self) -> None:
        """Raise MissingExtension or ProviderUnavailable where lanes cannot be encrypted."""

    def Fabric(
        self,
        provider: str,
        host: str,
        port: int = 0,
        *,
        listen: bool = False,
        queue_size: int = 0,
        carrier: object = None,
    ) -> _Fabric:
        """Use an address, or the pairs of sockets that a `carrier` passes."""


class VerbsModule(FabricModule, Protocol):
    """The additional functions of the fabric ``verbs``."""

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
        """Open a device, or use the user's own objects that are `shared`."""

    def share(self, given: object) -> object:
        """Return the part of a user's pyverbs objects in which lanes can be made.

        Raises
        ------
        MissingExtension
            pyverbs is missing, or rpmem cannot read its objects.
        """

    def devices(self) -> list[dict[str, object]]:
        """Return what is known about each RDMA device of this machine."""


if TYPE_CHECKING:
    from rpmem.fabric.libfabric import api as _over_libfabric
    from rpmem.fabric.stream import api as _over_sockets
    from rpmem.fabric.verbs import api as _over_verbs
    from rpmem.wire import lane as _wire

    # This is where mypy compares each fabric with the contract.
    _libfabric: FabricModule = _over_libfabric
    _stream: StreamModule = _over_sockets
    _verbs: VerbsModule = _over_verbs
    _lanes: tuple[type[_wire.Lane], ...] = (
        _over_libfabric.FabricLane,
        _over_sockets.FabricLane,
        _over_verbs.FabricLane,
    )
