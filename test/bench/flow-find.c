/*
 * Finding flows in C: the yardstick of `npm run bench -- objects`. The structure is that of
 * shm/objects/table/table-slots.ts: slots of 16 words (lock, generation, expires, tag and rank, 4 key
 * words, 2 value words), and linear probing from the home slot of HalfSipHash-1-3 over the key, at
 * half load at most. The loop and the keys are the same, too.
 *
 *     flow-find FLOWS     then per line on standard input, a time in ms: works so long, answers "operations nanoseconds"
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KEY_WORDS = 4, USED = 1, WINDOW = 64, CHUNK = 500, NOW = 70000000 };

struct slot {
  uint32_t lock, generation, expires, rank, key[KEY_WORDS], value[2], padding[6];
};

static struct slot *table;
static uint32_t mask;

static inline uint32_t rotl(uint32_t x, int by) { return (x << by) | (x >> (32 - by)); }

static inline uint32_t hash(const uint32_t *key) {
  uint32_t v0 = 1, v1 = 2, v2 = 0x6c796765 ^ 1, v3 = 0x74656462 ^ 2;
  for (int i = 0; i < KEY_WORDS + 4; i++) {
    uint32_t word = i < KEY_WORDS ? key[i] : i == KEY_WORDS ? (uint32_t)KEY_WORDS << 26 : 0;
    if (i == KEY_WORDS + 1) v2 ^= 0xff;
    v3 ^= word;
    v0 += v1;
    v1 = rotl(v1, 5) ^ v0;
    v0 = rotl(v0, 16);
    v2 += v3;
    v3 = rotl(v3, 8) ^ v2;
    v0 += v3;
    v3 = rotl(v3, 7) ^ v0;
    v2 += v1;
    v1 = rotl(v1, 13) ^ v2;
    v2 = rotl(v2, 16);
    v0 ^= word;
  }
  return v1 ^ v3;
}

static inline void load(uint32_t n, uint32_t *key) {
  key[0] = n * 0x9e3779b1u;
  key[1] = n;
  key[2] = n >> 8;
  key[3] = 6;
}

static inline int same(const uint32_t *a, const uint32_t *b) {
  for (int i = 0; i < KEY_WORDS; i++)
    if (a[i] != b[i]) return 0;
  return 1;
}

static inline struct slot *find(uint32_t h, const uint32_t *key) {
  for (uint32_t i = 0, at = h & mask; i < WINDOW; i++, at = (at + 1) & mask) {
    struct slot *slot = &table[at];
    uint32_t state = (*(volatile uint32_t *)&slot->lock >> 8) & 0xff;
    if (state != USED) return NULL;
    if (slot->rank >> 8 == h >> 8 && same(slot->key, key)) return slot;
  }
  return NULL;
}

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv) {
  uint32_t flows = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0, slots = WINDOW, key[KEY_WORDS];
  if (flows == 0 || flows > 1u << 24) {
    fprintf(stderr, "usage: flow-find FLOWS (1 to %u)\n", 1u << 24);
    return 2;
  }
  while (slots < 2 * flows) slots *= 2;
  mask = slots - 1;
  table = aligned_alloc(64, slots * sizeof *table);
  if (table == NULL) {
    fprintf(stderr, "flow-find: no memory for %u slots\n", slots);
    return 1;
  }
  for (uint32_t i = 0; i < slots; i++) table[i] = (struct slot){0};
  for (uint32_t n = 0; n < flows; n++) {
    load(n, key);
    uint32_t h = hash(key), at = h & mask;
    while (table[at].lock != 0) at = (at + 1) & mask;
    table[at] = (struct slot){USED << 8, NOW, NOW + 300, h >> 8 << 8, {key[0], key[1], key[2], key[3]}, {1, 2}, {0}};
  }
  volatile uint32_t kept = 0;
  unsigned ms;
  uint32_t from = 0;
  while (scanf("%u", &ms) == 1) {
    uint64_t start = now_ns(), time = 0, operations = 0;
    while (now_ns() - start < ms * 1000000ull) {
      uint32_t count = flows - from < CHUNK ? flows - from : CHUNK, found = 0;
      uint64_t begin = now_ns();
      for (uint32_t n = from; n < from + count; n++) {
        load(n, key);
        struct slot *slot = find(hash(key), key);
        if (slot != NULL && slot->expires > NOW) found += slot->value[0];
      }
      time += now_ns() - begin;
      kept += found;
      operations += count;
      from = from + count == flows ? 0 : from + count;
      if (found != count) {
        fprintf(stderr, "flow-find: %u of %u flows were found\n", found, count);
        return 1;
      }
    }
    printf("%llu %llu\n", (unsigned long long)operations, (unsigned long long)time);
    fflush(stdout);
  }
  return 0;
}
