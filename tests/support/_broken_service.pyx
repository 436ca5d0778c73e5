# cython: language_level=3
"""Services that break a promise, to show that a test would notice.

Built by tests.support.compiled; never part of the package.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset
from posix.unistd cimport usleep

from rpmem.wire.messages cimport (
    MESSAGE_REPLY, MESSAGE_UPDATE, REPLY_DONE, UPDATE_ANSWER, header_t, reply_t,
)
from rpmemd.service cimport DROP_LOST, Service, handler_t, served_t

cdef enum:
    HEAD_START = 2000         # us between an early answer and what it answers for


cdef class SkipsFlush(Service):
    """Answers as if it had flushed."""

    cdef int note(self, served_t *served, uint64_t offset, uint64_t length) noexcept nogil:
        return 0

    cdef int settle(self, served_t *served) noexcept nogil:
        self.flushes += 1
        return 0


# What the honest service does with a message; the same for all.
cdef handler_t honest = NULL


cdef int answer_first(Service service, served_t *served, const char *message,
                      uint64_t length) noexcept nogil:
    """Answer, wait, and only then store and flush; the initiator sends nothing malformed."""
    cdef const header_t *header = <const header_t *> message
    cdef reply_t *reply = <reply_t *> served.reply
    cdef int reason
    cdef bint sent
    if (length < sizeof(header_t) or header.kind != MESSAGE_UPDATE
            or not header.flags & UPDATE_ANSWER):
        return honest(service, served, message, length)
    memset(reply, 0, sizeof(reply_t))
    reply.kind = MESSAGE_REPLY
    reply.status = REPLY_DONE
    reply.sequence = header.sequence
    served.reply_size = sizeof(reply_t)
    served.owes_reply = True
    served.sequence = header.sequence
    if service.send_reply(served) < 0:
        return DROP_LOST
    sent = not served.owes_reply
    served.sequence -= 1
    usleep(HEAD_START)
    reason = honest(service, served, message, length)
    if sent:
        served.owes_reply = False
    return reason


cdef class AnswersEarly(Service):
    """The answer goes out, and then the data are stored and flushed; the native dialect only."""

    def __cinit__(self, *_, dialect="native", **__):
        global honest
        if dialect == "native":
            honest = self.handler
            self.handler = answer_first
