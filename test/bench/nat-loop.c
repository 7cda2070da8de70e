/*
 * The in-memory NAT loop in C: the baseline of `npm run bench -- nat`.
 *
 * The same work on the same data structures as the TypeScript data plane does with the NAT middlebox over the memory
 * driver: take 64 frames (copied in as a NIC would write them), check their headers, hash and prefetch, find the binding,
 * look whether it needs a refresh, rewrite with incremental checksums, count, send. Written as a C programmer would: plain
 * structs, static inline functions, real prefetches.
 *
 *     nat-loop FLOWS SEED     then, for each line "MS" on standard input, works about that long and prints the nanoseconds
 *                             of processor time per packet to parse and translate: a time with the copying of frames
 *                             and all, less a time of the copying alone
 *
 * Built a second time with -DTOUCH, it fetches ahead as JavaScript must, by reading, for want of a prefetch instruction.
 *
 * Slots: 32 bytes, linear probing, twice as many as flows, rounded up to a power of two. Claims: 16 bytes, three protocols
 * by address by port. Hash: HalfSipHash-1-3. One frame per flow, in random order, each outbound or inbound by lot.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BATCH = 64, CHUNK = 4096, HEADROOM = 258, FRAME_WORDS = 14, FRAME_BYTES = 54 };
enum { WINDOW = 64, PORTS_USED = 60000, TCP_ESTABLISHED = 7440 };
enum { USED = 1, HUGE = 1 << 21 };

struct flow { uint32_t lock, generation, expires, rank, key[2], place, dead; };
struct claim { uint32_t claim, key[2], owner; };

struct batch {
  int count;
  int32_t start[BATCH], length[BATCH], port[BATCH], egress[BATCH], l3[BATCH], l4[BATCH];
  uint32_t protocol[BATCH], source[BATCH], destination[BATCH], ports[BATCH], flags[BATCH];
};

static uint32_t slots, mask, addresses;
static struct flow *flows;
static struct claim *claims;
static uint32_t *external;
static uint32_t key0 = 0x01234567, key1 = 0x89abcdef;

static uint8_t *memory;
static uint32_t *frames;
static uint8_t *frame_port;
static uint32_t frame_count, frame_next;
static uint64_t counters[16];
enum { TX_PACKETS, TX_BYTES, DROPPED, OUTBOUND, INBOUND };

static uint64_t random_state;

static uint32_t draw(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (uint32_t)(random_state >> 16);
}

static uint64_t clock_ns(int which) {
  struct timespec t;
  clock_gettime(which, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t coarse_seconds(void) { return (uint32_t)(clock_ns(CLOCK_REALTIME) / 1000000000u - 1704067200u); }

static inline uint32_t rotl(uint32_t x, int by) { return (x << by) | (x >> (32 - by)); }

#define ROUND                                                                                                          \
  v0 += v1, v1 = rotl(v1, 5) ^ v0, v0 = rotl(v0, 16), v2 += v3, v3 = rotl(v3, 8) ^ v2, v0 += v3,                        \
      v3 = rotl(v3, 7) ^ v0, v2 += v1, v1 = rotl(v1, 13) ^ v2, v2 = rotl(v2, 16)

static inline uint32_t hash2(uint32_t a, uint32_t b) {
  uint32_t v0 = key0, v1 = key1, v2 = 0x6c796765 ^ key0, v3 = 0x74656462 ^ key1;
  v3 ^= a, ROUND, v0 ^= a;
  v3 ^= b, ROUND, v0 ^= b;
  v3 ^= 0x08000000, ROUND, v0 ^= 0x08000000;
  v2 ^= 0xff;
  ROUND, ROUND, ROUND;
  return v1 ^ v3;
}

static inline uint32_t find_outbound(uint32_t hash, uint32_t address, uint32_t port, uint32_t now) {
  uint32_t slot = hash & mask;
  for (int i = 0; i < WINDOW; i++) {
    const struct flow *f = &flows[slot];
    uint32_t state = (f->lock >> 8) & 0xff;
    if (state == USED) {
      if (f->rank >> 8 == hash >> 8 && f->key[0] == address && f->key[1] == port)
        return f->dead == 0 && f->expires > now ? slot : UINT32_MAX;
    } else if (state == 0) {
      return UINT32_MAX;
    }
    slot = (slot + 1) & mask;
  }
  return UINT32_MAX;
}

static inline uint32_t swap16(uint32_t x) { return ((x & 0xff) << 8) | ((x >> 8) & 0xff); }

/* External addresses are consecutive here, but are looked up as if they were not. */
static uint32_t table[4096][2], table_shift;

static inline uint32_t find_place(uint32_t address, uint32_t port, uint32_t protocol) {
  uint32_t i = (address * 0x9e3779b1u) >> table_shift, size = 1u << (32 - table_shift);
  while (table[i][1] != 0 && table[i][0] != address) i = (i + 1) & (size - 1);
  if (table[i][1] == 0) return UINT32_MAX;
  uint32_t first = protocol == 6 ? 0 : protocol == 17 ? 1 : protocol == 1 ? 2 : UINT32_MAX;
  if (first == UINT32_MAX) return UINT32_MAX;
  return ((first * addresses + table[i][1] - 1) << 16) | swap16(port);
}

static inline uint32_t find_inbound(uint32_t place, uint32_t now) {
  uint32_t slot = claims[place].owner;
  const struct flow *f = &flows[slot];
  return ((f->lock >> 8) & 0xff) == USED && f->place == place && f->dead == 0 && f->expires > now ? slot : UINT32_MAX;
}

static inline uint32_t fold(uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

static inline uint32_t difference(uint32_t before, uint32_t after) {
  return (~before & 0xffff) + (~before >> 16) + (after & 0xffff) + (after >> 16);
}

static inline void update(uint8_t *at, uint32_t change) {
  uint16_t sum;
  memcpy(&sum, at, 2);
  sum = (uint16_t)~fold((~sum & 0xffff) + change);
  memcpy(at, &sum, 2);
}

static inline uint32_t word(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}

static inline void put(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }

static void receive(struct batch *b) {
  for (int i = 0; i < BATCH; i++) {
    if (frame_next == frame_count) frame_next = 0;
    uint8_t *to = memory + i * CHUNK + HEADROOM - 2;
    memcpy(to, frames + (size_t)frame_next * FRAME_WORDS, FRAME_WORDS * 4);
    b->start[i] = i * CHUNK + HEADROOM;
    b->length[i] = FRAME_BYTES;
    b->port[i] = frame_port[frame_next++];
  }
  b->count = BATCH;
}

static inline void drop(struct batch *b, int i) {
  b->egress[i] = -1;
  counters[DROPPED]++;
}

static void parse(struct batch *b) {
  for (int i = 0; i < b->count; i++) {
    int start = b->start[i], length = b->length[i];
    b->egress[i] = 1 - b->port[i];
    if ((start & 3) != 2 || (start & (CHUNK - 1)) + length > CHUNK || length < 34) { drop(b, i); continue; }
    const uint8_t *ip = memory + start + 14;
    if (ip[-2] != 8 || ip[-1] != 0 || (ip[0] & 0xf0) != 0x40) { drop(b, i); continue; }
    int total = ip[2] << 8 | ip[3], header = (ip[0] & 15) * 4;
    if (header < 20 || header > total || total > length - 14) { drop(b, i); continue; }
    uint32_t sum = 0;
    for (int w = 0; w < header; w += 4) sum += (word(ip + w) & 0xffff) + (word(ip + w) >> 16);
    if (fold(sum) != 0xffff) { drop(b, i); continue; }
    if (((ip[6] << 8 | ip[7]) & 0x3fff) != 0) { drop(b, i); continue; }
    b->l3[i] = start + 14;
    b->l4[i] = start + 14 + header;
    b->protocol[i] = ip[9];
    b->source[i] = word(ip + 12);
    b->destination[i] = word(ip + 16);
    const uint8_t *l4 = ip + header;
    if (ip[9] == 6) {
      int tcp = (l4[12] >> 4) * 4;
      if (total - header < 20 || tcp < 20 || tcp > total - header) { drop(b, i); continue; }
      b->flags[i] = l4[13];
    } else if (ip[9] == 17) {
      int udp = l4[4] << 8 | l4[5];
      if (total - header < 8 || udp < 8 || udp > total - header) { drop(b, i); continue; }
      b->flags[i] = 0;
    } else { drop(b, i); continue; }
    b->ports[i] = word(l4);
  }
}

static inline void rewrite(struct batch *b, int i, int at, uint32_t before, uint32_t address, uint32_t ports) {
  uint8_t *ip = memory + b->l3[i], *l4 = memory + b->l4[i];
  uint32_t change = difference(before, address);
  put(ip + at, address);
  update(ip + 10, change);
  update(l4 + (b->protocol[i] == 6 ? 16 : 6), change + difference(b->ports[i], ports));
  put(l4, ports);
  b->ports[i] = ports;
}

#ifdef TOUCH
static volatile uint32_t touched;
#define FETCH(at) touched = *(const uint32_t *)(at)
#else
#define FETCH(at) __builtin_prefetch(at)
#endif

static void nat(struct batch *b, uint32_t now) {
  uint32_t hashes[BATCH], places[BATCH];
  for (int i = 0; i < b->count; i++) {
    if (b->egress[i] < 0) continue;
    if (b->port[i] == 0) {
      hashes[i] = hash2(b->source[i], (b->ports[i] & 0xffff) | b->protocol[i] << 16);
      FETCH(&flows[hashes[i] & mask]);
    }
    places[i] = find_place(b->destination[i], b->ports[i] >> 16, b->protocol[i]);
    if (places[i] != UINT32_MAX) FETCH(&claims[places[i]]);
  }
  for (int i = 0; i < b->count; i++)
    if (b->egress[i] >= 0 && places[i] != UINT32_MAX) FETCH(&flows[claims[places[i]].owner]);
  for (int i = 0; i < b->count; i++) {
    if (b->egress[i] < 0) continue;
    if (b->port[i] == 0) {
      uint32_t port = (b->ports[i] & 0xffff) | b->protocol[i] << 16;
      uint32_t slot = find_outbound(hashes[i], b->source[i], port, now);
      if (slot == UINT32_MAX) { drop(b, i); continue; }
      struct flow *f = &flows[slot];
      uint32_t before = f->rank & 0xff, shown = (b->flags[i] & 0x12) == 0x10 ? 1 : 0;
      uint32_t rank = shown > before ? shown : before, timeout = rank == 1 ? TCP_ESTABLISHED : 240;
      if (rank > before || (int32_t)(now + timeout - f->expires) > (int32_t)(timeout >> 3)) {
        f->rank = (f->rank & ~0xffu) | rank;
        f->expires = now + timeout;
      }
      uint32_t address = external[(f->place >> 16) % addresses];
      rewrite(b, i, 12, b->source[i], address, (b->ports[i] & 0xffff0000u) | swap16(f->place & 0xffff));
      b->source[i] = address;
      b->egress[i] = 1;
      counters[OUTBOUND]++;
    } else {
      uint32_t slot = places[i] == UINT32_MAX ? UINT32_MAX : find_inbound(places[i], now);
      if (slot == UINT32_MAX) { drop(b, i); continue; }
      const struct flow *f = &flows[slot];
      rewrite(b, i, 16, b->destination[i], f->key[0], (b->ports[i] & 0xffff) | f->key[1] << 16);
      b->destination[i] = f->key[0];
      b->egress[i] = 0;
      counters[INBOUND]++;
    }
  }
}

static void transmit(struct batch *b) {
  for (int i = 0; i < b->count; i++) {
    if (b->egress[i] < 0) continue;
    counters[TX_PACKETS]++;
    counters[TX_BYTES] += (uint64_t)b->length[i];
  }
  b->count = 0;
}

/* ——— Setting up ——— */

static void *zeroed(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, bytes < HUGE ? 4096 : HUGE, bytes) != 0) { perror("nat-loop: memory"); exit(1); }
  if (bytes >= HUGE) madvise(p, bytes, MADV_HUGEPAGE); /* as the daemon does for its arena */
  memset(p, 0, bytes);
  return p;
}

static uint32_t sum_words(const uint8_t *at, int bytes) {
  uint32_t sum = 0;
  for (int i = 0; i < bytes; i += 2) sum += at[i] | at[i + 1] << 8;
  return sum;
}

static void build(uint32_t n, uint32_t source, uint32_t destination, uint32_t ports, int port) {
  uint8_t *frame = (uint8_t *)(frames + (size_t)n * FRAME_WORDS) + 2, *ip = frame + 14, *tcp = ip + 20;
  memset(frame, 2, 12);
  frame[12] = 8;
  memcpy(ip, (uint8_t[]){0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0}, 12);
  put(ip + 12, source);
  put(ip + 16, destination);
  put(tcp, ports);
  memcpy(tcp + 4, (uint8_t[]){0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0}, 16);
  uint32_t check = ~fold(sum_words(ip, 20));
  ip[10] = (uint8_t)check, ip[11] = (uint8_t)(check >> 8);
  check = ~fold(fold(sum_words(ip + 12, 8) + sum_words(tcp, 20)) + 0x0600 + 0x1400);
  tcp[16] = (uint8_t)check, tcp[17] = (uint8_t)(check >> 8);
  frame_port[n] = (uint8_t)port;
}

static double measure(unsigned ms, int translating) {
  static struct batch batch;
  uint64_t packets = 0, busy = clock_ns(CLOCK_PROCESS_CPUTIME_ID), end = clock_ns(CLOCK_MONOTONIC) + ms * 1000000ull;
  do {
    for (int i = 0; i < 16; i++) {
      receive(&batch);
      packets += (uint64_t)batch.count;
      if (translating) {
        parse(&batch);
        nat(&batch, coarse_seconds());
      }
      transmit(&batch);
    }
  } while (clock_ns(CLOCK_MONOTONIC) < end);
  return (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - busy) / (double)packets;
}

int main(int argc, char **argv) {
  if (argc != 3) { fprintf(stderr, "usage: nat-loop FLOWS SEED\n"); return 2; }
  uint32_t count = (uint32_t)atoi(argv[1]);
  random_state = 0x9e3779b97f4a7c15u ^ (uint64_t)atoi(argv[2]);
  for (slots = WINDOW; slots < 2 * count; slots *= 2) {}
  mask = slots - 1;
  addresses = (count + PORTS_USED - 1) / PORTS_USED;
  flows = zeroed(slots * sizeof *flows);
  claims = zeroed((size_t)3 * addresses * 65536 * sizeof *claims);
  external = zeroed(addresses * sizeof *external);
  memory = zeroed(BATCH * CHUNK);
  frames = zeroed((size_t)count * FRAME_WORDS * 4);
  frame_port = zeroed(count);
  frame_count = count;
  uint32_t size = 1;
  while (size < 4 * addresses) size *= 2;
  table_shift = (uint32_t)(32 - __builtin_ctz(size));
  for (uint32_t a = 0; a < addresses; a++) {
    external[a] = 0x0a0200c0u + (a << 24);
    uint32_t i = (external[a] * 0x9e3779b1u) >> table_shift;
    while (table[i][1] != 0) i = (i + 1) & (size - 1);
    table[i][0] = external[a], table[i][1] = a + 1;
  }
  uint32_t *order = zeroed(count * sizeof *order);
  for (uint32_t i = 0; i < count; i++) order[i] = i;
  for (uint32_t i = count; i > 1; i--) {
    uint32_t j = draw() % i, t = order[i - 1];
    order[i - 1] = order[j], order[j] = t;
  }
  uint32_t now = coarse_seconds();
  for (uint32_t n = 0; n < count; n++) {
    uint32_t address = 0x0000000au | draw() << 8, port = draw() & 0xffff, remote = 0x076433c6u;
    uint32_t hash = hash2(address, port | 6u << 16), slot = hash & mask;
    while (flows[slot].lock != 0) slot = (slot + 1) & mask;
    uint32_t place = 0;
    do place = (draw() % addresses) << 16 | (1024 + draw() % 64512);
    while (claims[place].claim != 0);
    claims[place] = (struct claim){1 << 8, {address, port | 6u << 16}, slot};
    flows[slot] = (struct flow){USED << 8, now, now + TCP_ESTABLISHED, (hash >> 8) << 8 | 1, {address, port | 6u << 16}, place, 0};
    if (draw() & 1) build(order[n], address, remote, port | 0x5000u << 16, 0);
    else build(order[n], remote, external[place >> 16], 0x5000u | swap16(place & 0xffff) << 16, 1);
  }
  free(order);
  unsigned ms;
  while (scanf("%u", &ms) == 1) {
    double all = measure(ms * 3 / 4, 1), copying = measure(ms / 4, 0);
    if (counters[DROPPED] != 0) { fprintf(stderr, "nat-loop: %lu packets dropped\n", counters[DROPPED]); return 1; }
    printf("%.2f\n", all - copying);
    fflush(stdout);
  }
  return 0;
}
