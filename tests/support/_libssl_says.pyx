# cython: language_level=3
"""What OpenSSL says of a handshake that is over, said otherwise: as no peer can be made to.

Built by tests.support.compiled; never part of the package.
"""

from rpmem.fabric.stream.libssl cimport libssl, require

from contextlib import contextmanager

cdef enum:
    TLS1_2 = 0x0303


cdef int not_reused(const void *ssl) noexcept nogil:
    return 0


cdef int earlier(const void *ssl) noexcept nogil:
    return TLS1_2


@contextmanager
def said(*, bint no_key=False, bint earlier_tls=False):
    """Let every handshake of this process end without the key, or with TLS 1.2."""
    require()
    reused, version = <size_t> libssl.SSL_session_reused, <size_t> libssl.SSL_version
    if no_key:
        libssl.SSL_session_reused = not_reused
    if earlier_tls:
        libssl.SSL_version = earlier
    try:
        yield
    finally:
        _put_back(reused, version)


cdef _put_back(size_t reused, size_t version):
    libssl.SSL_session_reused = <int (*)(const void *) noexcept nogil> reused
    libssl.SSL_version = <int (*)(const void *) noexcept nogil> version
