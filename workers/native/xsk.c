/*
 * AF_XDP sockets: packet memory registered, four rings mapped and handed to JavaScript, bound to a queue.
 * Source: Linux Documentation/networking/af_xdp.rst.
 */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef XDP_USE_SG /* Linux 6.6 */
#define XDP_USE_SG (1 << 4)
#endif

#ifndef XDP_MAX_TX_SKB_BUDGET /* Linux 6.17 */
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

static const struct hint SOCKET_HINTS[] = {
  { EPERM, "AF_XDP needs the capability CAP_NET_RAW; run as root or grant it (systemd: AmbientCapabilities=CAP_NET_RAW)" },
  { EAFNOSUPPORT, "this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)" },
  { EMFILE, "the process has too many open files; raise LimitNOFILE= or `ulimit -n`" },
  { 0, NULL },
};

static const struct hint UMEM_HINTS[] = {
  { ENOBUFS, "packet memory is more than RLIMIT_MEMLOCK lets this process lock; raise LimitMEMLOCK= (systemd) or "
             "`ulimit -l`, or grant CAP_IPC_LOCK" },
  { ENOMEM, "the kernel could not pin packet memory; give the worker fewer chunks or the machine more memory" },
  { EINVAL, "packet memory must start on a page, its chunks be 2048 or 4096 bytes and leave room for the headroom" },
  { 0, NULL },
};

static const struct hint RING_HINTS[] = {
  { EINVAL, "a ring has a power of two entries" },
  { ENOMEM, "no memory for a ring of this size" },
  { 0, NULL },
};

static const struct hint BIND_HINTS[] = {
  { EBUSY, "the queue is in use by another AF_XDP socket, of this or another program; stop that one or use another queue" },
  { EOPNOTSUPP, "the driver has no AF_XDP zero-copy on this queue; use copy mode" },
  { EPERM, "binding needs the capability CAP_NET_RAW" },
  { ENODEV, "no such interface in this network namespace" },
  { ENETDOWN, "the interface is down; bring it up with `ip link set dev … up`" },
  { EINVAL, "the interface has no such queue, or its packet memory does not fit the interface's MTU" },
  { ENOMEM, "no memory for the queue's buffer pool" },
  { ENOBUFS, "RLIMIT_MEMLOCK is too low; raise LimitMEMLOCK= (systemd) or `ulimit -l`" },
  { 0, NULL },
};

struct ring {
  const char *name;
  int option;
  uint64_t page_offset;
  size_t entry_bytes;
};

static const struct ring RING_TABLE[RINGS] = {
  { "fill", XDP_UMEM_FILL_RING, XDP_UMEM_PGOFF_FILL_RING, sizeof(uint64_t) },
  { "completion", XDP_UMEM_COMPLETION_RING, XDP_UMEM_PGOFF_COMPLETION_RING, sizeof(uint64_t) },
  { "rx", XDP_RX_RING, XDP_PGOFF_RX_RING, sizeof(struct xdp_desc) },
  { "tx", XDP_TX_RING, XDP_PGOFF_TX_RING, sizeof(struct xdp_desc) },
};

static const struct xdp_ring_offset *offsets_of(const struct xdp_mmap_offsets *all, int ring) {
  switch (RING_TABLE[ring].option) {
    case XDP_UMEM_FILL_RING: return &all->fr;
    case XDP_UMEM_COMPLETION_RING: return &all->cr;
    case XDP_RX_RING: return &all->rx;
    default: return &all->tx;
  }
}

/* Unmapping is resource.c's business, never the garbage collector's. */
static void keep_mapping(napi_env env, void *data, void *hint) {
  (void)env;
  (void)data;
  (void)hint;
}

static bool map_ring(napi_env env, struct resource *socket, int index, const struct xdp_mmap_offsets *all,
                     uint32_t entries, napi_value result) {
  const struct ring *ring = &RING_TABLE[index];
  const struct xdp_ring_offset *offsets = offsets_of(all, index);
  size_t bytes = offsets->desc + entries * ring->entry_bytes;
  void *address =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, socket->fd, (off_t)ring->page_offset);
  if (address == MAP_FAILED) {
    throw_errno(env, errno, "mmap", RING_HINTS, "%s ring of %s", ring->name, socket->label);
    return false;
  }
  struct ring_mapping *mapping = &socket->rings[index];
  mapping->address = address;
  mapping->bytes = bytes;

  napi_value buffer, object;
  if (napi_create_external_arraybuffer(env, address, bytes, keep_mapping, NULL, &buffer) != napi_ok ||
      napi_create_reference(env, buffer, 1, &mapping->buffer) != napi_ok ||
      napi_create_object(env, &object) != napi_ok) {
    napi_throw_error(env, "ENOMEM", "no ArrayBuffer could be made over an AF_XDP ring");
    return false;
  }
  set(env, object, "buffer", buffer);
  set(env, object, "entries", from_u32(env, entries));
  set(env, object, "producer", from_double(env, (double)offsets->producer));
  set(env, object, "consumer", from_double(env, (double)offsets->consumer));
  set(env, object, "flags", from_double(env, (double)offsets->flags));
  set(env, object, "descriptors", from_double(env, (double)offsets->desc));
  set(env, result, ring->name, object);
  return true;
}

static bool size_rings(napi_env env, struct resource *socket, uint32_t entries) {
  for (int i = 0; i < RINGS; i++)
    if (setsockopt(socket->fd, SOL_XDP, RING_TABLE[i].option, &entries, sizeof entries) != 0) {
      throw_errno(env, errno, "setsockopt", RING_HINTS, "%s ring of %u entries for %s", RING_TABLE[i].name, entries,
                  socket->label);
      return false;
    }
  /* A copy-mode packet counts against the socket's send buffer until it is on the wire: room for a whole ring of them. */
  int send_bytes = (int)(entries * 4096u < 1u << 30 ? entries * 4096u : 1u << 30);
  if (setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof send_bytes) != 0)
    setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
  /* How many packets one copy-mode sendto may send: 32 unless raised, and older kernels cannot raise it. */
  setsockopt(socket->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &entries, sizeof entries);
  return true;
}

static bool register_memory_of(napi_env env, struct resource *socket, uint8_t *data, size_t length, uint32_t chunk_bytes,
                               uint32_t headroom) {
  struct xdp_umem_reg registration = {
    .addr = (uintptr_t)data,
    .len = length,
    .chunk_size = chunk_bytes,
    .headroom = headroom,
  };
  if (PERSISTENTLY(setsockopt(socket->fd, SOL_XDP, XDP_UMEM_REG, &registration, sizeof registration)) == 0) return true;
  throw_errno(env, errno, "setsockopt", UMEM_HINTS, "XDP_UMEM_REG of %zu bytes in chunks of %u for %s", length,
              chunk_bytes, socket->label);
  return false;
}

static napi_value set_up(napi_env env, struct resource *socket, uint32_t entries) {
  struct xdp_mmap_offsets offsets;
  socklen_t size = sizeof offsets;
  napi_value result;
  if (!size_rings(env, socket, entries)) return NULL;
  if (getsockopt(socket->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) != 0 || size != sizeof offsets)
    return throw_errno(env, size != sizeof offsets ? EINVAL : errno, "getsockopt", NULL,
                       "XDP_MMAP_OFFSETS of %s (Linux 5.4 or later is needed)", socket->label);
  if (napi_create_object(env, &result) != napi_ok) return NULL;
  for (int i = 0; i < RINGS; i++)
    if (!map_ring(env, socket, i, &offsets, entries, result)) return NULL;
  set(env, result, "fd", from_i32(env, socket->fd));
  return result;
}

/*
 * xskOpen(label, memory, chunkBytes, headroom, entries, share) -> { fd, fill, completion, rx, tx }
 *
 * A socket with rings of `entries`, not yet bound. `share` false: registers `memory` as its UMEM; true: the memory will
 * be shared at bind, and is only kept alive here.
 */
static napi_value xskOpen(napi_env env, napi_callback_info info) {
  napi_value arguments[6];
  char label[48];
  uint8_t *data;
  size_t length;
  uint32_t chunk_bytes, headroom, entries;
  bool share;
  take_arguments(env, info, arguments, 6);
  if (!to_text(env, arguments[0], "label", label, sizeof label) ||
      !to_bytes(env, arguments[1], "memory", true, &data, &length) ||
      !to_u32(env, arguments[2], "chunkBytes", 2048, 4096, &chunk_bytes) ||
      !to_u32(env, arguments[3], "headroom", 0, 4096, &headroom) ||
      !to_u32(env, arguments[4], "entries", 2, 1u << 20, &entries) || !to_bool(env, arguments[5], "share", &share))
    return NULL;

  int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", SOCKET_HINTS, "AF_XDP socket for %s", label);
  struct resource *socket = own(env, fd, KIND_XSK, label);
  if (socket == NULL) return NULL;

  napi_value result = NULL;
  if (napi_create_reference(env, arguments[1], 1, &socket->memory) == napi_ok &&
      (share || register_memory_of(env, socket, data, length, chunk_bytes, headroom)))
    result = set_up(env, socket, entries);
  if (result == NULL) close_resource(env, socket);
  return result;
}

/*
 * xskBind(fd, interface, queue, flags, sharedFd)
 *
 * `flags` as in sockaddr_xdp; `sharedFd` is the socket whose UMEM is shared (then flags must be 0, they are inherited), or -1.
 */
static napi_value xskBind(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  char name[IFNAMSIZ];
  uint32_t queue, flags;
  int32_t shared_fd;
  struct resource *shared = NULL;
  take_arguments(env, info, arguments, 5);
  struct resource *socket = to_resource(env, arguments[0], KIND_XSK);
  if (socket == NULL || !to_text(env, arguments[1], "interface", name, sizeof name) ||
      !to_u32(env, arguments[2], "queue", 0, 65535, &queue) || !to_u32(env, arguments[3], "flags", 0, 0xffff, &flags) ||
      !to_i32(env, arguments[4], "sharedFd", -1, INT32_MAX, &shared_fd))
    return NULL;
  if (shared_fd >= 0 && (shared = to_resource(env, arguments[4], KIND_XSK)) == NULL) return NULL;

  struct sockaddr_xdp address = {
    .sxdp_family = AF_XDP,
    .sxdp_flags = (uint16_t)(shared != NULL ? XDP_SHARED_UMEM : flags & ~XDP_SHARED_UMEM),
    .sxdp_ifindex = if_nametoindex(name),
    .sxdp_queue_id = queue,
    .sxdp_shared_umem_fd = shared != NULL ? (uint32_t)shared->fd : 0,
  };
  int failed = address.sxdp_ifindex == 0 ? ENODEV : 0;
  if (failed == 0 && bind(socket->fd, (struct sockaddr *)&address, sizeof address) != 0) failed = errno;
  if (failed != 0)
    return throw_errno(env, failed, "bind", BIND_HINTS, "AF_XDP socket to %s queue %u%s", name, queue,
                       shared != NULL ? ", sharing packet memory" : "");
  return undefined(env);
}

/*
 * xskMultiBuffer() -> whether this kernel has AF_XDP frames of several chunks. A kernel that does
 * not know the flag refuses it before it looks at anything else; one that does finds that there is
 * no interface 0.
 */
static napi_value xskMultiBuffer(napi_env env, napi_callback_info info) {
  (void)info;
  int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd < 0) return throw_errno(env, errno, "socket", SOCKET_HINTS, "AF_XDP socket");
  struct sockaddr_xdp address = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_SG };
  int failed = bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ? errno : 0;
  close(fd);
  return from_bool(env, failed != EINVAL);
}

/* xskZeroCopy(fd) -> whether a bound socket moves frames without a copy. */
static napi_value xskZeroCopy(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  struct xdp_options options = { 0 };
  socklen_t size = sizeof options;
  take_arguments(env, info, arguments, 1);
  struct resource *socket = to_resource(env, arguments[0], KIND_XSK);
  if (socket == NULL) return NULL;
  if (getsockopt(socket->fd, SOL_XDP, XDP_OPTIONS, &options, &size) != 0)
    return throw_errno(env, errno, "getsockopt", NULL, "XDP_OPTIONS of %s", socket->label);
  return from_bool(env, (options.flags & XDP_OPTIONS_ZEROCOPY) != 0);
}

/* xskStatistics(fd) -> the kernel's counts of this socket. */
static napi_value xskStatistics(napi_env env, napi_callback_info info) {
  napi_value arguments[1], result;
  struct xdp_statistics statistics;
  socklen_t size = sizeof statistics;
  take_arguments(env, info, arguments, 1);
  struct resource *socket = to_resource(env, arguments[0], KIND_XSK);
  if (socket == NULL) return NULL;
  memset(&statistics, 0, sizeof statistics); /* kernels before 5.9 fill in the first three only */
  if (getsockopt(socket->fd, SOL_XDP, XDP_STATISTICS, &statistics, &size) != 0)
    return throw_errno(env, errno, "getsockopt", NULL, "XDP_STATISTICS of %s", socket->label);
  if (napi_create_object(env, &result) != napi_ok) return NULL;
  set(env, result, "rxDropped", from_double(env, (double)statistics.rx_dropped));
  set(env, result, "rxInvalidDescriptors", from_double(env, (double)statistics.rx_invalid_descs));
  set(env, result, "rxRingFull", from_double(env, (double)statistics.rx_ring_full));
  set(env, result, "rxFillRingEmpty", from_double(env, (double)statistics.rx_fill_ring_empty_descs));
  set(env, result, "txInvalidDescriptors", from_double(env, (double)statistics.tx_invalid_descs));
  set(env, result, "txRingEmpty", from_double(env, (double)statistics.tx_ring_empty_descs));
  return result;
}

void register_xsk(napi_env env, napi_value exports) {
  DEFINE(env, exports, xskOpen);
  DEFINE(env, exports, xskBind);
  DEFINE(env, exports, xskMultiBuffer);
  DEFINE(env, exports, xskZeroCopy);
  DEFINE(env, exports, xskStatistics);
}
