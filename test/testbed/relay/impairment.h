/*
 * What a path does to frames, as pure code: no clock, no sockets. Times are nanoseconds on the caller's clock.
 *
 * A `direction` is one way of one path. A frame passes its stages in this order:
 *
 *     down?      the path is cut: the frame is gone (and so is, on delivery, what was under way: see relay.c)
 *     loss       each frame independently
 *     duplicate  a second copy goes the same way behind the first
 *     rate       a token bucket of `burst_bytes` in front of a line of `rate_bps`; what does not fit into the
 *                `queue_bytes` waiting before it is dropped at the tail
 *     delay      constant, plus jitter uniform in [-jitter, +jitter]; jitter alone never reorders: a frame is not due
 *                before the frame ahead of it
 *     reorder    a chosen frame is held `reorder_ns` longer, and the frames behind it pass
 *
 * Every direction has its own random sequence, so a change to one does not disturb the others of the same seed.
 */
#ifndef IMPAIRMENT_H
#define IMPAIRMENT_H

#include <stdbool.h>
#include <stdint.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

struct impairment {
	uint64_t delay_ns;
	uint64_t jitter_ns;
	double loss;      /* probabilities, 0 to 1 */
	double duplicate;
	double reorder;
	uint64_t reorder_ns;
	uint64_t rate_bps; /* bits a second; 0: no limit */
	uint64_t burst_bytes;
	uint64_t queue_bytes;
	bool down;
};

/*
 * A frame received is counted lost, overflowed or cut, or else each of its copies is counted, when it is due, delivered,
 * cut (the path went down meanwhile) or failed.
 */
struct direction_counters {
	uint64_t received;
	uint64_t delivered;
	uint64_t lost;
	uint64_t duplicated;
	uint64_t reordered;
	uint64_t overflowed; /* no room in the queue */
	uint64_t cut;        /* the path was down */
	uint64_t failed;     /* the interface at the far end did not take it */
	uint64_t late_ns_max; /* how far behind its due time a frame was delivered */
	uint64_t late_ns_sum;
};

struct direction {
	struct impairment impairment;
	struct direction_counters counters;
	uint64_t random;
	uint64_t bucket_full_ns; /* when the token bucket would be full if nothing more came */
	uint64_t last_due_ns;    /* of the last frame that kept its place */
};

extern const struct impairment UNIMPAIRED;

void direction_init(struct direction *direction, uint64_t seed);

/* Takes in a frame. Returns how many copies are to be delivered, 0 to 2, and when each is due. */
int direction_admit(struct direction *direction, uint64_t now_ns, uint32_t bytes, uint64_t due_ns[2]);

/*
 * Reads one `key=value` of a `set` command into an impairment: delay_ms, jitter_ms, loss, duplicate, reorder,
 * reorder_ms, rate_mbit, burst_bytes, queue_bytes, down. Returns NULL, or what is wrong with it.
 */
const char *impairment_set(struct impairment *impairment, const char *assignment);

/* Frames under way, the next due first; frames due at the same moment in the order they were put in. */
struct pending {
	uint64_t due_ns;
	uint64_t order;
	void *frame;
};

struct schedule {
	struct pending *heap;
	uint32_t count;
	uint32_t capacity;
	uint64_t next_order;
};

/* False when there is no memory for it. */
bool schedule_push(struct schedule *schedule, uint64_t due_ns, void *frame);
/* NULL when nothing is under way. */
const struct pending *schedule_first(const struct schedule *schedule);
void schedule_pop(struct schedule *schedule);

#endif
