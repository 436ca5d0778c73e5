"""How an object knows that it was copied into a child by fork(), and what children there are.

A forked child shares sockets, devices and mappings with its parent: if the child closed them, they
would be gone for both. So a copy of an object is dropped, not closed, and its calls are refused.

Each child is given one end of a pipe, whose other end tells when it has ended or runs another
program: then it stores to the parent's memory no longer.
"""

import os

cdef extern from *:
    """
    #include <fcntl.h>
    #include <poll.h>
    #include <pthread.h>
    #include <unistd.h>

    #define RPMEM_MOST_CHILDREN 256

    typedef struct {
        int end;                /* of the pipe; the child has the other one */
        unsigned int number;    /* of the fork */
    } rpmem_child;

    static pthread_mutex_t rpmem_forking = PTHREAD_MUTEX_INITIALIZER;
    static unsigned int rpmem_forks;
    static unsigned int rpmem_unknown;      /* the last fork whose child is not watched */
    static rpmem_child rpmem_children[RPMEM_MOST_CHILDREN];
    static int rpmem_child_count;
    static int rpmem_pipe[2];

    static void rpmem_forget_children(void)
    {
        int i, left = 0;
        for (i = 0; i < rpmem_child_count; i++) {
            struct pollfd end = {rpmem_children[i].end, 0, 0};
            if (poll(&end, 1, 0) == 1 && (end.revents & (POLLHUP | POLLNVAL)) == POLLHUP)
                close(end.fd);
            else
                rpmem_children[left++] = rpmem_children[i];
        }
        rpmem_child_count = left;
    }

    static void rpmem_before_fork(void)
    {
        pthread_mutex_lock(&rpmem_forking);
        __atomic_add_fetch(&rpmem_forks, 1, __ATOMIC_SEQ_CST);
        rpmem_forget_children();
        if (rpmem_child_count == RPMEM_MOST_CHILDREN || pipe2(rpmem_pipe, O_CLOEXEC)) {
            rpmem_unknown = rpmem_forks;
            rpmem_pipe[0] = rpmem_pipe[1] = -1;
        }
    }

    static void rpmem_forked_here(void)
    {
        if (rpmem_pipe[0] >= 0) {
            close(rpmem_pipe[1]);
            rpmem_children[rpmem_child_count].end = rpmem_pipe[0];
            rpmem_children[rpmem_child_count++].number = rpmem_forks;
        }
        pthread_mutex_unlock(&rpmem_forking);
    }

    static void rpmem_forked_there(void)
    {
        static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
        int i;
        /* Kept open for as long as this child lives, under the lower number of the two. */
        if (rpmem_pipe[0] >= 0 && dup3(rpmem_pipe[1], rpmem_pipe[0], O_CLOEXEC) >= 0)
            close(rpmem_pipe[1]);
        for (i = 0; i < rpmem_child_count; i++)
            close(rpmem_children[i].end);
        rpmem_child_count = 0;
        rpmem_forking = fresh;
    }

    static int rpmem_watch_forks(void)
    {
        return pthread_atfork(rpmem_before_fork, rpmem_forked_here, rpmem_forked_there);
    }

    static inline unsigned int rpmem_forks_so_far(void)
    {
        return __atomic_load_n(&rpmem_forks, __ATOMIC_SEQ_CST);
    }

    static int rpmem_has_children(unsigned int since)
    {
        int i, found;
        pthread_mutex_lock(&rpmem_forking);
        rpmem_forget_children();
        found = rpmem_unknown > since;
        for (i = 0; i < rpmem_child_count; i++)
            found |= rpmem_children[i].number > since;
        pthread_mutex_unlock(&rpmem_forking);
        return found;
    }
    """
    int rpmem_watch_forks()
    unsigned int rpmem_forks_so_far()
    int rpmem_has_children(unsigned int since)

cdef unsigned int generation = 0


def _forked():
    global generation
    generation += 1


os.register_at_fork(after_in_child=_forked)
if rpmem_watch_forks():
    raise MemoryError("no memory to count forks")


def forks():
    """How often this process has begun to fork, by Python or by any other code.

    Children that only run another program (vfork, posix_spawn) are not counted: they never store to
    the parent's memory.
    """
    return rpmem_forks_so_far()


def has_children(unsigned int since):
    """Whether a child may still store to what this process has mapped.

    Parameters
    ----------
    since : int
        What `forks` returned before: only later forks count.

    Notes
    -----
    A child that closes all descriptors that it does not know is taken for one that has ended.
    """
    return rpmem_has_children(since) != 0


cdef unsigned int fork_generation() noexcept nogil:
    return generation


cdef bint is_copy(unsigned int born) noexcept nogil:
    return born != generation
