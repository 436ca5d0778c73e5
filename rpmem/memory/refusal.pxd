# cython: language_level=3
"""Refusals by a medium, recorded so that no later call can miss them.

The kernel reports a page that it could not write to one caller of msync, once, and considers the
page clean from then on: asked again, it reports success. So the first refusal is kept for good, and
every later call returns it.

That is not enough for calls that overlap. When two threads are in msync on one file, the error may
be reported to either, whichever page failed, and the other is told nothing. So a call's success
counts only once every call that was under way when it returned has reported its own outcome.
"""

from libc.stdint cimport uint64_t


cdef extern from * nogil:
    """
    #ifndef RPMEM_REFUSAL
    #define RPMEM_REFUSAL
    #include <pthread.h>
    #include <stdint.h>

    typedef struct rpmem_flight {
        uint64_t number;
        struct rpmem_flight *before, *after;
    } rpmem_flight;

    typedef struct rpmem_refusal {
        int first;                      /* errno of the first refusal, or 0 */
        uint64_t begun;
        rpmem_flight *oldest, *newest;  /* calls under way, in the order they began */
        pthread_mutex_t lock;
        pthread_cond_t ended;
    } rpmem_refusal;

    static inline void rpmem_refusal_init(rpmem_refusal *refusal)
    {
        pthread_mutex_init(&refusal->lock, NULL);
        pthread_cond_init(&refusal->ended, NULL);
    }

    static inline void rpmem_refusal_free(rpmem_refusal *refusal)
    {
        pthread_cond_destroy(&refusal->ended);
        pthread_mutex_destroy(&refusal->lock);
    }

    static inline int rpmem_refusal_first(const rpmem_refusal *refusal)
    {
        return __atomic_load_n(&refusal->first, __ATOMIC_ACQUIRE);
    }

    static inline int rpmem_refusal_note(rpmem_refusal *refusal, int rc)
    {
        int none = 0;
        if (rc)
            __atomic_compare_exchange_n(&refusal->first, &none, rc, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE);
        return rpmem_refusal_first(refusal);
    }

    static inline void rpmem_flight_begin(rpmem_refusal *refusal, rpmem_flight *flight)
    {
        pthread_mutex_lock(&refusal->lock);
        flight->number = ++refusal->begun;
        flight->after = NULL;
        flight->before = refusal->newest;
        if (flight->before)
            flight->before->after = flight;
        else
            refusal->oldest = flight;
        refusal->newest = flight;
        pthread_mutex_unlock(&refusal->lock);
    }

    static inline int rpmem_flight_end(rpmem_refusal *refusal, rpmem_flight *flight, int rc)
    {
        uint64_t last;
        pthread_mutex_lock(&refusal->lock);
        rc = rpmem_refusal_note(refusal, rc);
        if (flight->after)
            flight->after->before = flight->before;
        else
            refusal->newest = flight->before;
        if (flight->before) {
            flight->before->after = flight->after;
        } else {
            refusal->oldest = flight->after;
            pthread_cond_broadcast(&refusal->ended);
        }
        last = refusal->begun;
        while (!rc && refusal->oldest && refusal->oldest->number <= last) {
            pthread_cond_wait(&refusal->ended, &refusal->lock);
            rc = rpmem_refusal_first(refusal);
        }
        pthread_mutex_unlock(&refusal->lock);
        return rc;
    }
    #endif
    """
    ctypedef struct flight_t "rpmem_flight":
        pass

    ctypedef struct refusal_t "rpmem_refusal":
        pass

    void refusal_init "rpmem_refusal_init"(refusal_t *refusal)
    void refusal_free "rpmem_refusal_free"(refusal_t *refusal)
    # The errno of the first refusal, or 0.
    int refusal_first "rpmem_refusal_first"(const refusal_t *refusal)
    # Record the outcome of a call, and return what `refusal_first` says then.
    int refusal_note "rpmem_refusal_note"(refusal_t *refusal, int rc)
    # Around a call whose failure may be reported to another: `end` waits for those under way.
    void flight_begin "rpmem_flight_begin"(refusal_t *refusal, flight_t *flight)
    int flight_end "rpmem_flight_end"(refusal_t *refusal, flight_t *flight, int rc)
