/* One Unix datagram, which is all of the sd_notify protocol (man 3 sd_notify) and what Node lacks. */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const struct hint NOTIFY_HINTS[] = {
  { ENOENT, "nothing listens at $NOTIFY_SOCKET" },
  { ECONNREFUSED, "nothing listens at $NOTIFY_SOCKET" },
  { EACCES, "this user may not write to $NOTIFY_SOCKET; see NotifyAccess= of the unit" },
  { 0, NULL },
};

/* unixDatagram(path, message): a path that starts with '@' names an abstract socket. */
static napi_value unixDatagram(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  char path[sizeof address.sun_path], message[4096];
  take_arguments(env, info, arguments, 2);
  if (!to_text(env, arguments[0], "path", path, sizeof path) ||
      !to_text(env, arguments[1], "message", message, sizeof message))
    return NULL;
  size_t length = strlen(path);
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL, "Unix datagram socket");
  int failed = 0;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  if (UNINTERRUPTED(sendto(fd, message, strlen(message), MSG_NOSIGNAL, (struct sockaddr *)&address, size)) < 0)
    failed = errno;
  close(fd);
  if (failed != 0) return throw_errno(env, failed, "sendto", NOTIFY_HINTS, "Unix socket %s", path);
  return undefined(env);
}

void register_notify(napi_env env, napi_value exports) { DEFINE(env, exports, unixDatagram); }
