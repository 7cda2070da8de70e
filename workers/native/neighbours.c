/* The kernel's neighbour tables, ARP's and neighbour discovery's, by rtnetlink (man 7 rtnetlink). */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const struct hint NEIGHBOUR_HINTS[] = {
  { ENODEV, "no such interface in this network namespace; `ip link` lists them" },
  { EAFNOSUPPORT, "the service may not ask the kernel about neighbours (systemd: RestrictAddressFamilies=AF_NETLINK)" },
  { 0, NULL },
};

/* One neighbour as JavaScript gets it. Index.ts names the same words. */
struct record {
  uint32_t version; /* 4 or 6 */
  uint32_t address[4];
  uint32_t mac_low;  /* bytes 0-3 */
  uint32_t mac_high; /* bytes 4-5 */
};

struct records {
  struct record *all;
  size_t count, room;
};

/* States in which the link-layer address is there to be used; NOARP is left out, for those are groups and the host itself. */
#define USABLE (NUD_PERMANENT | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY)

/* Adds what a message tells, if it is a neighbour on this interface that can be reached. False: out of memory. */
static bool take(struct records *records, const struct nlmsghdr *message, int interface) {
  const struct ndmsg *entry = NLMSG_DATA(message);
  if (message->nlmsg_type != RTM_NEWNEIGH || message->nlmsg_len < NLMSG_LENGTH(sizeof *entry)) return true;
  size_t bytes = entry->ndm_family == AF_INET ? 4 : entry->ndm_family == AF_INET6 ? 16 : 0;
  /* Older kernels give those of all interfaces, whichever was asked for. */
  if (bytes == 0 || entry->ndm_ifindex != interface || !(entry->ndm_state & USABLE)) return true;

  struct record record = { .version = bytes == 4 ? 4 : 6 };
  bool address = false, mac = false;
  size_t left = message->nlmsg_len - NLMSG_LENGTH(sizeof *entry);
  const struct rtattr *attribute = (const void *)((const char *)entry + NLMSG_ALIGN(sizeof *entry));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == NDA_DST && RTA_PAYLOAD(attribute) == bytes) {
      memcpy(record.address, RTA_DATA(attribute), bytes);
      address = true;
    } else if (attribute->rta_type == NDA_LLADDR && RTA_PAYLOAD(attribute) == ETH_ALEN) {
      const char *octets = RTA_DATA(attribute);
      memcpy(&record.mac_low, octets, 4);
      memcpy(&record.mac_high, octets + 4, 2);
      mac = true;
    }
  }
  if (!address || !mac) return true;
  if (records->count == records->room) {
    size_t room = records->room == 0 ? 64 : records->room * 2;
    struct record *all = realloc(records->all, room * sizeof *all);
    if (all == NULL) return false;
    records->all = all;
    records->room = room;
  }
  records->all[records->count++] = record;
  return true;
}

/* Asks for both tables and reads the answer to its end. Returns 0, or the errno, with the call that failed in `call`. */
static int dump(int fd, int interface, struct records *records, const char **call) {
  struct {
    struct nlmsghdr header;
    struct ndmsg entry;
    struct rtattr attribute;
    uint32_t interface;
  } request = {
    .header = { .nlmsg_len = sizeof request, .nlmsg_type = RTM_GETNEIGH, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
    .entry = { .ndm_family = AF_UNSPEC },
    .attribute = { .rta_len = RTA_LENGTH(sizeof(uint32_t)), .rta_type = NDA_IFINDEX },
    .interface = (uint32_t)interface,
  };
  *call = "send";
  if (UNINTERRUPTED(send(fd, &request, sizeof request, 0)) < 0) return errno;
  *call = "recv";
  _Alignas(struct nlmsghdr) char answer[32768]; /* the most the kernel puts into one piece */
  for (;;) {
    ssize_t length = UNINTERRUPTED(recv(fd, answer, sizeof answer, MSG_TRUNC));
    if (length < 0) return errno;
    if ((size_t)length > sizeof answer) return EMSGSIZE;
    size_t left = (size_t)length;
    for (const struct nlmsghdr *message = (const void *)answer; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
      if (message->nlmsg_type == NLMSG_DONE) return 0;
      if (message->nlmsg_type == NLMSG_ERROR) {
        if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr))) return EIO;
        return -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
      }
      if (!take(records, message, interface)) return ENOMEM;
    }
  }
}

/* interfaceNeighbours(name) -> Int32Array: the records one after the other. */
static napi_value interfaceNeighbours(napi_env env, napi_callback_info info) {
  napi_value arguments[1], buffer, result = NULL;
  char name[IF_NAMESIZE];
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "interface", name, sizeof name)) return NULL;
  unsigned interface = if_nametoindex(name);
  if (interface == 0) return throw_errno(env, errno, "if_nametoindex", NEIGHBOUR_HINTS, "interface %s", name);
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return throw_errno(env, errno, "socket", NEIGHBOUR_HINTS, "for the neighbours on %s", name);
  /* The kernel answers at once; should it not, the thread that asks must not stand still. */
  struct timeval patience = { .tv_usec = 100000 };
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  struct records records = { 0 };
  const char *call;
  int failed = dump(fd, (int)interface, &records, &call);
  close(fd);
  if (failed != 0) {
    free(records.all);
    return throw_errno(env, failed, call, NEIGHBOUR_HINTS, "the neighbours on %s", name);
  }
  void *bytes;
  size_t size = records.count * sizeof *records.all;
  if (napi_create_arraybuffer(env, size, &bytes, &buffer) == napi_ok) {
    if (size > 0) memcpy(bytes, records.all, size);
    napi_create_typedarray(env, napi_int32_array, size / 4, buffer, 0, &result);
  }
  free(records.all);
  return result;
}

void register_neighbours(napi_env env, napi_value exports) {
  DEFINE(env, exports, interfaceNeighbours);
}
