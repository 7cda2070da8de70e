/* What a worker calls once a batch or when idle: kick a socket, sleep until one has packets, be woken by another thread. */
#include "addon.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_FDS_MAX 1024
#define KICK_TRIES 8

/* eventCreate() -> fd of an eventfd, owned by this thread. */
static napi_value eventCreate(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) return throw_errno(env, errno, "eventfd", NULL, "a thread's wake-up");
  return own(env, fd, KIND_EVENT, "wake-up") == NULL ? NULL : from_i32(env, fd);
}

/* eventSignal(fd): wakes whoever waits on it; any thread of the process may. */
static napi_value eventSignal(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int fd;
  take_arguments(env, info, arguments, 1);
  if (!to_held_fd(env, arguments[0], KIND_EVENT, &fd)) return NULL;
  uint64_t one = 1;
  ssize_t written = write(fd, &one, sizeof one); /* EAGAIN: signalled 2^64 - 2 times, so it is awake anyway */
  (void)written;
  let_go_fd();
  return undefined(env);
}

/*
 * xskKick(fd) -> 0, EAGAIN when not all could be sent yet, or the errno of a failure.
 *
 * Has the kernel send what is in the tx ring. A copy-mode sendto ends with EAGAIN after a bounded number, and with EBUSY
 * after a packet the device dropped, while there is more; so it is called again, a bounded number of times.
 */
static napi_value xskKick(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  take_arguments(env, info, arguments, 1);
  struct resource *socket = to_resource(env, arguments[0], KIND_XSK);
  if (socket == NULL) return NULL;
  int failed = EAGAIN;
  for (int i = 0; i < KICK_TRIES && failed == EAGAIN; i++) {
    failed = sendto(socket->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;
    if (failed == EBUSY || failed == ENOBUFS || failed == EINTR) failed = EAGAIN;
  }
  return from_i32(env, failed);
}

static void reset_if_event(int fd) {
  if (!hold_fd(fd, KIND_EVENT)) return;
  uint64_t signals;
  ssize_t got = read(fd, &signals, sizeof signals); /* non-blocking */
  (void)got;
  let_go_fd();
}

/*
 * waitReadable(fds, timeoutMs) -> how many are readable; 0 when the time is up or a signal came.
 *
 * `fds` is an Int32Array of sockets of this thread and eventfds. Readable eventfds are reset. A timeout of 0 does not
 * sleep, but has the kernel look at the fill rings, which is how a driver that asked for it is woken.
 */
static napi_value waitReadable(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t *fds;
  size_t count;
  uint32_t timeout_ms;
  struct pollfd polled[WAIT_FDS_MAX];
  take_arguments(env, info, arguments, 2);
  if (!to_words(env, arguments[0], "fds", &fds, &count) ||
      !to_u32(env, arguments[1], "timeoutMs", 0, 3600 * 1000, &timeout_ms))
    return NULL;
  if (count == 0 || count > WAIT_FDS_MAX) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "fds must be 1 to 1024 descriptors");
    return NULL;
  }
  for (size_t i = 0; i < count; i++) polled[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
  int ready = poll(polled, count, (int)timeout_ms);
  if (ready < 0) {
    if (errno == EINTR || errno == EAGAIN) return from_i32(env, 0);
    return throw_errno(env, errno, "poll", NULL, "%zu descriptors", count);
  }
  for (size_t i = 0; ready > 0 && i < count; i++) {
    if ((polled[i].revents & POLLNVAL) != 0)
      return throw_errno(env, EBADF, "poll", NULL, "descriptor %d is not open", polled[i].fd);
    if ((polled[i].revents & POLLIN) != 0) reset_if_event(polled[i].fd);
  }
  return from_i32(env, ready);
}

void register_wait(napi_env env, napi_value exports) {
  DEFINE(env, exports, eventCreate);
  DEFINE(env, exports, eventSignal);
  DEFINE(env, exports, xskKick);
  DEFINE(env, exports, waitReadable);
}
