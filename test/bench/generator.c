/*
 * Traffic for the af_xdp benchmark: UDP packets of many flows, as fast as one core can, or at a rate.
 *
 *     generator INTERFACE DESTINATION_MAC SOURCE_IP DESTINATION_IP FLOWS FRAME_BYTES PACKETS_PER_S [spread]
 *
 * Flow n comes from SOURCE_IP + n / 1000, port 10000 + n % 1000, and goes to port 9; with "spread" to some of 2000 … 61999. PACKETS_PER_S 0 means no limit. Writes "ready", then
 * begins; at SIGTERM it ends and writes how many packets it sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define PORTS_PER_HOST 1000
#define FRAME_MAX 1514

static volatile sig_atomic_t stopped;

static void stop(int signal) {
  (void)signal;
  stopped = 1;
}

static void check(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "generator: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint16_t sum(const void *data, size_t bytes, uint32_t total) {
  const uint8_t *at = data;
  for (size_t i = 0; i + 1 < bytes; i += 2) total += (uint32_t)(at[i] << 8 | at[i + 1]);
  if (bytes % 2 != 0) total += (uint32_t)at[bytes - 1] << 8;
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return (uint16_t)total;
}

/* Everything is right, checksums too, for a NAT corrects them and a kernel may look. */
static void build(uint8_t *frame, size_t bytes, const uint8_t *to, const uint8_t *from, uint32_t source,
                  uint32_t destination, uint16_t port, uint16_t to_port) {
  struct ethhdr *ethernet = (void *)frame;
  struct iphdr *ip = (void *)(frame + sizeof *ethernet);
  struct udphdr *udp = (void *)(frame + sizeof *ethernet + sizeof *ip);
  uint16_t udp_bytes = (uint16_t)(bytes - sizeof *ethernet - sizeof *ip);
  memset(frame, 0, bytes);
  memcpy(ethernet->h_dest, to, 6);
  memcpy(ethernet->h_source, from, 6);
  ethernet->h_proto = htons(ETH_P_IP);
  *ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP };
  ip->tot_len = htons((uint16_t)(bytes - sizeof *ethernet));
  ip->saddr = htonl(source);
  ip->daddr = htonl(destination);
  ip->check = htons((uint16_t)~sum(ip, sizeof *ip, 0));
  udp->source = htons(port);
  udp->dest = htons(to_port);
  udp->len = htons(udp_bytes);
  uint16_t check = (uint16_t)~sum(udp, udp_bytes, (uint32_t)IPPROTO_UDP + udp_bytes + sum(&ip->saddr, 8, 0));
  udp->check = htons(check != 0 ? check : 0xffff);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int main(int count, char **arguments) {
  int spread = count == 9 && strcmp(arguments[8], "spread") == 0;
  if (count != 8 && !spread) {
    fprintf(stderr, "usage: generator INTERFACE DESTINATION_MAC SOURCE_IP DESTINATION_IP FLOWS FRAME_BYTES PACKETS_PER_S [spread]\n");
    return 64;
  }
  uint8_t to[6];
  struct in_addr source, destination;
  check(sscanf(arguments[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3, to + 4, to + 5) == 6 &&
            inet_aton(arguments[3], &source) != 0 && inet_aton(arguments[4], &destination) != 0,
        "addresses");
  size_t flows = (size_t)atoi(arguments[5]), bytes = (size_t)atoi(arguments[6]);
  double rate = atof(arguments[7]);
  check(flows > 0 && bytes >= 42 && bytes <= FRAME_MAX, "FLOWS or FRAME_BYTES");

  int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1; /* protocol 0: it only sends */
  check(fd >= 0, "socket");
  struct ifreq request = { 0 };
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", arguments[1]);
  check(ioctl(fd, SIOCGIFHWADDR, &request) == 0, "SIOCGIFHWADDR");
  struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(arguments[1]) };
  check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
  check(setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) == 0, "PACKET_QDISC_BYPASS");

  uint8_t *frames = calloc(flows, bytes);
  check(frames != NULL, "memory");
  for (size_t i = 0; i < flows; i++)
    build(frames + i * bytes, bytes, to, (uint8_t *)request.ifr_hwaddr.sa_data,
          ntohl(source.s_addr) + (uint32_t)(i / PORTS_PER_HOST), ntohl(destination.s_addr),
          (uint16_t)(10000 + i % PORTS_PER_HOST), spread ? (uint16_t)(2000 + i * 31 % 60000) : 9);

  struct iovec vectors[BATCH];
  struct mmsghdr messages[BATCH];
  memset(messages, 0, sizeof messages);
  for (int i = 0; i < BATCH; i++) messages[i].msg_hdr = (struct msghdr){ .msg_iov = &vectors[i], .msg_iovlen = 1 };
  signal(SIGTERM, stop);
  printf("ready\n");
  fflush(stdout);

  uint64_t sent = 0;
  double start = now();
  for (size_t flow = 0; !stopped;) {
    if (rate > 0 && (double)sent > (now() - start) * rate) {
      usleep(50);
      continue;
    }
    for (int i = 0; i < BATCH; i++) {
      vectors[i] = (struct iovec){ .iov_base = frames + flow * bytes, .iov_len = bytes };
      flow = flow + 1 == flows ? 0 : flow + 1;
    }
    int done = sendmmsg(fd, messages, BATCH, 0);
    if (done > 0) sent += (uint64_t)done;
    else if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR) check(0, "sendmmsg");
  }
  printf("sent %llu\n", (unsigned long long)sent);
  return 0;
}
