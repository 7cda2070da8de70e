/*
 * The XDP program's life: a map of sockets, a program from instructions JavaScript built, a link that attaches it.
 *
 * A BPF link detaches the program when its last descriptor is closed, so also when the process is killed.
 * Source: Linux Documentation/userspace-api/ebpf/syscall.rst.
 */
#include "addon.h"
#include "interrupted.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef BPF_F_XDP_HAS_FRAGS /* Linux 5.18 */
#define BPF_F_XDP_HAS_FRAGS (1U << 5)
#endif

static const struct hint BPF_HINTS[] = {
  { EPERM, "loading and attaching XDP programs needs the capabilities CAP_BPF and CAP_NET_ADMIN; run as root or grant them "
           "(systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN), and check that kernel lockdown does not forbid BPF" },
  { ENOSYS, "this kernel is built without BPF (CONFIG_BPF_SYSCALL)" },
  { ENOMEM, "no memory, or RLIMIT_MEMLOCK is too low on a kernel before 5.11; raise LimitMEMLOCK= or `ulimit -l`" },
  { 0, NULL },
};

static const struct hint LINK_HINTS[] = {
  { EPERM, "attaching XDP programs needs the capabilities CAP_BPF and CAP_NET_ADMIN; run as root or grant them (systemd: "
           "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN)" },
  { EBUSY, "an XDP program is attached to this interface already, perhaps by another constellationd; `ip link show` "
           "names it; stop that program, or take a left-over one off with `ip link set dev … xdp off`" },
  { EEXIST, "an XDP program is attached to this interface in the other mode already; `ip link show` names it; stop that "
            "program, or take a left-over one off with `ip link set dev … xdp off`" },
  { EOPNOTSUPP, "the interface's driver has no native XDP, or none with this MTU; use mode generic, or a smaller MTU" },
  { ERANGE, "the MTU of the interface or its peer is too large for native XDP; use mode generic, or a smaller MTU" },
  { EINVAL, "the driver refuses XDP (often: MTU too large, or LRO on), or the kernel is older than 5.9 and has no XDP links" },
  { ENODEV, "no such interface in this network namespace" },
  { ENOMEM, "the driver has too few queues or too little memory for native XDP; use mode generic" },
  { 0, NULL },
};

/*
 * The verifier gives up with EAGAIN if a signal is pending for the calling thread, and a test run
 * with EINTR. So signals are blocked meanwhile. What the mask does not cover (work that the kernel
 * queues for a thread) ends in a bounded number of retries.
 */
static int bpf(int command, union bpf_attr *attributes) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int result = PERSISTENTLY((int)syscall(SYS_bpf, command, attributes, sizeof *attributes));
  int failed = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = failed;
  return result;
}

/* bpfMapCreate(entries, label) -> fd of an XSKMAP: queue -> AF_XDP socket. */
static napi_value bpfMapCreate(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  char label[48];
  uint32_t entries;
  take_arguments(env, info, arguments, 2);
  if (!to_u32(env, arguments[0], "entries", 1, 65536, &entries) ||
      !to_text(env, arguments[1], "label", label, sizeof label))
    return NULL;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.map_type = BPF_MAP_TYPE_XSKMAP;
  attributes.key_size = sizeof(uint32_t);
  attributes.value_size = sizeof(uint32_t);
  attributes.max_entries = entries;
  snprintf(attributes.map_name, sizeof attributes.map_name, "constellation");
  int fd = bpf(BPF_MAP_CREATE, &attributes);
  if (fd < 0) return throw_errno(env, errno, "bpf", BPF_HINTS, "BPF_MAP_CREATE of %u sockets for %s", entries, label);
  struct resource *map = own(env, fd, KIND_MAP, label);
  return map == NULL ? NULL : from_i32(env, fd);
}

/* bpfMapUpdate(mapFd, queue, socketFd): the map may be another thread's. */
static napi_value bpfMapUpdate(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  uint32_t queue;
  int map_fd;
  take_arguments(env, info, arguments, 3);
  struct resource *socket = to_resource(env, arguments[2], KIND_XSK);
  if (socket == NULL || !to_u32(env, arguments[1], "queue", 0, 65535, &queue)) return NULL;
  if (!to_held_fd(env, arguments[0], KIND_MAP, &map_fd)) return NULL;
  uint32_t value = (uint32_t)socket->fd;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.map_fd = (uint32_t)map_fd;
  attributes.key = (uintptr_t)&queue;
  attributes.value = (uintptr_t)&value;
  int failed = bpf(BPF_MAP_UPDATE_ELEM, &attributes) != 0 ? errno : 0;
  let_go_fd();
  if (failed != 0)
    return throw_errno(env, failed, "bpf", failed == E2BIG ? NULL : BPF_HINTS, "BPF_MAP_UPDATE_ELEM of queue %u with %s%s",
                       queue, socket->label, failed == E2BIG ? " (the program was attached for fewer queues)" : "");
  return undefined(env);
}

/*
 * A counter is an array map of one 64-bit word. What of it was taken already, by descriptor; the
 * lock of hold_fd guards it.
 */
static uint64_t taken[FDS_MAX];

/* bpfCounterCreate(label) -> fd of a counter that an XDP program adds to. */
static napi_value bpfCounterCreate(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  char label[48];
  take_arguments(env, info, arguments, 1);
  if (!to_text(env, arguments[0], "label", label, sizeof label)) return NULL;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = sizeof(uint32_t);
  attributes.value_size = sizeof(uint64_t);
  attributes.max_entries = 1; /* a program addresses the values of such a map directly */
  snprintf(attributes.map_name, sizeof attributes.map_name, "constellation");
  int fd = bpf(BPF_MAP_CREATE, &attributes);
  if (fd < 0) return throw_errno(env, errno, "bpf", BPF_HINTS, "BPF_MAP_CREATE of a counter for %s", label);
  if (own(env, fd, KIND_COUNTER, label) == NULL) return NULL;
  if (hold_fd(fd, KIND_COUNTER)) {
    taken[fd] = 0;
    let_go_fd();
  }
  return from_i32(env, fd);
}

/*
 * bpfCounterTake(fd) -> what was counted since the last call; the counter may be another thread's.
 */
static napi_value bpfCounterTake(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int fd;
  uint32_t key = 0;
  uint64_t counted = 0, before = 0;
  take_arguments(env, info, arguments, 1);
  if (!to_held_fd(env, arguments[0], KIND_COUNTER, &fd)) return NULL;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.map_fd = (uint32_t)fd;
  attributes.key = (uintptr_t)&key;
  attributes.value = (uintptr_t)&counted;
  int failed = bpf(BPF_MAP_LOOKUP_ELEM, &attributes) != 0 ? errno : 0;
  if (failed == 0) {
    before = taken[fd];
    taken[fd] = counted;
  }
  let_go_fd();
  if (failed != 0) return throw_errno(env, failed, "bpf", BPF_HINTS, "reading a counter of the XDP program");
  return from_double(env, (double)(counted - before));
}

static int load(const uint8_t *instructions, size_t length, bool multi_buffer, char *log, size_t log_bytes) {
  static const char LICENSE[] = "Apache-2.0"; /* uses no helper that is GPL only */
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_XDP;
  attributes.insns = (uintptr_t)instructions;
  attributes.insn_cnt = (uint32_t)(length / sizeof(struct bpf_insn));
  attributes.license = (uintptr_t)LICENSE;
  attributes.log_buf = (uintptr_t)log;
  attributes.log_size = (uint32_t)log_bytes;
  attributes.log_level = log != NULL ? 1 : 0;
  attributes.prog_flags = multi_buffer ? BPF_F_XDP_HAS_FRAGS : 0;
  snprintf(attributes.prog_name, sizeof attributes.prog_name, "constellation");
  return bpf(BPF_PROG_LOAD, &attributes);
}

#define LOG_BYTES (256 * 1024)
#define LOG_TAIL_BYTES 4000

/* The verifier says why at the end of its log, so the tail is what the error carries. */
static napi_value refuse(napi_env env, int failed, const uint8_t *instructions, size_t length, bool multi_buffer,
                         const char *label) {
  char *log = failed == EPERM ? NULL : calloc(1, LOG_BYTES);
  char text[LOG_TAIL_BYTES + 64] = "";
  if (log != NULL) {
    int fd = load(instructions, length, multi_buffer, log, LOG_BYTES);
    if (fd >= 0) close(fd);
    size_t used = strnlen(log, LOG_BYTES - 1);
    size_t skip = used > LOG_TAIL_BYTES ? used - LOG_TAIL_BYTES : 0;
    if (used > 0) snprintf(text, sizeof text, "\nverifier log (its end):\n%s", log + skip);
    free(log);
  }
  struct hint hints[] = { { failed, failed == EPERM ? BPF_HINTS[0].text : text }, { 0, NULL } };
  return throw_errno(env, failed, "bpf", text[0] != 0 || failed == EPERM ? hints : BPF_HINTS,
                     "BPF_PROG_LOAD of %zu instructions for %s", length / sizeof(struct bpf_insn), label);
}

/*
 * bpfProgramLoad(instructions, label, multiBuffer) -> fd. `instructions` is a Uint8Array of 8-byte
 * instructions.
 */
static napi_value bpfProgramLoad(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char label[48];
  uint8_t *instructions;
  size_t length;
  bool multi_buffer;
  take_arguments(env, info, arguments, 3);
  if (!to_bytes(env, arguments[0], "instructions", false, &instructions, &length) ||
      !to_text(env, arguments[1], "label", label, sizeof label) ||
      !to_bool(env, arguments[2], "multiBuffer", &multi_buffer))
    return NULL;
  if (length == 0 || length % sizeof(struct bpf_insn) != 0 || length > (1u << 20) * sizeof(struct bpf_insn)) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "instructions must be 1 to 2^20 times 8 bytes");
    return NULL;
  }
  int fd = load(instructions, length, multi_buffer, NULL, 0);
  if (fd < 0) return refuse(env, errno, instructions, length, multi_buffer, label);
  return own(env, fd, KIND_PROGRAM, label) == NULL ? NULL : from_i32(env, fd);
}

/* bpfProgramRun(programFd, frame) -> the program's verdict on one frame (XDP_PASS 2, XDP_REDIRECT 4, …), received on queue 0. */
static napi_value bpfProgramRun(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  uint8_t *frame;
  size_t length;
  take_arguments(env, info, arguments, 2);
  struct resource *program = to_resource(env, arguments[0], KIND_PROGRAM);
  if (program == NULL || !to_bytes(env, arguments[1], "frame", false, &frame, &length)) return NULL;
  if (length < 14 || length > 3000) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "frame must be 14 to 3000 bytes");
    return NULL;
  }
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.test.prog_fd = (uint32_t)program->fd;
  attributes.test.data_in = (uintptr_t)frame;
  attributes.test.data_size_in = (uint32_t)length;
  if (bpf(BPF_PROG_TEST_RUN, &attributes) != 0)
    return throw_errno(env, errno, "bpf", BPF_HINTS, "BPF_PROG_TEST_RUN of %s", program->label);
  return from_u32(env, attributes.test.retval);
}

/* bpfLinkCreate(programFd, interface, native) -> fd. The program stays attached until it is closed. */
static napi_value bpfLinkCreate(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  char name[IFNAMSIZ];
  bool native;
  take_arguments(env, info, arguments, 3);
  struct resource *program = to_resource(env, arguments[0], KIND_PROGRAM);
  if (program == NULL || !to_text(env, arguments[1], "interface", name, sizeof name) ||
      !to_bool(env, arguments[2], "native", &native))
    return NULL;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.link_create.prog_fd = (uint32_t)program->fd;
  attributes.link_create.target_ifindex = if_nametoindex(name);
  attributes.link_create.attach_type = BPF_XDP;
  attributes.link_create.flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  int fd = attributes.link_create.target_ifindex == 0 ? -1 : bpf(BPF_LINK_CREATE, &attributes);
  if (fd < 0)
    return throw_errno(env, attributes.link_create.target_ifindex == 0 ? ENODEV : errno, "bpf", LINK_HINTS,
                       "BPF_LINK_CREATE of the %s XDP program on %s", native ? "native" : "generic", name);
  return own(env, fd, KIND_LINK, name) == NULL ? NULL : from_i32(env, fd);
}

/*
 * bpfLinkUpdate(linkFd, programFd): replaces the link's program, without a moment in which none is
 * attached.
 */
static napi_value bpfLinkUpdate(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  take_arguments(env, info, arguments, 2);
  struct resource *link = to_resource(env, arguments[0], KIND_LINK);
  if (link == NULL) return NULL;
  struct resource *program = to_resource(env, arguments[1], KIND_PROGRAM);
  if (program == NULL) return NULL;
  union bpf_attr attributes;
  memset(&attributes, 0, sizeof attributes);
  attributes.link_update.link_fd = (uint32_t)link->fd;
  attributes.link_update.new_prog_fd = (uint32_t)program->fd;
  if (bpf(BPF_LINK_UPDATE, &attributes) != 0)
    return throw_errno(env, errno, "bpf", LINK_HINTS, "BPF_LINK_UPDATE of the XDP program on %s", link->label);
  return undefined(env);
}

void register_bpf(napi_env env, napi_value exports) {
  DEFINE(env, exports, bpfMapCreate);
  DEFINE(env, exports, bpfMapUpdate);
  DEFINE(env, exports, bpfCounterCreate);
  DEFINE(env, exports, bpfCounterTake);
  DEFINE(env, exports, bpfProgramLoad);
  DEFINE(env, exports, bpfProgramRun);
  DEFINE(env, exports, bpfLinkCreate);
  DEFINE(env, exports, bpfLinkUpdate);
}
