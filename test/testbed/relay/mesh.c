#include "mesh.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 16

static int find_port(const struct mesh *mesh, const char *name)
{
	for (int i = 0; i < mesh->port_count; i++)
		if (strcmp(mesh->ports[i].name, name) == 0) return i;
	return -1;
}

const char *mesh_add_segment(struct mesh *mesh, const char *text)
{
	const char *at = strchr(text, '=');
	if (at == NULL) return "NAME=PORT,PORT is needed";
	int ports = 0;
	while (*at != '\0') {
		at++; /* past the = or the comma */
		size_t length = strcspn(at, ",");
		if (length == 0 || length >= NAME_BYTES) return "a port's name has 1 to 15 characters";
		if (mesh->port_count == PORTS_MAX) return "16 ports are the most";
		struct port port = {.segment = mesh->segment_count};
		memcpy(port.name, at, length);
		if (find_port(mesh, port.name) >= 0) return "a port is named twice";
		mesh->ports[mesh->port_count++] = port;
		ports++;
		at += length;
	}
	if (ports < 2) return "a segment has at least two ports";
	mesh->segment_count++;
	return NULL;
}

void mesh_seed(struct mesh *mesh, uint64_t seed)
{
	for (int from = 0; from < PORTS_MAX; from++)
		for (int to = 0; to < PORTS_MAX; to++)
			direction_init(&mesh->directions[from][to],
				       seed * 0xd1342543de82ef95ull + (uint64_t)(from * PORTS_MAX + to));
}

static bool is_path(const struct mesh *mesh, int from, int to)
{
	return from != to && mesh->ports[from].segment == mesh->ports[to].segment;
}

/* The port that `address` was last seen to come by, or -1. */
static int lookup(const struct mesh *mesh, const uint8_t *address)
{
	for (int i = 0; i < mesh->learned_count; i++)
		if (memcmp(mesh->learned[i].address, address, 6) == 0) return mesh->learned[i].port;
	return -1;
}

/* When the table is full, a new address stays unknown: its frames go to all, which is right, only wasteful. */
static void learn(struct mesh *mesh, const uint8_t *address, int port)
{
	if (address[0] & 1) return;
	for (int i = 0; i < mesh->learned_count; i++) {
		if (memcmp(mesh->learned[i].address, address, 6) != 0) continue;
		mesh->learned[i].port = (uint16_t)port;
		return;
	}
	if (mesh->learned_count == ADDRESSES_MAX) return;
	struct learned *added = &mesh->learned[mesh->learned_count++];
	memcpy(added->address, address, 6);
	added->port = (uint16_t)port;
}

static bool put_under_way(struct mesh *mesh, const struct frame *head, const uint8_t *data, uint64_t due_ns)
{
	size_t size = sizeof(*head) + head->bytes;
	if (mesh->pending_bytes + size > PENDING_BYTES_MAX) return false;
	struct frame *frame = malloc(size);
	if (frame == NULL) return false;
	*frame = *head;
	memcpy(frame->data, data, head->bytes);
	if (!schedule_push(&mesh->under_way, due_ns, frame)) {
		free(frame);
		return false;
	}
	mesh->pending_bytes += size;
	return true;
}

static void admit_one_way(struct mesh *mesh, const struct frame *head, const uint8_t *data, uint64_t now_ns)
{
	struct direction *direction = &mesh->directions[head->from][head->to];
	uint64_t due_ns[2];
	int copies = direction_admit(direction, now_ns, head->bytes, due_ns);
	for (int i = 0; i < copies; i++)
		if (!put_under_way(mesh, head, data, due_ns[i])) direction->counters.overflowed++;
}

void mesh_admit(struct mesh *mesh, int port, const struct virtio_net_hdr *header, const uint8_t *data, uint32_t bytes,
		uint64_t now_ns)
{
	learn(mesh, data + 6, port);
	int only = data[0] & 1 ? -1 : lookup(mesh, data);
	for (int to = 0; to < mesh->port_count; to++) {
		if (!is_path(mesh, port, to)) continue;
		if (only >= 0 && to != only && is_path(mesh, port, only)) continue;
		struct frame head = {.from = (uint16_t)port, .to = (uint16_t)to, .bytes = bytes, .header = *header};
		if (only != port) admit_one_way(mesh, &head, data, now_ns);
	}
}

uint64_t mesh_next_due(const struct mesh *mesh)
{
	const struct pending *first = schedule_first(&mesh->under_way);
	return first ? first->due_ns : UINT64_MAX;
}

void mesh_deliver(struct mesh *mesh, uint64_t now_ns, deliver_fn *deliver, void *context)
{
	for (;;) {
		const struct pending *first = schedule_first(&mesh->under_way);
		if (first == NULL || first->due_ns > now_ns) return;
		struct frame *frame = first->frame;
		uint64_t due_ns = first->due_ns;
		schedule_pop(&mesh->under_way);
		struct direction *direction = &mesh->directions[frame->from][frame->to];
		struct direction_counters *counters = &direction->counters;
		uint64_t late_ns = now_ns - due_ns;
		if (direction->impairment.down) {
			counters->cut++;
		} else if (deliver(context, frame, due_ns)) {
			counters->delivered++;
			counters->late_ns_sum += late_ns;
			if (late_ns > counters->late_ns_max) counters->late_ns_max = late_ns;
		} else {
			counters->failed++;
		}
		mesh->pending_bytes -= sizeof(*frame) + frame->bytes;
		free(frame);
	}
}

static bool matches(const struct mesh *mesh, int port, const char *name)
{
	return strcmp(name, "*") == 0 || strcmp(name, mesh->ports[port].name) == 0;
}

/* All assignments are tried on a copy first, so that a command with an error in it changes nothing. */
static const char *set(struct mesh *mesh, char **words, int count)
{
	if (count < 4) return "set FROM TO KEY=VALUE… is needed";
	int paths = 0;
	for (int from = 0; from < mesh->port_count; from++) {
		for (int to = 0; to < mesh->port_count; to++) {
			if (!is_path(mesh, from, to) || !matches(mesh, from, words[1]) || !matches(mesh, to, words[2]))
				continue;
			struct impairment changed = mesh->directions[from][to].impairment;
			for (int i = 3; i < count; i++) {
				const char *wrong = impairment_set(&changed, words[i]);
				if (wrong != NULL) return wrong;
			}
			mesh->directions[from][to].impairment = changed;
			paths++;
		}
	}
	return paths ? NULL : "no path between these ports";
}

static const char *set_down(struct mesh *mesh, char **words, int count, bool down)
{
	if (count < 2 || count > 3) return "one or two ports are needed";
	const char *far = count == 3 ? words[2] : "*";
	int paths = 0;
	for (int a = 0; a < mesh->port_count; a++) {
		for (int b = 0; b < mesh->port_count; b++) {
			if (!is_path(mesh, a, b) || !matches(mesh, a, words[1]) || !matches(mesh, b, far)) continue;
			mesh->directions[a][b].impairment.down = down;
			mesh->directions[b][a].impairment.down = down;
			paths++;
		}
	}
	return paths ? NULL : "no path between these ports";
}

static void stats(const struct mesh *mesh, FILE *out)
{
	for (int from = 0; from < mesh->port_count; from++) {
		for (int to = 0; to < mesh->port_count; to++) {
			if (!is_path(mesh, from, to)) continue;
			const struct direction_counters *c = &mesh->directions[from][to].counters;
			fprintf(out,
				"%s %s received=%" PRIu64 " delivered=%" PRIu64 " lost=%" PRIu64 " duplicated=%" PRIu64
				" reordered=%" PRIu64 " overflowed=%" PRIu64 " cut=%" PRIu64 " failed=%" PRIu64
				" late_us_max=%.1f late_us_mean=%.1f\n",
				mesh->ports[from].name, mesh->ports[to].name, c->received, c->delivered, c->lost,
				c->duplicated, c->reordered, c->overflowed, c->cut, c->failed, c->late_ns_max / 1e3,
				c->delivered ? c->late_ns_sum / 1e3 / c->delivered : 0.0);
		}
	}
}

void mesh_command(struct mesh *mesh, char *line, FILE *out)
{
	char *words[WORDS_MAX];
	int count = 0;
	char *rest = NULL;
	for (char *word = strtok_r(line, " \t\r\n", &rest); word != NULL; word = strtok_r(NULL, " \t\r\n", &rest)) {
		if (count == WORDS_MAX) {
			fprintf(out, "error: too many words\n");
			return;
		}
		words[count++] = word;
	}
	if (count == 0) return;
	const char *wrong = "no such command: set, cut, heal and stats are";
	if (strcmp(words[0], "set") == 0) wrong = set(mesh, words, count);
	else if (strcmp(words[0], "cut") == 0) wrong = set_down(mesh, words, count, true);
	else if (strcmp(words[0], "heal") == 0) wrong = set_down(mesh, words, count, false);
	else if (strcmp(words[0], "stats") == 0) {
		stats(mesh, out);
		wrong = NULL;
	}
	if (wrong != NULL) fprintf(out, "error: %s\n", wrong);
	else fprintf(out, "ok\n");
}
