# cython: language_level=3
"""Data under way to the replicas on each lane, kept from being overtaken on other lanes.

Messages on one lane stay in order, those on two lanes do not: a target may carry out a message with
old bytes after one from another lane with newer bytes of the same range, already acknowledged. So
calls whose ranges overlap run one after the other: a call enters the ranges it is about to send,
which is refused while another lane has some of them under way. Flushes and interrupted calls return
before their bytes have arrived: these bytes are left behind on the lane until it is drained.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef extern from * nogil:
    """
    #ifndef RPMEM_OVERLAPS
    #define RPMEM_OVERLAPS
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <time.h>

    #define RPMEM_COMPARED 4096  /* pairs of ranges; more are assumed to overlap */

    typedef struct { uint64_t offset, length; } rpmem_range;

    typedef struct rpmem_way {
        const rpmem_range *ranges;      /* of the call in progress */
        size_t count;
        uint64_t low, high;             /* their hull */
        uint64_t left_low, left_high;   /* the hull of ranges that earlier calls left behind */
        int called, loose, listed;
        struct rpmem_way *before, *after;
    } rpmem_way;

    typedef struct {
        rpmem_way *ways;                /* one per lane */
        rpmem_way *first;               /* those that have something under way */
        uint32_t waiting;
        pthread_mutex_t lock;
        pthread_cond_t ended;
    } rpmem_overlaps;

    static inline int rpmem_overlaps_init(rpmem_overlaps *o, uint32_t lanes)
    {
        pthread_condattr_t monotonic;
        o->first = NULL;
        o->waiting = 0;
        o->ways = (rpmem_way *) calloc(lanes + 1, sizeof(rpmem_way));
        if (!o->ways)
            return ENOMEM;
        pthread_mutex_init(&o->lock, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&o->ended, &monotonic);
        pthread_condattr_destroy(&monotonic);
        return 0;
    }

    static inline void rpmem_overlaps_free(rpmem_overlaps *o)
    {
        if (!o->ways)
            return;
        free(o->ways);
        o->ways = NULL;
        pthread_cond_destroy(&o->ended);
        pthread_mutex_destroy(&o->lock);
    }

    static inline void rpmem_overlaps_hull(rpmem_way *hull, const rpmem_range *r, size_t count)
    {
        size_t i;
        hull->low = UINT64_MAX;
        hull->high = 0;
        for (i = 0; i < count; i++) {
            if (r[i].offset < hull->low) hull->low = r[i].offset;
            if (r[i].offset + r[i].length > hull->high) hull->high = r[i].offset + r[i].length;
        }
    }

    static inline int rpmem_overlaps_any(const rpmem_range *r, size_t count, uint64_t low,
                                         uint64_t high)
    {
        size_t i;
        for (i = 0; i < count; i++)
            if (r[i].offset < high && low < r[i].offset + r[i].length)
                return 1;
        return 0;
    }

    static inline int rpmem_overlaps_calls(const rpmem_way *one, const rpmem_way *other)
    {
        size_t i;
        if (!one->called || one->low >= other->high || other->low >= one->high)
            return 0;
        if (one->count > RPMEM_COMPARED / other->count)
            return 1;
        for (i = 0; i < one->count; i++)
            if (rpmem_overlaps_any(other->ranges, other->count, one->ranges[i].offset,
                                   one->ranges[i].offset + one->ranges[i].length))
                return 1;
        return 0;
    }

    /* Whether these ranges must not overtake something on a lane. */
    static inline int rpmem_overlaps_with(const rpmem_way *way, const rpmem_way *wanted)
    {
        return rpmem_overlaps_calls(way, wanted)
            || (way->left_low < wanted->high && wanted->low < way->left_high
                && rpmem_overlaps_any(wanted->ranges, wanted->count, way->left_low,
                                      way->left_high));
    }

    static inline int32_t rpmem_overlaps_enter(rpmem_overlaps *o, uint32_t lane,
                                               const void *ranges, size_t count, int relaxed)
    {
        rpmem_way *mine = &o->ways[lane], *way, wanted;
        int32_t found = -1;
        wanted.ranges = (const rpmem_range *) ranges;
        wanted.count = count;
        rpmem_overlaps_hull(&wanted, wanted.ranges, count);
        pthread_mutex_lock(&o->lock);
        for (way = count ? o->first : NULL; way && found < 0; way = way->after)
            /* One-sided data does overtake messages of its own lane. */
            if ((way != mine || relaxed || way->loose) && rpmem_overlaps_with(way, &wanted))
                found = (int32_t) (way - o->ways);
        if (found < 0) {
            mine->ranges = wanted.ranges;
            mine->count = count;
            mine->low = wanted.low;
            mine->high = wanted.high;
            mine->called = 1;
            if (!mine->listed) {
                mine->listed = 1;
                mine->before = NULL;
                mine->after = o->first;
                if (o->first) o->first->before = mine;
                o->first = mine;
            }
        }
        pthread_mutex_unlock(&o->lock);
        return found;
    }

    static inline void rpmem_overlaps_leave(rpmem_overlaps *o, uint32_t lane, int leaves,
                                            int loose, int drained)
    {
        rpmem_way *mine = &o->ways[lane];
        pthread_mutex_lock(&o->lock);
        mine->called = 0;
        if (drained) {
            mine->left_low = mine->left_high = 0;
            mine->loose = 0;
        } else if (leaves && mine->low < mine->high) {
            if (mine->left_high == 0 || mine->low < mine->left_low) mine->left_low = mine->low;
            if (mine->high > mine->left_high) mine->left_high = mine->high;
            mine->loose |= loose;
        }
        if (mine->left_high == 0) {
            if (mine->after) mine->after->before = mine->before;
            if (mine->before) mine->before->after = mine->after;
            else o->first = mine->after;
            mine->listed = 0;
        }
        if (o->waiting)
            pthread_cond_broadcast(&o->ended);
        pthread_mutex_unlock(&o->lock);
    }

    /* The hull of what earlier calls left behind on a lane; empty if low is not below high. */
    static inline void rpmem_overlaps_left(rpmem_overlaps *o, uint32_t lane, uint64_t *low,
                                           uint64_t *high)
    {
        pthread_mutex_lock(&o->lock);
        *low = o->ways[lane].left_low;
        *high = o->ways[lane].left_high;
        pthread_mutex_unlock(&o->lock);
    }

    /* Name every range that a call has under way or has left behind; of very many, their hull. */
    static inline void rpmem_overlaps_each(rpmem_overlaps *o,
                                           void (*each)(void *, uint64_t, uint64_t), void *context)
    {
        rpmem_way *way;
        size_t i;
        pthread_mutex_lock(&o->lock);
        for (way = o->first; way; way = way->after) {
            if (way->called && way->count > RPMEM_COMPARED)
                each(context, way->low, way->high - way->low);
            else if (way->called)
                for (i = 0; i < way->count; i++)
                    if (way->ranges[i].length)
                        each(context, way->ranges[i].offset, way->ranges[i].length);
            if (way->left_high)
                each(context, way->left_low, way->left_high - way->left_low);
        }
        pthread_mutex_unlock(&o->lock);
    }

    /* Wait until no call is in progress on a lane, or for a while; 1 if none was. */
    static inline int rpmem_overlaps_wait(rpmem_overlaps *o, uint32_t lane, uint64_t patience_ns)
    {
        struct timespec until;
        int called;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += (time_t) (patience_ns / 1000000000u);
        until.tv_nsec += (long) (patience_ns % 1000000000u);
        if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
        pthread_mutex_lock(&o->lock);
        called = o->ways[lane].called;
        o->waiting++;
        if (called)
            pthread_cond_timedwait(&o->ended, &o->lock, &until);
        o->waiting--;
        pthread_mutex_unlock(&o->lock);
        return !called;
    }
    #endif
    """
    ctypedef struct overlaps_t "rpmem_overlaps":
        pass

    # 0, or ENOMEM.
    int overlaps_init "rpmem_overlaps_init"(overlaps_t *overlaps, uint32_t lanes)
    void overlaps_free "rpmem_overlaps_free"(overlaps_t *overlaps)
    # Enter a call's ranges on its lane: -1, or a lane that still has some of them under way.
    int32_t overlaps_enter "rpmem_overlaps_enter"(
        overlaps_t *overlaps, uint32_t lane, const void *ranges, size_t count, bint relaxed)
    # The call ends. `leaves`: its data may not have arrived, and if `loose` may arrive in any
    # order, as by one-sided operations; `drained`: everything on the lane has arrived.
    void overlaps_leave "rpmem_overlaps_leave"(
        overlaps_t *overlaps, uint32_t lane, bint leaves, bint loose, bint drained)
    # The bytes from the first to the last that calls left behind on a lane; none if low >= high.
    void overlaps_left "rpmem_overlaps_left"(
        overlaps_t *overlaps, uint32_t lane, uint64_t *low, uint64_t *high)
    # Name every range that a call has under way or has left behind; very many ones by their hull.
    void overlaps_each "rpmem_overlaps_each"(
        overlaps_t *overlaps, void (*each)(void *, uint64_t, uint64_t) noexcept nogil,
        void *context)
    # Wait a while for the call on a lane; true if there is none, so the lane has to be drained.
    bint overlaps_wait "rpmem_overlaps_wait"(
        overlaps_t *overlaps, uint32_t lane, uint64_t patience_ns)
