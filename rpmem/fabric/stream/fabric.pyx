"""One address at which lanes over byte streams are made, or accepted."""

import select
import socket

from rpmem.base.fork cimport fork_generation
from rpmem.errors import ConnectFailed, ProviderUnavailable
from rpmem.fabric.shared.connecting cimport Connector
from rpmem.fabric.shared.lane cimport ConnectedLane
from rpmem.fabric.stream.keyring cimport KEY, Keyring

from rpmem.fabric.stream.call import PROOF_SIZE, Call
from rpmem.fabric.stream.handshake import need_encryption
from rpmem.fabric.stream.pairs import Inherited
from rpmem.fabric.stream.secret import SecretCall

cdef enum:
    LANE_LIMIT = 1024


cdef class Fabric(Connector):
    """Sockets of TCP, for one address, or pairs of sockets.

    Its parameters are explained in `rpmem.fabric.contract`. A `carrier` passes pairs: a descriptor
    of the target's, an object that brings them at the initiator.
    """

    def __cinit__(self, str provider, str host, int port=0, *, bint listen=False,
                  size_t queue_size=0, object carrier=None):
        self.born = fork_generation()
        self.provider = provider
        self.host = host
        self.port = port
        self.unanswered = "is a firewall between the two hosts? lanes need a TCP port of their own"
        self.joining = {}
        self.accepted = []
        self.proofs = []
        self.carrier = carrier
        self.addresses = []
        if carrier is not None:
            return
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                       flags=socket.AI_PASSIVE if listen else 0)
        except (OSError, UnicodeError) as error:
            raise ProviderUnavailable(f"there is no address for {host}: {error}",
                                      where=host) from error
        self.addresses = [(family, address) for family, _, _, _, address in found]

    cpdef close(self):
        """Forget the lanes that were being connected. Idempotent."""
        self.joining.clear()
        self.accepted.clear()

    @property
    def encrypts(self):
        """Whether `secure` can be called: pairs of sockets need nothing of the kind."""
        return self.carrier is None

    def secure(self, bytes nonce not None, object proofs):
        """Encrypt all lanes that are made from now on; the token of a proof is the key."""
        need_encryption()
        self.proofs = list(proofs)
        self.ring = Keyring(nonce, [proof[PROOF_SIZE - KEY:] for proof in self.proofs])

    def new_call(self, int index, bytes proof):
        """Begin to connect the lane of that number, with a proof if it needs any."""
        if self.carrier is not None:
            return Inherited(self.carrier.take_descriptor())
        if self.ring is None:
            return Call(self.addresses, proof)
        return SecretCall(self.addresses, self.ring, index)

    def await_answer(self, ConnectedLane lane):
        """A lane has begun to connect."""
        self.joining[(<object> lane).key] = lane

    def forget(self, ConnectedLane lane):
        """A lane is closed."""
        self.joining.pop((<object> lane).key, None)

    def was_accepted(self, ConnectedLane lane):
        """A lane of this side exists."""
        self.accepted.append(lane)

    def next_accepted(self, dict lanes):
        """Return a lane that was accepted and not returned before, or None; take it out of `lanes`.

        `lanes` are those of `Listener.next`, by their keys.
        """
        if not self.accepted:
            return None
        lane = self.accepted.pop(0)
        lanes.pop(lane.key, None)
        return lane

    @property
    def commits(self):
        """False: the target's service makes bytes durable."""
        return False

    @property
    def pins(self):
        """False: memory is used as it is."""
        return False

    @property
    def paces(self):
        """True: a message without a buffer waits in the socket."""
        return True

    @property
    def flushes(self):
        """False: there is no RDMA FLUSH."""
        return False

    @property
    def bypasses(self):
        """False: the target's service receives what is written."""
        return False

    @property
    def lane_limit(self):
        """The highest number of lanes a session can have."""
        return LANE_LIMIT

    @property
    def description(self):
        """What is known about it, for diagnostics."""
        return {"provider": self.provider, "lane_limit": self.lane_limit}

    cdef object turn(self, double timeout_s):
        """Let lanes that are being connected go on; return one that is done, or has failed."""
        cdef ConnectedLane lane
        poll = select.poll()
        calling = {}
        for lane in self.joining.values():
            calling[(<object> lane).call.fileno] = lane
            poll.register((<object> lane).call.fileno, (<object> lane).call.events)
        for descriptor, _ in poll.poll(timeout_s * 1000):
            lane = calling[descriptor]
            if self.proceed(lane):
                return lane
        return None

    cdef bint proceed(self, ConnectedLane lane) except -1:
        """Take a lane a step further: whether it is connected, or has failed."""
        try:
            if not (<object> lane).call.proceed():
                return False
            (<object> lane).connect_over((<object> lane).call.answered())
            lane.connected = True
        except OSError as error:
            why = f": {error.strerror}" if error.strerror else ""
            lane.problem = ConnectFailed(
                f"lane {lane.c.index} was refused by {self.host}, port {self.port}{why}",
                errno=error.errno, hint="what rpmemd logs on the target tells more")
        self.joining.pop((<object> lane).key, None)
        return True
