/* What the kernel knows of a network interface, by ioctl; names are looked up in the calling thread's network namespace. */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct hint INTERFACE_HINTS[] = {
  { ENODEV, "no such interface in this network namespace; `ip link` lists them" },
  { 0, NULL },
};

static bool ask(int fd, unsigned long request, const char *name, struct ifreq *answer) {
  memset(answer, 0, sizeof *answer);
  snprintf(answer->ifr_name, sizeof answer->ifr_name, "%s", name);
  return ioctl(fd, request, answer) == 0;
}

/*
 * Receive queues in use now, and how many there can be; 1 where the driver does not say (it then
 * has no more).
 */
static uint32_t queues_of(int fd, const char *name, uint32_t *max) {
  struct ethtool_channels channels = { .cmd = ETHTOOL_GCHANNELS };
  struct ifreq request;
  memset(&request, 0, sizeof request);
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  request.ifr_data = (void *)&channels;
  *max = 1;
  if (PERSISTENTLY(ioctl(fd, SIOCETHTOOL, &request)) != 0) return 1;
  uint32_t queues = channels.combined_count + channels.rx_count;
  if (queues == 0) queues = 1;
  *max = channels.max_combined + channels.max_rx;
  if (*max < queues) *max = queues;
  return queues;
}

/*
 * interfaceFacts(name) -> { index, mac (Uint8Array of 6), ethernet, mtu, queues, queuesMax, up,
 * running }.
 */
static napi_value interfaceFacts(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result, buffer, mac;
  char name[IFNAMSIZ];
  struct ifreq index, address, mtu, flags;
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "interface", name, sizeof name)) return NULL;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", NULL, "for asking about %s", name);
  bool answered = ask(fd, SIOCGIFINDEX, name, &index) && ask(fd, SIOCGIFHWADDR, name, &address) &&
                  ask(fd, SIOCGIFMTU, name, &mtu) && ask(fd, SIOCGIFFLAGS, name, &flags);
  int failed = errno;
  uint32_t most = 0, queues = answered ? queues_of(fd, name, &most) : 0;
  close(fd);
  if (!answered) return throw_errno(env, failed, "ioctl", INTERFACE_HINTS, "interface %s", name);

  void *bytes;
  int type = address.ifr_hwaddr.sa_family;
  if (napi_create_object(env, &result) != napi_ok || napi_create_arraybuffer(env, 6, &bytes, &buffer) != napi_ok) return NULL;
  memcpy(bytes, address.ifr_hwaddr.sa_data, 6);
  if (napi_create_typedarray(env, napi_uint8_array, 6, buffer, 0, &mac) != napi_ok) return NULL;
  set(env, result, "index", from_i32(env, index.ifr_ifindex));
  set(env, result, "mac", mac);
  set(env, result, "ethernet", from_bool(env, type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK));
  set(env, result, "mtu", from_i32(env, mtu.ifr_mtu));
  set(env, result, "queues", from_u32(env, queues));
  set(env, result, "queuesMax", from_u32(env, most));
  set(env, result, "up", from_bool(env, (flags.ifr_flags & IFF_UP) != 0));
  set(env, result, "running", from_bool(env, (flags.ifr_flags & IFF_RUNNING) != 0));
  return result;
}

static const struct hint PROMISCUOUS_HINTS[] = {
  { EPERM, "taking frames to other stations needs the capability CAP_NET_RAW; run as root or grant it (systemd: "
           "AmbientCapabilities=CAP_NET_RAW)" },
  { EACCES, "taking frames to other stations needs the capability CAP_NET_RAW" },
  { EAFNOSUPPORT, "this kernel has no packet sockets (CONFIG_PACKET), or the service may not open them (systemd: "
                  "RestrictAddressFamilies=AF_PACKET)" },
  { ENODEV, "no such interface in this network namespace; `ip link` lists them" },
  { 0, NULL },
};

/*
 * interfacePromiscuous(name) -> fd. The interface takes frames to whatever station until it is closed, also by the end of the
 * process: the kernel counts who wants it (man 7 packet). The socket is of no protocol, so it receives nothing itself.
 */
static napi_value interfacePromiscuous(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  char name[IFNAMSIZ];
  struct ifreq index;
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "interface", name, sizeof name)) return NULL;
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", PROMISCUOUS_HINTS, "to make %s promiscuous", name);
  bool found = ask(fd, SIOCGIFINDEX, name, &index);
  struct packet_mreq wanted = { .mr_ifindex = index.ifr_ifindex, .mr_type = PACKET_MR_PROMISC };
  if (!found || setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &wanted, sizeof wanted) != 0) {
    int failed = errno;
    close(fd);
    return throw_errno(env, failed, "setsockopt", PROMISCUOUS_HINTS, "PACKET_MR_PROMISC of %s", name);
  }
  return own(env, fd, KIND_PACKET, name) == NULL ? NULL : from_i32(env, fd);
}

void register_interface(napi_env env, napi_value exports) {
  DEFINE(env, exports, interfaceFacts);
  DEFINE(env, exports, interfacePromiscuous);
}
