/*
 * relay: a network path with flaws, between interfaces. Some kernels are built without netem; this needs AF_PACKET only.
 *
 *     relay [--seed N] SEGMENT=INTERFACE,INTERFACE[,INTERFACE…] [SEGMENT=…]
 *     relay --dry-run [--seed N] SEGMENT=PORT,PORT…
 *
 * Carries the frames between the interfaces of each segment, delayed, lost, reordered and so on as told: commands are
 * lines on standard input (mesh.h), answers go to standard output, the first being `ready`. The end of standard input
 * ends it, and so does the death of the process that started it. Until a frame or a command comes, it sleeps.
 *
 * A dry run opens nothing and keeps no clock: a line `frame PORT AT_US BYTES ID [TO FROM]` is a frame (with those Ethernet
 * addresses, else a broadcast), and each delivery is written as `deliver FROM TO AT_US ID`.
 *
 * Frames that the sender's kernel left for its NIC to finish (checksums, segmentation) are passed on as they are, with the
 * kernel's own note of what is left to do. 802.1Q tags are not preserved.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "mesh.h"

#define FRAME_BYTES_MAX 65600
#define FRAMES_PER_READ 32
#define SOCKET_BUFFER_BYTES (16 << 20)
#define COMMAND_BYTES_MAX 1024

enum { TIMER = PORTS_MAX, COMMANDS };

static struct mesh mesh;
static int sockets[PORTS_MAX];
static uint64_t kernel_drops[PORTS_MAX];
static struct virtio_net_hdr headers[FRAMES_PER_READ];
static uint8_t frames[FRAMES_PER_READ][FRAME_BYTES_MAX];

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	fprintf(stderr, "relay: ");
	vfprintf(stderr, format, arguments);
	fprintf(stderr, "\n");
	va_end(arguments);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int open_port(const char *name)
{
	unsigned int index = if_nametoindex(name);
	if (index == 0) fail("no interface %s here", name);
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) fail("socket(AF_PACKET) for %s: %s (CAP_NET_RAW is needed)", name, strerror(errno));
	int on = 1;
	int bytes = SOCKET_BUFFER_BYTES;
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0)
		fail("PACKET_VNET_HDR on %s: %s", name, strerror(errno));
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0)
		fail("PACKET_IGNORE_OUTGOING on %s: %s (Linux 4.20 is needed)", name, strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	struct packet_mreq promiscuous = {.mr_ifindex = (int)index, .mr_type = PACKET_MR_PROMISC};
	if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) < 0)
		fail("promiscuous mode on %s: %s", name, strerror(errno));
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)index};
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) fail("bind to %s: %s", name, strerror(errno));
	return fd;
}

static void receive(int port)
{
	struct mmsghdr messages[FRAMES_PER_READ];
	struct iovec parts[FRAMES_PER_READ][2];
	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < FRAMES_PER_READ; i++) {
		parts[i][0] = (struct iovec){&headers[i], sizeof(headers[i])};
		parts[i][1] = (struct iovec){frames[i], FRAME_BYTES_MAX};
		messages[i].msg_hdr.msg_iov = parts[i];
		messages[i].msg_hdr.msg_iovlen = 2;
	}
	int count = recvmmsg(sockets[port], messages, FRAMES_PER_READ, 0, NULL);
	uint64_t now = now_ns();
	for (int i = 0; i < count; i++) {
		size_t bytes = messages[i].msg_len;
		if (bytes < sizeof(headers[i]) + ETH_HLEN || (messages[i].msg_hdr.msg_flags & MSG_TRUNC)) continue;
		mesh_admit(&mesh, port, &headers[i], frames[i], (uint32_t)(bytes - sizeof(headers[i])), now);
	}
}

static bool send_frame(void *context, const struct frame *frame, uint64_t due_ns)
{
	(void)context;
	(void)due_ns;
	struct iovec parts[] = {
		{(void *)&frame->header, sizeof(frame->header)},
		{(void *)frame->data, frame->bytes},
	};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	return sendmsg(sockets[frame->to], &message, MSG_DONTWAIT) >= 0;
}

/* What the kernel dropped because this process was too slow to read: a run with any of these is not what was asked for. */
static void print_kernel_drops(void)
{
	for (int i = 0; i < mesh.port_count; i++) {
		struct tpacket_stats stats;
		socklen_t length = sizeof(stats);
		if (getsockopt(sockets[i], SOL_PACKET, PACKET_STATISTICS, &stats, &length) == 0)
			kernel_drops[i] += stats.tp_drops;
		printf("%s %s kernel_drops=%" PRIu64 "\n", mesh.ports[i].name, mesh.ports[i].name, kernel_drops[i]);
	}
}

/* Returns false at the end of standard input. */
static bool read_commands(void)
{
	static char line[COMMAND_BYTES_MAX];
	static size_t length;
	ssize_t got = read(STDIN_FILENO, line + length, sizeof(line) - 1 - length);
	if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
	if (got < 0) return true;
	length += (size_t)got;
	line[length] = '\0';
	char *end;
	while ((end = memchr(line, '\n', length)) != NULL) {
		*end = '\0';
		if (strcmp(line, "stats") == 0) print_kernel_drops();
		mesh_command(&mesh, line, stdout);
		length -= (size_t)(end + 1 - line);
		memmove(line, end + 1, length + 1);
	}
	if (length == sizeof(line) - 1) {
		printf("error: a line of more than %d characters\n", COMMAND_BYTES_MAX - 2);
		length = 0;
	}
	fflush(stdout);
	return true;
}

static void arm(int timer)
{
	static uint64_t armed = UINT64_MAX;
	uint64_t due = mesh_next_due(&mesh);
	if (due == armed) return;
	armed = due;
	struct itimerspec at = {0};
	if (due != UINT64_MAX) {
		at.it_value.tv_sec = (time_t)(due / NS_PER_S);
		at.it_value.tv_nsec = (long)(due % NS_PER_S);
	}
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void watch(int epoll, int fd, uint32_t what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = what};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

/* Ahead of ordinary processes, where that is allowed: on a busy machine they would else add milliseconds to the path. */
static void prefer_this_process(void)
{
	struct sched_param priority = {.sched_priority = 1};
	sched_setscheduler(0, SCHED_RR, &priority);
}

static void run(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (epoll < 0 || timer < 0) fail("epoll, timerfd: %s", strerror(errno));
	for (int i = 0; i < mesh.port_count; i++) {
		sockets[i] = open_port(mesh.ports[i].name);
		watch(epoll, sockets[i], (uint32_t)i);
	}
	watch(epoll, timer, TIMER);
	fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	watch(epoll, STDIN_FILENO, COMMANDS);
	prefer_this_process();
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[PORTS_MAX + 2];
		int count = epoll_wait(epoll, events, PORTS_MAX + 2, -1);
		if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
		for (int i = 0; i < count; i++) {
			uint32_t what = events[i].data.u32;
			uint64_t expirations;
			if (what == COMMANDS) {
				if (!read_commands()) return;
			} else if (what == TIMER) {
				if (read(timer, &expirations, sizeof(expirations)) < 0) continue;
			} else {
				receive((int)what);
			}
		}
		mesh_deliver(&mesh, now_ns(), send_frame, NULL);
		arm(timer);
	}
}

static bool print_delivery(void *context, const struct frame *frame, uint64_t due_ns)
{
	(void)context;
	uint64_t id;
	memcpy(&id, frame->data + ETH_HLEN, sizeof(id));
	printf("deliver %s %s %.3f %" PRIu64 "\n", mesh.ports[frame->from].name, mesh.ports[frame->to].name,
	       due_ns / 1e3, id);
	return true;
}

/* Stops at every due time, as a relay that is never late would. */
static void dry_deliver_until(uint64_t now)
{
	for (uint64_t due = mesh_next_due(&mesh); due <= now && due != UINT64_MAX; due = mesh_next_due(&mesh))
		mesh_deliver(&mesh, due, print_delivery, NULL);
}

static bool read_address(const char *text, uint8_t *address)
{
	return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &address[0], &address[1], &address[2], &address[3],
		      &address[4], &address[5]) == 6;
}

static void dry_frame(const char *line)
{
	static uint8_t data[FRAME_BYTES_MAX];
	static const struct virtio_net_hdr plain;
	char name[NAME_BYTES], to[18] = "ff:ff:ff:ff:ff:ff", from[18] = "02:00:00:00:00:01";
	uint64_t id;
	double at_us;
	uint32_t bytes;
	int fields = sscanf(line, "frame %15s %lf %" SCNu32 " %" SCNu64 " %17s %17s", name, &at_us, &bytes, &id, to, from);
	int port = -1;
	for (int i = 0; fields >= 4 && i < mesh.port_count; i++)
		if (strcmp(mesh.ports[i].name, name) == 0) port = i;
	if (port < 0 || bytes < ETH_HLEN + sizeof(id) || bytes > FRAME_BYTES_MAX || !read_address(to, data) ||
	    !read_address(from, data + 6))
		fail("not a frame: %s", line);
	memcpy(data + ETH_HLEN, &id, sizeof(id));
	uint64_t now = (uint64_t)(at_us * 1e3);
	dry_deliver_until(now);
	mesh_admit(&mesh, port, &plain, data, bytes, now);
}

static void dry_run(void)
{
	char line[COMMAND_BYTES_MAX];
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (strncmp(line, "frame ", 6) == 0) dry_frame(line);
		else mesh_command(&mesh, line, stdout);
	}
	dry_deliver_until(UINT64_MAX);
}

int main(int count, char **arguments)
{
	uint64_t seed = 1;
	bool dry = false;
	int at = 1;
	for (; at < count && arguments[at][0] == '-'; at++) {
		if (strcmp(arguments[at], "--dry-run") == 0) dry = true;
		else if (strcmp(arguments[at], "--seed") == 0 && at + 1 < count) seed = strtoull(arguments[++at], NULL, 0);
		else fail("unknown option %s", arguments[at]);
	}
	if (at == count) fail("SEGMENT=INTERFACE,INTERFACE is needed");
	for (; at < count; at++) {
		const char *wrong = mesh_add_segment(&mesh, arguments[at]);
		if (wrong != NULL) fail("%s: %s", arguments[at], wrong);
	}
	mesh_seed(&mesh, seed);
	if (dry) {
		dry_run();
		return 0;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	run();
	return 0;
}
