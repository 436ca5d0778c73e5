# cython: language_level=3
"""Handing out lane numbers to threads, without a lock while lanes are free."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>

    typedef struct {
        uint8_t *taken;           /* one flag per lane */
        uint32_t lanes;
        uint32_t waiting;         /* threads asleep below */
        pthread_mutex_t mutex;
        pthread_cond_t freed;
    } handout_t;

    /* A thread returns to the lane it had last: its memory is in the cache. */
    static _Thread_local uint32_t handout_last;
    static uint32_t handout_next_thread;
    static _Thread_local int handout_known;

    static int handout_init(handout_t *h, uint32_t lanes) {
        pthread_condattr_t monotonic;
        memset(h, 0, sizeof(*h));
        h->taken = calloc(lanes ? lanes : 1, 1);
        if (!h->taken) return ENOMEM;
        h->lanes = lanes;
        pthread_mutex_init(&h->mutex, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&h->freed, &monotonic);
        pthread_condattr_destroy(&monotonic);
        return 0;
    }

    static void handout_free(handout_t *h) {
        if (!h->taken) return;
        free(h->taken);
        h->taken = NULL;
        pthread_cond_destroy(&h->freed);
        pthread_mutex_destroy(&h->mutex);
    }

    static inline int handout_take(handout_t *h, uint32_t lane) {
        return !__atomic_exchange_n(&h->taken[lane], 1, __ATOMIC_SEQ_CST);
    }

    static int32_t handout_scan(handout_t *h, int32_t wanted) {
        uint32_t i, lane;
        if (wanted >= 0)
            return handout_take(h, (uint32_t)wanted) ? wanted : -1;
        /* A division only where there are fewer lanes than the thread's last. */
        for (i = 0, lane = handout_last < h->lanes ? handout_last : handout_last % h->lanes;
             i < h->lanes; i++) {
            if (handout_take(h, lane)) {
                handout_last = lane;
                return (int32_t)lane;
            }
            if (++lane == h->lanes) lane = 0;
        }
        return -1;
    }

    /* The lane `wanted`, or any for -1; -1 if none became free within `patience_ns`. */
    static int32_t handout_acquire(handout_t *h, int32_t wanted, uint64_t patience_ns) {
        int32_t lane;
        struct timespec until;
        if (!handout_known) {
            handout_known = 1;
            handout_last = __atomic_fetch_add(&handout_next_thread, 1, __ATOMIC_RELAXED);
        }
        lane = handout_scan(h, wanted);
        if (lane >= 0) return lane;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t)(patience_ns / 1000000000u);
        until.tv_nsec += (long)(patience_ns % 1000000000u);
        if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
        pthread_mutex_lock(&h->mutex);
        __atomic_add_fetch(&h->waiting, 1, __ATOMIC_SEQ_CST);
        while ((lane = handout_scan(h, wanted)) < 0)
            if (pthread_cond_timedwait(&h->freed, &h->mutex, &until) == ETIMEDOUT) {
                lane = handout_scan(h, wanted);
                break;
            }
        __atomic_sub_fetch(&h->waiting, 1, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&h->mutex);
        return lane;
    }

    static inline void handout_release(handout_t *h, uint32_t lane) {
        __atomic_store_n(&h->taken[lane], 0, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&h->waiting, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&h->mutex);
            pthread_cond_broadcast(&h->freed);
            pthread_mutex_unlock(&h->mutex);
        }
    }
    """
    ctypedef struct handout_t:
        uint32_t lanes
    int handout_init(handout_t *h, uint32_t lanes) nogil
    void handout_free(handout_t *h) nogil
    int32_t handout_acquire(handout_t *h, int32_t wanted, uint64_t patience_ns) nogil
    void handout_release(handout_t *h, uint32_t lane) nogil
