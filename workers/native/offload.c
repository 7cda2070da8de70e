/*
 * What an interface does to packets behind XDP's back, read and switched by the ethtool ioctl.
 *
 * AF_XDP sees raw frames: a checksum left for hardware to fill in, a segment larger than the MTU, a VLAN tag taken off or
 * several packets merged into one are all wrong for it.
 */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct hint OFFLOAD_HINTS[] = {
  { EPERM, "switching offloads needs the capability CAP_NET_ADMIN" },
  { ENODEV, "no such interface in this network namespace; `ip link` lists them" },
  { EOPNOTSUPP, "the driver does not let this one be switched" },
  { 0, NULL },
};

static const struct offload {
  const char *name;
  uint32_t get, set;
  uint32_t flag; /* 0: the command's own value; else a bit of ETHTOOL_GFLAGS */
} OFFLOADS[] = {
  { "rxChecksum", ETHTOOL_GRXCSUM, ETHTOOL_SRXCSUM, 0 },
  { "txChecksum", ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM, 0 },
  { "tso", ETHTOOL_GTSO, ETHTOOL_STSO, 0 },
  { "gso", ETHTOOL_GGSO, ETHTOOL_SGSO, 0 },
  { "gro", ETHTOOL_GGRO, ETHTOOL_SGRO, 0 },
  { "lro", ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_LRO },
  { "rxVlan", ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_RXVLAN },
  { "txVlan", ETHTOOL_GFLAGS, ETHTOOL_SFLAGS, ETH_FLAG_TXVLAN },
};

#define OFFLOAD_COUNT (sizeof OFFLOADS / sizeof OFFLOADS[0])

static int ethtool(int fd, const char *interface, uint32_t command, uint32_t *data) {
  struct ethtool_value value = { .cmd = command, .data = *data };
  struct ifreq request;
  memset(&request, 0, sizeof request);
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
  request.ifr_data = (void *)&value;
  if (PERSISTENTLY(ioctl(fd, SIOCETHTOOL, &request)) != 0) return errno;
  *data = value.data;
  return 0;
}

static int open_for(napi_env env, const char *interface) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw_errno(env, errno, "socket", NULL, "for the offloads of %s", interface);
  return fd;
}

/* offloads(interface) -> { rxChecksum, txChecksum, tso, … }: whether each is on; those the driver does not know are off. */
static napi_value offloads(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result;
  char interface[IFNAMSIZ];
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "interface", interface, sizeof interface)) return NULL;
  if (napi_create_object(env, &result) != napi_ok) return NULL;
  int fd = open_for(env, interface), failed = 0;
  if (fd < 0) return NULL;
  for (size_t i = 0; i < OFFLOAD_COUNT && failed == 0; i++) {
    const struct offload *offload = &OFFLOADS[i];
    uint32_t data = 0;
    failed = ethtool(fd, interface, offload->get, &data);
    if (failed == EOPNOTSUPP) failed = 0;
    set(env, result, offload->name, from_bool(env, (offload->flag == 0 ? data : data & offload->flag) != 0));
  }
  close(fd);
  if (failed != 0) return throw_errno(env, failed, "ioctl", OFFLOAD_HINTS, "offloads of %s", interface);
  return result;
}

/* offloadSet(interface, name, on): switches one. */
static napi_value offloadSet(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char interface[IFNAMSIZ], name[16];
  bool on;
  take_arguments(env, info, arguments, 3);
  if (!to_text(env, arguments[0], "interface", interface, sizeof interface) ||
      !to_text(env, arguments[1], "name", name, sizeof name) || !to_bool(env, arguments[2], "on", &on))
    return NULL;
  const struct offload *offload = NULL;
  for (size_t i = 0; i < OFFLOAD_COUNT; i++)
    if (strcmp(OFFLOADS[i].name, name) == 0) offload = &OFFLOADS[i];
  if (offload == NULL) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "name must be one of the offloads that offloads() lists");
    return NULL;
  }
  int fd = open_for(env, interface);
  if (fd < 0) return NULL;
  uint32_t data = on;
  int failed = 0;
  if (offload->flag != 0) {
    failed = ethtool(fd, interface, offload->get, &data);
    data = on ? data | offload->flag : data & ~offload->flag;
  }
  if (failed == 0) failed = ethtool(fd, interface, offload->set, &data);
  close(fd);
  if (failed != 0) return throw_errno(env, failed, "ioctl", OFFLOAD_HINTS, "%s of %s", name, interface);
  return undefined(env);
}

void register_offload(napi_env env, napi_value exports) {
  DEFINE(env, exports, offloads);
  DEFINE(env, exports, offloadSet);
}
