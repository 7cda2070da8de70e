/*
 * burst: opens TCP connections as fast as one thread can, and prints how long each took; or
 * accepts them. Node needs several times as long for both, and would be what is measured.
 *
 *     burst connect PORT TIMEOUT_MS EACH SERVER,… SOURCE,…
 *     burst accept PORT
 *
 * accept writes "ready". It closes a connection when the other end did.
 *
 * connect: EACH connections go to each server, in turns; sources are taken in turns. Each connection that is
 * established gives a line "SERVER MS" (index of the server, milliseconds from the SYN), each that
 * is refused or not established in time a line "SERVER -". A connection ends by a reset.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ADDRESSES_MAX 256
/* Connections that are started before those that are established are looked for. */
#define AT_ONCE 20
#define EVENTS_MAX 256
#define BACKLOG 4096
#define FILES_MAX 16384

struct connection {
	int fd;
	int server;
	double start_ms;
};

static struct connection *connections;
static int epoll_fd;
static int open_count;

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

__attribute__((noreturn)) static void fail(const char *what)
{
	fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int read_addresses(char *list, struct in_addr *addresses)
{
	int count = 0;
	for (char *one = strtok(list, ","); one != NULL; one = strtok(NULL, ",")) {
		if (count == ADDRESSES_MAX || inet_pton(AF_INET, one, &addresses[count]) != 1) {
			errno = EINVAL;
			fail(one);
		}
		count++;
	}
	return count;
}

static void end(struct connection *connection, int is_established, double now)
{
	if (is_established)
		printf("%d %.3f\n", connection->server, now - connection->start_ms);
	else
		printf("%d -\n", connection->server);
	close(connection->fd);
	connection->fd = -1;
	open_count--;
}

static void start(struct connection *connection, struct in_addr source, struct in_addr server, uint16_t port)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = source};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = server, .sin_port = htons(port)};
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
	int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0) fail("socket");
	/* The port is chosen by connect(), so that one port serves several servers. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0) fail("bind");
	connection->fd = fd;
	open_count++;
	connection->start_ms = now_ms();
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno != EINPROGRESS) {
		end(connection, 0, 0);
		return;
	}
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
}

/* Ends the connections that are established or refused; waits at most so long for the first. */
static void look(int wait_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(epoll_fd, events, EVENTS_MAX, wait_ms);
	double now = now_ms();
	for (int i = 0; i < count; i++) end(events[i].data.ptr, (events[i].events & (EPOLLERR | EPOLLHUP)) == 0, now);
}

static int run_connect(char **arguments)
{
	struct in_addr servers[ADDRESSES_MAX], sources[ADDRESSES_MAX];
	uint16_t port = (uint16_t)atoi(arguments[0]);
	double timeout_ms = atof(arguments[1]);
	int server_count = read_addresses(arguments[3], servers);
	int source_count = read_addresses(arguments[4], sources);
	int total = server_count * atoi(arguments[2]);
	connections = calloc((size_t)total, sizeof(*connections));
	if (connections == NULL) fail("memory");
	for (int n = 0; n < total; n++) {
		connections[n].server = n % server_count;
		start(&connections[n], sources[n % source_count], servers[n % server_count], port);
		if (n % AT_ONCE == 0) look(0);
	}
	double deadline = now_ms() + timeout_ms;
	while (open_count > 0 && now_ms() < deadline) look((int)(deadline - now_ms()) + 1);
	for (int n = 0; n < total; n++)
		if (connections[n].fd >= 0) end(&connections[n], 0, 0);
	return 0;
}

static int run_accept(char **arguments)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[0]))};
	struct epoll_event events[EVENTS_MAX], event = {.events = EPOLLIN};
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (listener < 0) fail("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0) fail("bind");
	if (listen(listener, BACKLOG) != 0) fail("listen");
	event.data.fd = listener;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) != 0) fail("epoll_ctl");
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
		for (int i = 0; i < count; i++) {
			if (events[i].data.fd != listener) {
				close(events[i].data.fd);
				continue;
			}
			for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
				event.data.fd = fd;
				if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
			}
		}
	}
}

int main(int count, char **arguments)
{
	struct rlimit files = {.rlim_cur = FILES_MAX, .rlim_max = FILES_MAX};
	setrlimit(RLIMIT_NOFILE, &files);
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0) fail("epoll_create1");
	if (count == 7 && strcmp(arguments[1], "connect") == 0) return run_connect(arguments + 2);
	if (count == 3 && strcmp(arguments[1], "accept") == 0) return run_accept(arguments + 2);
	fprintf(stderr, "usage: burst connect PORT TIMEOUT_MS EACH SERVER,... SOURCE,...\n       burst accept PORT\n");
	return 2;
}
