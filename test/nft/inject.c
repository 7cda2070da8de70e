/*
 * Sends frames into two interfaces and writes what comes out of them.
 *
 *     inject INTERFACE INTERFACE < frames > frames
 *
 * A frame is the number of its interface (0 or 1, one byte), its length (two bytes, little endian) and its bytes. After each
 * CHUNK frames a marker follows them, and nothing more is sent until the marker is seen again: packets that one processor
 * forwards stay in order, so everything before the marker is through, and no queue can overflow.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 64
#define FRAME_BYTES_MAX 2048
#define BUFFER_BYTES (64 << 20)
#define MARKER_MS 10000

/* The last bytes of a marker. */
static const uint8_t MARKER[8] = { 0xc0, 0xf1, 0xa7, 0xe5, 0xff, 0xff, 0xff, 0xff };

static int sockets[2];

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_socket(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0)
		fail("socket");
	int bytes = BUFFER_BYTES, one = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
		fail("SO_RCVBUFFORCE");
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0)
		fail("PACKET_IGNORE_OUTGOING");
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	if (to.sll_ifindex == 0)
		fail(name);
	if (bind(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("bind");
	return fd;
}

static void write_frame(int from, const uint8_t *frame, size_t length)
{
	uint8_t head[3] = { (uint8_t)from, (uint8_t)length, (uint8_t)(length >> 8) };
	if (fwrite(head, 1, 3, stdout) != 3 || fwrite(frame, 1, length, stdout) != length)
		fail("write");
}

/* Writes what has come out. Returns whether the marker was among it. */
static int collect(void)
{
	static uint8_t frame[FRAME_BYTES_MAX];
	int marked = 0;
	for (int n = 0; n < 2; n++) {
		ssize_t got;
		while ((got = recv(sockets[n], frame, sizeof frame, MSG_DONTWAIT)) > 0) {
			if (got > 42 && memcmp(frame + got - 8, MARKER, 8) == 0)
				marked = 1;
			else
				write_frame(n, frame, (size_t)got);
		}
		if (got < 0 && errno != EAGAIN)
			fail("recv");
	}
	return marked;
}

static void send_frame(int to, const uint8_t *frame, size_t length)
{
	while (send(sockets[to], frame, length, 0) < 0)
		if (errno != ENOBUFS && errno != EINTR)
			fail("send");
}

static void flush(const uint8_t *marker, size_t length)
{
	send_frame(0, marker, length);
	struct pollfd wanted[2] = { { sockets[0], POLLIN, 0 }, { sockets[1], POLLIN, 0 } };
	while (!collect()) {
		if (poll(wanted, 2, MARKER_MS) == 0) {
			errno = ETIMEDOUT;
			fail("the marker did not come out");
		}
	}
	collect(); /* What reached the other socket before the marker reached its own. */
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: inject INTERFACE INTERFACE\n");
		return 2;
	}
	/* One processor forwards all, in order. */
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof set, &set) < 0)
		fail("sched_setaffinity");
	for (int n = 0; n < 2; n++)
		sockets[n] = open_socket(argv[1 + n]);
	static uint8_t marker[FRAME_BYTES_MAX], frame[FRAME_BYTES_MAX];
	size_t marker_bytes = 0;
	uint8_t head[3];
	int pending = 0;
	while (fread(head, 1, 3, stdin) == 3) {
		size_t length = head[1] | (size_t)head[2] << 8;
		if (head[0] > 1 || length > FRAME_BYTES_MAX || fread(frame, 1, length, stdin) != length) {
			fprintf(stderr, "not a frame\n");
			return 2;
		}
		if (marker_bytes == 0) { /* The first frame is the marker. */
			memcpy(marker, frame, length);
			marker_bytes = length;
			continue;
		}
		send_frame(head[0], frame, length);
		if (++pending == CHUNK) {
			flush(marker, marker_bytes);
			pending = 0;
		}
	}
	if (marker_bytes > 0)
		flush(marker, marker_bytes);
	if (fflush(stdout) != 0)
		fail("write");
	return 0;
}
