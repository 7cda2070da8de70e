/*
 * The relay's ports, joined into segments, and the frames under way between them; still no sockets and no clock.
 *
 * Within a segment every port reaches every other (a full mesh of directions): a multicast, broadcast or unknown
 * destination address goes to all of them, a learned one to its port alone.
 */
#ifndef MESH_H
#define MESH_H

#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "impairment.h"

#define PORTS_MAX 16
#define NAME_BYTES 16
#define ADDRESSES_MAX 256
#define PENDING_BYTES_MAX (256u << 20)

/* One copy of a frame on its way. `header` says what the sender's kernel left undone (checksum, segmentation). */
struct frame {
	uint16_t from;
	uint16_t to;
	uint32_t bytes;
	struct virtio_net_hdr header;
	uint8_t data[];
};

struct port {
	char name[NAME_BYTES];
	int segment;
};

struct learned {
	uint8_t address[6];
	uint16_t port;
};

struct mesh {
	struct port ports[PORTS_MAX];
	int port_count;
	int segment_count;
	struct direction directions[PORTS_MAX][PORTS_MAX]; /* [from][to] */
	struct learned learned[ADDRESSES_MAX];
	int learned_count;
	struct schedule under_way;
	uint64_t pending_bytes;
};

/* Reads `NAME=PORT,PORT[,PORT…]`, one segment. Returns NULL, or what is wrong with it. */
const char *mesh_add_segment(struct mesh *mesh, const char *text);

/* Gives every direction its random sequence. Call once, after the last segment. */
void mesh_seed(struct mesh *mesh, uint64_t seed);

/* Takes in a frame that came by `port`. `bytes` is at least 14, an Ethernet header. */
void mesh_admit(struct mesh *mesh, int port, const struct virtio_net_hdr *header, const uint8_t *data, uint32_t bytes,
		uint64_t now_ns);

/* When the next frame is due; UINT64_MAX when nothing is under way. */
uint64_t mesh_next_due(const struct mesh *mesh);

/* Delivers a frame; false when the far end did not take it. */
typedef bool deliver_fn(void *context, const struct frame *frame, uint64_t due_ns);

/* Delivers what is due. */
void mesh_deliver(struct mesh *mesh, uint64_t now_ns, deliver_fn *deliver, void *context);

/*
 * Runs one command and writes its answer, the last line of which is `ok` or `error: …`:
 *
 *     set FROM TO KEY=VALUE…    one direction; `*` for any port; keys in impairment.h
 *     cut A [B], heal A [B]     both directions between two ports, or between a port and all others
 *     stats                     one line for each direction
 */
void mesh_command(struct mesh *mesh, char *line, FILE *out);

#endif
