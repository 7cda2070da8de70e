#include "impairment.h"

#include <stdlib.h>
#include <string.h>

const struct impairment UNIMPAIRED = {
	.reorder_ns = 10 * NS_PER_MS,
	.burst_bytes = 16 * 1024,
	.queue_bytes = 256 * 1024,
};

/* splitmix64 (Steele, Lea, Flood 2014): any seed gives a full-period sequence. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Uniform in [0, 1). */
static double uniform(uint64_t *state)
{
	return (double)(next_random(state) >> 11) * 0x1p-53;
}

void direction_init(struct direction *direction, uint64_t seed)
{
	memset(direction, 0, sizeof(*direction));
	direction->impairment = UNIMPAIRED;
	direction->random = seed;
}

/*
 * The token bucket, kept as one time: when it would be full again. A frame leaves as soon as there are tokens for all of
 * it, that is when the bucket, with the frame's tokens taken, is at most a whole bucket away from full.
 * Returns false if the frames waiting would be more than the queue holds.
 */
static bool through_line(struct direction *direction, uint64_t now_ns, uint32_t bytes, uint64_t *leaves_ns)
{
	const struct impairment *path = &direction->impairment;
	if (path->rate_bps == 0) {
		*leaves_ns = now_ns;
		return true;
	}
	double ns_per_byte = 8.0 * NS_PER_S / (double)path->rate_bps;
	uint64_t from = direction->bucket_full_ns > now_ns ? direction->bucket_full_ns : now_ns;
	uint64_t full_ns = from + (uint64_t)(bytes * ns_per_byte);
	uint64_t burst_ns = (uint64_t)(path->burst_bytes * ns_per_byte);
	uint64_t leaves = full_ns > now_ns + burst_ns ? full_ns - burst_ns : now_ns;
	if ((leaves - now_ns) / ns_per_byte > (double)path->queue_bytes) return false;
	direction->bucket_full_ns = full_ns;
	*leaves_ns = leaves;
	return true;
}

static uint64_t due(struct direction *direction, uint64_t leaves_ns)
{
	const struct impairment *path = &direction->impairment;
	uint64_t due_ns = leaves_ns + path->delay_ns;
	if (path->jitter_ns > 0) {
		uint64_t swing = (uint64_t)(uniform(&direction->random) * 2 * path->jitter_ns);
		due_ns = due_ns + swing > leaves_ns + path->jitter_ns ? due_ns + swing - path->jitter_ns : leaves_ns;
	}
	if (path->reorder > 0 && uniform(&direction->random) < path->reorder) {
		direction->counters.reordered++;
		return due_ns + path->reorder_ns;
	}
	if (due_ns < direction->last_due_ns) due_ns = direction->last_due_ns;
	direction->last_due_ns = due_ns;
	return due_ns;
}

int direction_admit(struct direction *direction, uint64_t now_ns, uint32_t bytes, uint64_t due_ns[2])
{
	const struct impairment *path = &direction->impairment;
	struct direction_counters *counters = &direction->counters;
	counters->received++;
	if (path->down) {
		counters->cut++;
		return 0;
	}
	if (path->loss > 0 && uniform(&direction->random) < path->loss) {
		counters->lost++;
		return 0;
	}
	int wanted = 1;
	if (path->duplicate > 0 && uniform(&direction->random) < path->duplicate) wanted = 2;
	int copies = 0;
	while (copies < wanted) {
		uint64_t leaves_ns;
		if (!through_line(direction, now_ns, bytes, &leaves_ns)) break;
		due_ns[copies++] = due(direction, leaves_ns);
	}
	if (copies == 0) counters->overflowed++;
	if (copies == 2) counters->duplicated++;
	return copies;
}

enum unit { PROBABILITY, MILLISECONDS, MEGABITS, BYTES, FLAG };

static const char *store(void *field, enum unit unit, double value)
{
	switch (unit) {
	case PROBABILITY:
		if (value > 1) return "a probability from 0 to 1 is needed";
		*(double *)field = value;
		return NULL;
	case FLAG:
		if (value != 0 && value != 1) return "0 or 1 is needed";
		*(bool *)field = value == 1;
		return NULL;
	case MILLISECONDS:
		if (value > 3600e3) return "an hour is the most";
		*(uint64_t *)field = (uint64_t)(value * (double)NS_PER_MS + 0.5);
		return NULL;
	case MEGABITS:
		if (value > 1e6) return "1000000 Mbit/s is the most";
		*(uint64_t *)field = (uint64_t)(value * 1e6 + 0.5);
		return NULL;
	case BYTES:
		if (value > 1e9) return "1000000000 bytes is the most";
		*(uint64_t *)field = (uint64_t)value;
		return NULL;
	}
	return "unknown unit";
}

const char *impairment_set(struct impairment *impairment, const char *assignment)
{
	const struct {
		const char *key;
		void *field;
		enum unit unit;
	} keys[] = {
		{"delay_ms", &impairment->delay_ns, MILLISECONDS},
		{"jitter_ms", &impairment->jitter_ns, MILLISECONDS},
		{"loss", &impairment->loss, PROBABILITY},
		{"duplicate", &impairment->duplicate, PROBABILITY},
		{"reorder", &impairment->reorder, PROBABILITY},
		{"reorder_ms", &impairment->reorder_ns, MILLISECONDS},
		{"rate_mbit", &impairment->rate_bps, MEGABITS},
		{"burst_bytes", &impairment->burst_bytes, BYTES},
		{"queue_bytes", &impairment->queue_bytes, BYTES},
		{"down", &impairment->down, FLAG},
	};
	const char *equals = strchr(assignment, '=');
	if (equals == NULL) return "key=value is needed";
	size_t length = (size_t)(equals - assignment);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strlen(keys[i].key) != length || strncmp(keys[i].key, assignment, length) != 0) continue;
		char *end;
		double value = strtod(equals + 1, &end);
		if (end == equals + 1 || *end != '\0' || !(value >= 0)) return "a number from 0 is needed";
		return store(keys[i].field, keys[i].unit, value);
	}
	return "no such key";
}

static bool before(const struct pending *a, const struct pending *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->order < b->order;
}

bool schedule_push(struct schedule *schedule, uint64_t due_ns, void *frame)
{
	if (schedule->count == schedule->capacity) {
		uint32_t capacity = schedule->capacity ? schedule->capacity * 2 : 1024;
		struct pending *heap = realloc(schedule->heap, capacity * sizeof(*heap));
		if (heap == NULL) return false;
		schedule->heap = heap;
		schedule->capacity = capacity;
	}
	struct pending added = {due_ns, schedule->next_order++, frame};
	uint32_t at = schedule->count++;
	while (at > 0 && before(&added, &schedule->heap[(at - 1) / 2])) {
		schedule->heap[at] = schedule->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	schedule->heap[at] = added;
	return true;
}

const struct pending *schedule_first(const struct schedule *schedule)
{
	return schedule->count ? &schedule->heap[0] : NULL;
}

void schedule_pop(struct schedule *schedule)
{
	struct pending last = schedule->heap[--schedule->count];
	uint32_t at = 0;
	for (;;) {
		uint32_t child = 2 * at + 1;
		if (child >= schedule->count) break;
		if (child + 1 < schedule->count && before(&schedule->heap[child + 1], &schedule->heap[child])) child++;
		if (!before(&schedule->heap[child], &last)) break;
		schedule->heap[at] = schedule->heap[child];
		at = child;
	}
	schedule->heap[at] = last;
}
