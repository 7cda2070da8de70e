/*
 * The baseline of the af_xdp benchmark: what the af_xdp driver and its data plane do, in C, without the middlebox.
 *
 *     l2fwd INTERFACE INTERFACE MODE RING_SIZE MAC MAC
 *
 * Two ports, one UMEM, rings of RING_SIZE entries, chunks of 2048 bytes, batches of 64; MODE is native or generic. A frame
 * that comes in by one port leaves by the other, its source that port's own address, its destination the MAC given
 * for that port; of an IPv4 packet the time to live is checked and lowered, and the checksum updated, as a hop does.
 * Idle, it looks again 128 times and then sleeps in poll, like a worker (workers/plane/idle.ts).
 * Writes "ready"; ends at SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

#define PORTS 2
#define BATCH 64
#define CHUNK 2048
#define HEADROOM 2
#define ROUNDS_BEFORE_SLEEP 128
#define SLEEP_MS 100
#define KICK_TRIES 8

struct ring {
  _Atomic uint32_t *producer, *consumer, *flags;
  void *descriptors;
  uint32_t mask, own; /* own: the index this side moves */
};

struct port {
  int fd;
  const char *name;
  uint8_t own[6], peer[6];
  struct ring fill, completion, rx, tx;
  uint32_t owed, outstanding, submitted;
};

static struct port ports[PORTS];
static uint8_t *memory;
static uint64_t *stack;
static uint32_t stacked;
static uint32_t ring_size;
static volatile sig_atomic_t stopped;

static void stop(int signal) {
  (void)signal;
  stopped = 1;
}

static void check(bool good, const char *what) {
  if (good) return;
  fprintf(stderr, "l2fwd: %s: %s\n", what, strerror(errno));
  exit(1);
}

static struct ring map_ring(int fd, const struct xdp_ring_offset *offset, size_t entry, uint64_t page) {
  uint8_t *base = mmap(NULL, offset->desc + ring_size * entry, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                       (off_t)page);
  check(base != MAP_FAILED, "mmap");
  return (struct ring){
    .producer = (void *)(base + offset->producer),
    .consumer = (void *)(base + offset->consumer),
    .flags = (void *)(base + offset->flags),
    .descriptors = base + offset->desc,
    .mask = ring_size - 1,
  };
}

static void open_port(struct port *port, int shared_fd, size_t bytes) {
  struct xdp_umem_reg umem = { .addr = (uintptr_t)memory, .len = bytes, .chunk_size = CHUNK, .headroom = HEADROOM };
  struct xdp_mmap_offsets offsets;
  struct ifreq request = { 0 };
  socklen_t size = sizeof offsets;
  int send_bytes = (int)ring_size * 4096;
  port->fd = socket(AF_XDP, SOCK_RAW, 0);
  check(port->fd >= 0, "socket");
  if (shared_fd < 0) check(setsockopt(port->fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem) == 0, "XDP_UMEM_REG");
  int options[] = { XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING };
  for (int i = 0; i < 4; i++) check(setsockopt(port->fd, SOL_XDP, options[i], &ring_size, sizeof ring_size) == 0, "ring");
  setsockopt(port->fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof send_bytes);
  setsockopt(port->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &ring_size, sizeof ring_size);
  check(getsockopt(port->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) == 0, "XDP_MMAP_OFFSETS");
  port->fill = map_ring(port->fd, &offsets.fr, sizeof(uint64_t), XDP_UMEM_PGOFF_FILL_RING);
  port->completion = map_ring(port->fd, &offsets.cr, sizeof(uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING);
  port->rx = map_ring(port->fd, &offsets.rx, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING);
  port->tx = map_ring(port->fd, &offsets.tx, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
  struct sockaddr_xdp address = {
    .sxdp_family = AF_XDP,
    .sxdp_ifindex = if_nametoindex(port->name),
    .sxdp_flags = shared_fd < 0 ? XDP_USE_NEED_WAKEUP : XDP_SHARED_UMEM,
    .sxdp_shared_umem_fd = shared_fd < 0 ? 0 : (uint32_t)shared_fd,
  };
  check(bind(port->fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", port->name);
  int asking = socket(AF_INET, SOCK_DGRAM, 0);
  check(asking >= 0 && ioctl(asking, SIOCGIFHWADDR, &request) == 0, "SIOCGIFHWADDR");
  close(asking);
  memcpy(port->own, request.ifr_hwaddr.sa_data, 6);
}

static int bpf(int command, union bpf_attr *attributes) {
  return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

/* Every frame to the socket of queue 0. The link is closed when the process ends. */
static void attach(const struct port *port, bool native) {
  union bpf_attr map = { .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1 };
  int map_fd = bpf(BPF_MAP_CREATE, &map);
  check(map_fd >= 0, "BPF_MAP_CREATE");
  struct bpf_insn code[] = {
    { .code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_2, .src_reg = BPF_REG_1, .off = 16 },
    { .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map_fd },
    { 0 },
    { .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS },
    { .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
    { .code = BPF_JMP | BPF_EXIT },
  };
  union bpf_attr program = { .prog_type = BPF_PROG_TYPE_XDP, .insn_cnt = sizeof code / sizeof code[0] };
  program.insns = (uintptr_t)code;
  program.license = (uintptr_t) "Apache-2.0";
  int program_fd = bpf(BPF_PROG_LOAD, &program);
  check(program_fd >= 0, "BPF_PROG_LOAD");
  uint32_t key = 0, value = (uint32_t)port->fd;
  union bpf_attr update = { .map_fd = (uint32_t)map_fd, .key = (uintptr_t)&key, .value = (uintptr_t)&value };
  check(bpf(BPF_MAP_UPDATE_ELEM, &update) == 0, "BPF_MAP_UPDATE_ELEM");
  union bpf_attr link = { .link_create.prog_fd = (uint32_t)program_fd, .link_create.attach_type = BPF_XDP };
  link.link_create.target_ifindex = if_nametoindex(port->name);
  link.link_create.flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
  check(bpf(BPF_LINK_CREATE, &link) >= 0, "BPF_LINK_CREATE");
}

static uint32_t load(_Atomic uint32_t *index) { return atomic_load_explicit(index, memory_order_acquire); }
static void store(_Atomic uint32_t *index, uint32_t value) {
  atomic_store_explicit(index, value, memory_order_release);
}

static void reap(struct port *port) {
  uint32_t count = load(port->completion.producer) - port->completion.own;
  uint64_t *addresses = port->completion.descriptors;
  for (uint32_t i = 0; i < count; i++)
    stack[stacked++] = addresses[(port->completion.own + i) & port->completion.mask] & ~(uint64_t)(CHUNK - 1);
  port->completion.own += count;
  port->outstanding -= count;
  if (count > 0) store(port->completion.consumer, port->completion.own);
}

static void replenish(struct port *port) {
  uint64_t *addresses = port->fill.descriptors;
  if (stacked < port->owed) reap(port);
  uint32_t count = port->owed < stacked ? port->owed : stacked;
  for (uint32_t i = 0; i < count; i++) addresses[port->fill.own++ & port->fill.mask] = stack[--stacked];
  port->owed -= count;
  if (count > 0) store(port->fill.producer, port->fill.own);
}

static void kick(const struct port *port) {
  for (int i = 0; i < KICK_TRIES; i++)
    if (sendto(port->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 || (errno != EAGAIN && errno != EBUSY)) return;
}

/* Takes one off the time to live, and makes up for it in the header checksum (RFC 1624). False where it ends here. */
static bool hop(uint8_t *frame) {
  uint32_t sum;
  if (frame[12] != 0x08 || frame[13] != 0x00) return true;
  if (frame[22] <= 1) return false;
  frame[22]--;
  sum = (uint32_t)(frame[24] << 8 | frame[25]) + 0x100;
  sum += sum >> 16;
  frame[24] = (uint8_t)(sum >> 8);
  frame[25] = (uint8_t)sum;
  return true;
}

static void send_frame(struct port *port, uint64_t address, uint32_t length) {
  if (port->outstanding == ring_size) reap(port);
  if (port->outstanding == ring_size || !hop(memory + address)) {
    stack[stacked++] = address & ~(uint64_t)(CHUNK - 1);
    return;
  }
  memcpy(memory + address, port->peer, 6);
  memcpy(memory + address + 6, port->own, 6);
  struct xdp_desc *frames = port->tx.descriptors;
  frames[port->tx.own++ & port->tx.mask] = (struct xdp_desc){ .addr = address, .len = length };
  port->outstanding++;
}

static void flush(struct port *port) {
  if (port->submitted != port->tx.own) {
    port->submitted = port->tx.own;
    store(port->tx.producer, port->tx.own);
    if ((load(port->tx.flags) & XDP_RING_NEED_WAKEUP) != 0) kick(port);
  }
  if (port->outstanding >= BATCH) reap(port);
}

static uint32_t forward(struct port *from, struct port *to, uint32_t max) {
  uint32_t count = load(from->rx.producer) - from->rx.own;
  if (count > max) count = max;
  const struct xdp_desc *frames = from->rx.descriptors;
  for (uint32_t i = 0; i < count; i++) {
    const struct xdp_desc *frame = &frames[(from->rx.own + i) & from->rx.mask];
    send_frame(to, frame->addr, frame->len);
  }
  from->rx.own += count;
  from->owed += count;
  if (count > 0) store(from->rx.consumer, from->rx.own);
  if (from->owed > 0) replenish(from);
  return count;
}

int main(int count, char **arguments) {
  if (count != 7) {
    fprintf(stderr, "usage: l2fwd INTERFACE INTERFACE native|generic RING_SIZE MAC MAC\n");
    return 64;
  }
  ring_size = (uint32_t)atoi(arguments[4]);
  uint32_t chunks = PORTS * 2 * ring_size;
  memory = mmap(NULL, (size_t)chunks * CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  stack = calloc(chunks, sizeof *stack);
  check(memory != MAP_FAILED && stack != NULL, "memory");
  madvise(memory, (size_t)chunks * CHUNK, MADV_HUGEPAGE);
  for (uint32_t i = 0; i < chunks; i++) stack[stacked++] = (uint64_t)(chunks - 1 - i) * CHUNK;
  for (int i = 0; i < PORTS; i++) {
    uint8_t *mac = ports[i].peer;
    ports[i].name = arguments[1 + i];
    check(sscanf(arguments[5 + i], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) == 6,
          "MAC");
    open_port(&ports[i], i == 0 ? -1 : ports[0].fd, (size_t)chunks * CHUNK);
    ports[i].owed = ring_size;
    replenish(&ports[i]);
  }
  for (int i = 0; i < PORTS; i++) attach(&ports[i], strcmp(arguments[3], "native") == 0);
  signal(SIGTERM, stop);
  printf("ready\n");
  fflush(stdout);

  int empty = 0;
  for (int turn = 0; !stopped; turn ^= 1) {
    uint32_t done = forward(&ports[turn], &ports[turn ^ 1], BATCH);
    done += forward(&ports[turn ^ 1], &ports[turn], BATCH - done);
    if (done > 0) {
      for (int i = 0; i < PORTS; i++) flush(&ports[i]);
      empty = 0;
    } else if (++empty >= ROUNDS_BEFORE_SLEEP) {
      struct pollfd polled[PORTS] = { { .fd = ports[0].fd, .events = POLLIN }, { .fd = ports[1].fd, .events = POLLIN } };
      poll(polled, PORTS, SLEEP_MS);
    }
  }
  return 0;
}
