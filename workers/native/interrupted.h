/*
 * Signals and system calls: which call of this binding can fail with EINTR or EAGAIN, and what is
 * done then. Node's threads receive signals at any time: a profiler's SIGPROF, SIGTERM, SIGHUP,
 * SIGCHLD.
 *
 *   call                   EINTR             EAGAIN           here
 *   bpf PROG_LOAD          -                 signal pending   signals blocked, 10 tries
 *   bpf PROG_TEST_RUN      signal pending    -                the same
 *   bpf LINK_CREATE        by the driver     driver resets    the same
 *   bpf MAP_*              -                 -                the same
 *   ioctl SIOCETHTOOL      by the driver     driver resets    PERSISTENTLY
 *   ioctl SIOCGIF*         -                 -                called once
 *   setsockopt UMEM_REG    fatal signal      pages move       PERSISTENTLY
 *   setsockopt, getsockopt -                 -                called once
 *   bind AF_XDP            by the driver     driver resets    for 3 s, in af-xdp.ts
 *   madvise                fatal signal      no memory, busy  PERSISTENTLY
 *   mmap of a ring         -                 locked limit     an error
 *   sendto AF_XDP          signal pending    more to send     8 tries, then the next kick
 *   poll                   signal came       no memory        0: the caller looks around
 *   read, write eventfd    - (never sleeps)  0, or full       nothing to do
 *   recv, no waiting       -                none there       UNINTERRUPTED, null: none there
 *   send to rtnetlink      before sending    -                UNINTERRUPTED
 *   recv from rtnetlink    while waiting     100 ms are over  UNINTERRUPTED, an error
 *   sendto Unix socket     queue is full     -                UNINTERRUPTED
 *   open, read /proc maps  while waiting     -                UNINTERRUPTED
 *   write to pipe, child   - (blocked)       -                repeated
 *   clone                  - (blocked)       process limit    an error with a hint
 *   waitid                 while waiting     -                repeated
 *   close                  it is closed      -                never repeated
 *
 * Neither: socket, eventfd, pipe2, fcntl, prctl, munmap, sched_*affinity, pidfd_send_signal
 * SIGKILL.
 *
 * Sources: man 2 of each call, and the kernel's source where that says less.
 */
#ifndef CONSTELLATION_INTERRUPTED_H
#define CONSTELLATION_INTERRUPTED_H

#include <errno.h>

#define TRIES 10

/* Makes a call again for as long as signals interrupt it: each turn takes another signal. */
#define UNINTERRUPTED(call)                             \
  __extension__({                                       \
    __typeof__(call) result_;                           \
    do result_ = (call);                                \
    while (result_ < 0 && errno == EINTR);              \
    result_;                                            \
  })

/*
 * Makes a call again, a bounded number of times, if it was interrupted or may work when it is made
 * again.
 */
#define PERSISTENTLY(call)                                                          \
  __extension__({                                                                   \
    __typeof__(call) result_;                                                       \
    int tries_ = 0;                                                                 \
    do result_ = (call);                                                            \
    while (result_ < 0 && (errno == EINTR || errno == EAGAIN) && ++tries_ < TRIES); \
    result_;                                                                        \
  })

#endif
