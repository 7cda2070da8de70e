/*
 * A count-min sketch in C, with what ours has: HalfSipHash-1-3 with 64-bit output, one 64-bit cell in each row, and a log
 * record of four words for each cell counted. The baseline of objects-sketches.ts.
 *
 *     count-min WIDTH DEPTH KEYS      width a power of two
 *
 * For each line "count MS" or "value MS" on standard input it works for about so long and writes "OPERATIONS NANOSECONDS".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RING_WORDS (1u << 16)
#define CHUNK 1000

static uint64_t *cells;
static uint32_t ring[RING_WORDS], position;
static uint32_t width, depth, keys;
static uint32_t first, second;
static uint64_t sum;

static uint32_t rotate(uint32_t x, int by) { return x << by | x >> (32 - by); }

#define ROUND                    \
	do {                         \
		v0 += v1;                \
		v1 = rotate(v1, 5) ^ v0; \
		v0 = rotate(v0, 16);     \
		v2 += v3;                \
		v3 = rotate(v3, 8) ^ v2; \
		v0 += v3;                \
		v3 = rotate(v3, 7) ^ v0; \
		v2 += v1;                \
		v1 = rotate(v1, 13) ^ v2; \
		v2 = rotate(v2, 16);     \
	} while (0)

static void hash2(uint32_t a, uint32_t b)
{
	const uint32_t k0 = 0x12345678, k1 = 0x9abcdef0;
	uint32_t v0 = k0, v1 = k1 ^ 0xee, v2 = 0x6c796765 ^ k0, v3 = 0x74656462 ^ k1;
	const uint32_t words[3] = {a, b, 2u << 26};
	for (int i = 0; i < 3; i++) {
		v3 ^= words[i];
		ROUND;
		v0 ^= words[i];
	}
	v2 ^= 0xee;
	for (int i = 0; i < 3; i++)
		ROUND;
	first = v1 ^ v3;
	v1 ^= 0xdd;
	for (int i = 0; i < 3; i++)
		ROUND;
	second = v1 ^ v3;
}

static void count2(uint32_t a, uint32_t b, uint64_t n)
{
	hash2(a, b);
	uint32_t hash = first, step = second | 1;
	for (uint32_t row = 0; row < depth; row++, hash += step) {
		uint32_t cell = row * width + (hash & (width - 1));
		uint32_t *record = &ring[position & (RING_WORDS - 1)];
		record[0] = 3 << 16 | 1 << 8 | 3;
		record[1] = cell;
		position += 4;
		cells[cell] += n;
	}
}

static uint64_t value2(uint32_t a, uint32_t b)
{
	hash2(a, b);
	uint64_t least = UINT64_MAX;
	uint32_t hash = first, step = second | 1;
	for (uint32_t row = 0; row < depth; row++, hash += step) {
		uint64_t value = cells[row * width + (hash & (width - 1))];
		if (value < least)
			least = value;
	}
	return least;
}

static uint64_t nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: count-min WIDTH DEPTH KEYS\n");
		return 2;
	}
	width = atoi(argv[1]);
	depth = atoi(argv[2]);
	keys = atoi(argv[3]);
	cells = calloc((size_t)width * depth, sizeof *cells);
	if (!cells || keys == 0) {
		fprintf(stderr, "count-min: no memory, or no keys\n");
		return 1;
	}
	memset(cells, 0, (size_t)width * depth * sizeof *cells);
	char what[8];
	unsigned ms;
	uint32_t key = 0;
	while (scanf("%7s %u", what, &ms) == 2) {
		uint64_t start = nanoseconds(), end = start, done = 0;
		while (end - start < ms * 1000000ull) {
			if (what[0] == 'c')
				for (int i = 0; i < CHUNK; i++, key = key + 1 == keys ? 0 : key + 1)
					count2(key * 0x9e3779b1u, key, 1);
			else
				for (int i = 0; i < CHUNK; i++, key = key + 1 == keys ? 0 : key + 1)
					sum += value2(key * 0x9e3779b1u, key);
			done += CHUNK;
			end = nanoseconds();
		}
		printf("%llu %llu\n", (unsigned long long)done, (unsigned long long)(end - start));
		fflush(stdout);
	}
	if (sum == 1) /* so that the reads are not left out */
		fprintf(stderr, "sum 1\n");
	return 0;
}
