/*
 * An rtnetlink socket (man 7 rtnetlink): by it the kernel tells of changes to interfaces and
 * addresses, and answers what it is asked. JavaScript writes and parses the messages.
 */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct hint NETLINK_HINTS[] = {
  { EAFNOSUPPORT, "the service may not open netlink sockets (systemd: RestrictAddressFamilies=AF_NETLINK)" },
  { ENOBUFS, "messages were lost: everything they told of has to be read again" },
  { 0, NULL },
};

#define MESSAGE_BYTES_MAX 32768 /* the most the kernel puts into one piece */

/*
 * netlinkOpen(groups) -> fd of a socket of NETLINK_ROUTE that hears these multicast groups
 * (RTMGRP_*).
 */
static napi_value netlinkOpen(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint32_t groups;
  take_arguments(env, info, arguments, 1);
  if (!to_u32(env, arguments[0], "groups", 0, UINT32_MAX, &groups)) return NULL;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return throw_errno(env, errno, "socket", NETLINK_HINTS, "rtnetlink");
  struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups };
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    int failed = errno;
    close(fd);
    return throw_errno(env, failed, "bind", NETLINK_HINTS, "rtnetlink");
  }
  return own(env, fd, KIND_NETLINK, "rtnetlink") == NULL ? NULL : from_i32(env, fd);
}

/* netlinkSend(fd, message): to the kernel. */
static napi_value netlinkSend(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  uint8_t *message;
  size_t length;
  struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
  take_arguments(env, info, arguments, 2);
  struct resource *netlink = to_resource(env, arguments[0], KIND_NETLINK);
  if (netlink == NULL || !to_bytes(env, arguments[1], "message", false, &message, &length)) return NULL;
  if (UNINTERRUPTED(sendto(netlink->fd, message, length, 0, (struct sockaddr *)&kernel, sizeof kernel)) < 0)
    return throw_errno(env, errno, "sendto", NETLINK_HINTS, "rtnetlink");
  return undefined(env);
}

/*
 * netlinkReceive(fd) -> the next piece, one message or more, as a Uint8Array; null where there is
 * none now. Throws ENOBUFS, once, after some were lost.
 */
static napi_value netlinkReceive(napi_env env, napi_callback_info info) {
  napi_value arguments[1], buffer, result = NULL;
  _Alignas(struct nlmsghdr) char piece[MESSAGE_BYTES_MAX];
  take_arguments(env, info, arguments, 1);
  struct resource *netlink = to_resource(env, arguments[0], KIND_NETLINK);
  if (netlink == NULL) return NULL;
  for (;;) {
    struct sockaddr_nl from = { 0 };
    socklen_t size = sizeof from;
    ssize_t length =
        UNINTERRUPTED(recvfrom(netlink->fd, piece, sizeof piece, MSG_TRUNC, (struct sockaddr *)&from, &size));
    if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      napi_get_null(env, &result);
      return result;
    }
    if (length < 0) return throw_errno(env, errno, "recvfrom", NETLINK_HINTS, "rtnetlink");
    if (from.nl_pid != 0) continue; /* of another process */
    if ((size_t)length > sizeof piece)
      return throw_errno(env, ENOBUFS, "recvfrom", NETLINK_HINTS, "rtnetlink: a piece of %zd bytes", length);
    void *bytes;
    if (napi_create_arraybuffer(env, (size_t)length, &bytes, &buffer) != napi_ok) return NULL;
    memcpy(bytes, piece, (size_t)length);
    napi_create_typedarray(env, napi_uint8_array, (size_t)length, buffer, 0, &result);
    return result;
  }
}

void register_netlink(napi_env env, napi_value exports) {
  DEFINE(env, exports, netlinkOpen);
  DEFINE(env, exports, netlinkSend);
  DEFINE(env, exports, netlinkReceive);
}
