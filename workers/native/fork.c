/*
 * Snapshots by fork: a child that shares the state's pages copy-on-write, and writes them out as they were while everybody
 * else goes on.
 *
 * The child is a process of one thread whose heap, locks and JavaScript engine are frozen in whatever state the other
 * threads had them, so it runs nothing but this file: system calls, and arithmetic on memory that is there already. It is
 * made by the bare system call, for glibc's `fork` waits for the locks of its allocator and runs handlers that others
 * registered. It closes every descriptor but its end of the pipe: else it would keep AF_XDP queues bound, and
 * connections open, that the parent has let go. All signals stay blocked, whose handlers are libuv's; SIGKILL comes through,
 * and is what the kernel sends it when its parent dies.
 *
 *     arena     goes out, with the sums added on the way
 *     locals    what the sums read; does not go out
 *
 * A *sum* adds `lanes` columns of doubles in `locals` to one column of doubles in the arena: what counting objects keep
 * per worker outside the arena (shm/objects/counting/counter-cells.ts). Done here, it does not
 * lengthen the pause.
 *
 * What the child needs no more it lets go of as it goes: the parent then writes to those pages without being given copies.
 */
#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef P_PIDFD /* Linux 5.4, glibc 2.36 */
#define P_PIDFD 3
#endif
#ifndef SYS_close_range /* Linux 5.9 */
#define SYS_close_range 436
#endif

#define SUMS_MAX 1024
#define SUM_NUMBERS 7
#define BLOCK_BYTES (256 * 1024)
#define PIPE_BYTES (1024 * 1024)
#define CHILD_NICE 5
#define RELEASE_BYTES ((size_t)2 << 20)
#define PAGE ((uintptr_t)4096)

enum { EXIT_WRITTEN = 0, EXIT_FAILED = 1, EXIT_ORPHAN = 2 };

/* Byte offsets and strides, all multiples of 8. */
struct sum {
  size_t target, target_stride, cells; /* in the arena */
  size_t source, source_stride;        /* in the locals: lane 0 of cell 0, and from cell to cell */
  size_t lane_stride, lanes;
};

struct job {
  const uint8_t *arena, *locals;
  size_t arena_bytes, locals_bytes;
  const struct sum *sums; /* ascending and disjoint in the arena */
  size_t sum_count;
  int pipe;
  pid_t parent;
};

static const struct hint FORK_HINTS[] = {
  { ENOMEM, "the kernel does not promise memory for a copy of this process; see vm.overcommit_memory" },
  { EAGAIN, "there are as many processes as this user or unit may have; see `ulimit -u` and TasksMax=" },
  { 0, NULL },
};

/* ---- The child ---- */

static uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));

static void write_all(int fd, const uint8_t *data, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, data, length);
    if (written < 0) {
      if (errno == EINTR) continue;
      _exit(EXIT_FAILED); /* EPIPE: nobody reads any more */
    }
    data += written;
    length -= (size_t)written;
  }
}

/* Adds to the copy in `block` of the arena's bytes from `from` what `sum` says of them. */
static void add_sum(const struct job *job, const struct sum *sum, size_t from, size_t length) {
  size_t first = from <= sum->target ? 0 : (from - sum->target + sum->target_stride - 1) / sum->target_stride;
  for (size_t cell = first; cell < sum->cells; cell++) {
    size_t target = sum->target + cell * sum->target_stride;
    if (target >= from + length) return;
    const uint8_t *source = job->locals + sum->source + cell * sum->source_stride;
    double total = 0;
    for (size_t lane = 0; lane < sum->lanes; lane++) total += *(const double *)(source + lane * sum->lane_stride);
    if (total != 0) *(double *)(block + (target - from)) += total;
  }
}

/* Lets go of the whole pages within `bytes` of our copy of memory that is not read any more. */
static void let_go(const uint8_t *from, size_t bytes) {
  uintptr_t first = ((uintptr_t)from + PAGE - 1) & ~(PAGE - 1);
  uintptr_t end = ((uintptr_t)from + bytes) & ~(PAGE - 1);
  if (first < end) madvise((void *)first, end - first, MADV_DONTNEED);
}

static size_t lane_start(const struct sum *sum, size_t lane) { return sum->source + lane * sum->lane_stride; }

static size_t lane_bytes(const struct sum *sum) { return (sum->cells - 1) * sum->source_stride + 8; }

/* Of the locals only what the sums read is needed. It lies sum after sum, or all is kept. */
static void let_go_of_unread(const struct job *job) {
  size_t next = 0;
  for (size_t i = 0; i < job->sum_count; i++) {
    if (job->sums[i].source < next) return;
    next = lane_start(&job->sums[i], job->sums[i].lanes - 1) + lane_bytes(&job->sums[i]);
  }
  next = 0;
  for (size_t i = 0; i < job->sum_count; i++) {
    for (size_t lane = 0; lane < job->sums[i].lanes; lane++) {
      size_t from = lane_start(&job->sums[i], lane), end = from + lane_bytes(&job->sums[i]);
      if (from > next) let_go(job->locals + next, from - next);
      if (end > next) next = end;
    }
  }
  let_go(job->locals + next, job->locals_bytes - next);
}

static size_t end_of(const struct sum *sum) { return sum->target + (sum->cells - 1) * sum->target_stride + 8; }

static void write_arena(const struct job *job) {
  size_t next = 0; /* the first sum that is not behind us */
  size_t kept = 0; /* where what we have not let go of begins */
  for (size_t from = 0; from < job->arena_bytes; from += BLOCK_BYTES) {
    size_t length = job->arena_bytes - from < BLOCK_BYTES ? job->arena_bytes - from : BLOCK_BYTES;
    if (from - kept >= RELEASE_BYTES) {
      let_go(job->arena + kept, from - kept);
      kept = from;
    }
    while (next < job->sum_count && end_of(&job->sums[next]) <= from) next++;
    if (next == job->sum_count || job->sums[next].target >= from + length) {
      write_all(job->pipe, job->arena + from, length);
      continue;
    }
    memcpy(block, job->arena + from, length);
    for (size_t i = next; i < job->sum_count && job->sums[i].target < from + length; i++)
      add_sum(job, &job->sums[i], from, length);
    write_all(job->pipe, block, length);
  }
}

static _Noreturn void run_child(const struct job *job) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != job->parent) _exit(EXIT_ORPHAN); /* it died before it was asked for */
  if (job->pipe > 0) syscall(SYS_close_range, 0u, (unsigned)job->pipe - 1, 0u);
  syscall(SYS_close_range, (unsigned)job->pipe + 1, ~0u, 0u);
  prctl(PR_SET_NAME, "ct-snapshot");
  setpriority(PRIO_PROCESS, 0, CHILD_NICE);
  let_go_of_unread(job);
  write_arena(job);
  _exit(EXIT_WRITTEN);
}

/* ---- The parent ---- */

/* What the arguments say, checked: nothing in it can make the child read or write beside the regions. */
static bool to_sums(napi_env env, napi_value value, size_t arena_bytes, size_t locals_bytes, struct sum *sums,
                    size_t *count) {
  double *numbers;
  size_t length;
  if (!to_doubles(env, value, "sums", &numbers, &length)) return false;
  *count = length / SUM_NUMBERS;
  if (length % SUM_NUMBERS != 0 || *count > SUMS_MAX) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "sums must be at most 1024 times 7 numbers");
    return false;
  }
  size_t arena_end = 0;
  for (size_t i = 0; i < *count; i++) {
    size_t fields[SUM_NUMBERS];
    bool right = true;
    for (size_t f = 0; f < SUM_NUMBERS; f++) {
      double number = numbers[i * SUM_NUMBERS + f];
      right = right && number >= 0 && number <= 0x1p40;
      fields[f] = right ? (size_t)number : 0;
    }
    struct sum sum = { fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], fields[6] };
    /* Bounded factors first, so that no product below overflows. */
    right = right && sum.cells >= 1 && sum.cells <= arena_bytes && sum.lanes >= 1 && sum.lanes <= 256 &&
            sum.target_stride >= 8 && sum.target_stride <= arena_bytes && sum.source_stride <= locals_bytes &&
            sum.lane_stride <= locals_bytes &&
            ((sum.target | sum.target_stride | sum.source | sum.source_stride | sum.lane_stride) & 7) == 0;
    if (right) {
      double target_end = (double)sum.target + (double)(sum.cells - 1) * (double)sum.target_stride + 8;
      double source_end = (double)sum.source + (double)(sum.cells - 1) * (double)sum.source_stride +
                          (double)(sum.lanes - 1) * (double)sum.lane_stride + 8;
      right = sum.target >= arena_end && target_end <= (double)arena_bytes && source_end <= (double)locals_bytes;
    }
    if (!right) {
      napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "a sum reaches past the arena or the locals, or is out of order");
      return false;
    }
    sums[i] = sum;
    arena_end = end_of(&sums[i]);
  }
  return true;
}

/*
 * What the child is to read must be there. Its pages may have been packet memory before, which was kept out of forks, then
 * freed and given to us by the allocator without being unmapped: they keep the mark, and the child would find a hole.
 */
static void let_fork(const uint8_t *data, size_t bytes) {
  uintptr_t first = (uintptr_t)data & ~(PAGE - 1);
  uintptr_t end = ((uintptr_t)data + bytes + PAGE - 1) & ~(PAGE - 1);
  madvise((void *)first, end - first, MADV_DOFORK);
}

/*
 * forkSnapshot(arena, locals, sums) -> { pid, child, pipe }
 *
 * `child` is a pidfd, owned by this thread: closing it kills the child if it still runs. `pipe` is the end to read from,
 * non-blocking, and belongs to the caller, who gives it to a net.Socket at once.
 */
static napi_value forkSnapshot(napi_env env, napi_callback_info info) {
  static struct sum sums[SUMS_MAX]; /* one thread forks at a time: main */
  napi_value arguments[3], result;
  uint8_t *arena, *locals;
  struct job job = { .sums = sums, .parent = getpid() };
  take_arguments(env, info, arguments, 3);
  if (!to_bytes(env, arguments[0], "arena", true, &arena, &job.arena_bytes) ||
      !to_bytes(env, arguments[1], "locals", true, &locals, &job.locals_bytes) ||
      !to_sums(env, arguments[2], job.arena_bytes, job.locals_bytes, sums, &job.sum_count))
    return NULL;
  if ((((uintptr_t)arena | (uintptr_t)locals) & 7) != 0) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "arena and locals must start on a multiple of 8");
    return NULL;
  }
  job.arena = arena;
  job.locals = locals;
  let_fork(arena, job.arena_bytes);
  let_fork(locals, job.locals_bytes);

  int ends[2], pidfd = -1;
  if (pipe2(ends, O_CLOEXEC) != 0) return throw_errno(env, errno, "pipe2", NULL, "a snapshot's pipe");
  fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES); /* refused past the user's share: the default is slower, not wrong */
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  job.pipe = ends[1];

  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  long pid = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, 0);
  int error = errno;
  if (pid == 0) run_child(&job);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return throw_errno(env, error, "clone", FORK_HINTS, "a copy of %zu bytes of state", job.arena_bytes);
  }
  if (own(env, pidfd, KIND_CHILD, "snapshot") == NULL) {
    close(ends[0]); /* and with the pidfd the child went */
    return NULL;
  }
  if (napi_create_object(env, &result) != napi_ok) return NULL;
  set(env, result, "pid", from_i32(env, (int32_t)pid));
  set(env, result, "child", from_i32(env, pidfd));
  set(env, result, "pipe", from_i32(env, ends[0]));
  return result;
}

void end_child(int pidfd) {
  siginfo_t status;
  syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
  while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &status, WEXITED) != 0 && errno == EINTR) {}
}

/*
 * childStatus(child) -> undefined while it runs; then its exit code, or the negative number of the signal that ended it. It
 * is reaped by that, and later calls fail with ECHILD. Never waits.
 */
static napi_value childStatus(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  siginfo_t status = { 0 };
  take_arguments(env, info, arguments, 1);
  struct resource *child = to_resource(env, arguments[0], KIND_CHILD);
  if (child == NULL) return NULL;
  if (waitid((idtype_t)P_PIDFD, (id_t)child->fd, &status, WEXITED | WNOHANG) != 0)
    return throw_errno(env, errno, "waitid", NULL, "snapshot child");
  if (status.si_pid == 0) return undefined(env);
  return from_i32(env, status.si_code == CLD_EXITED ? status.si_status : -status.si_status);
}

/* childKill(child): it ends at once; `childStatus` tells when it has. */
static napi_value childKill(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  take_arguments(env, info, arguments, 1);
  struct resource *child = to_resource(env, arguments[0], KIND_CHILD);
  if (child == NULL) return NULL;
  if (syscall(SYS_pidfd_send_signal, child->fd, SIGKILL, NULL, 0) != 0 && errno != ESRCH)
    return throw_errno(env, errno, "pidfd_send_signal", NULL, "snapshot child");
  return undefined(env);
}

void register_fork(napi_env env, napi_value exports) {
  DEFINE(env, exports, forkSnapshot);
  DEFINE(env, exports, childStatus);
  DEFINE(env, exports, childKill);
}
