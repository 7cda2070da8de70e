/*
 * helper: what Node cannot do when it starts a program, or to an interface.
 *
 *     helper run PARENT PROGRAM [ARGUMENT…]   becomes PROGRAM, which the kernel kills when the process PARENT dies
 *     helper offloads-off INTERFACE…          every offload off: frames are then on the wire as AF_XDP, which knows no
 *                                             offloads, needs them: checksums complete, no larger than the MTU
 */

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int run(char **arguments)
{
	pid_t parent = (pid_t)atoi(arguments[0]);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The parent may have died before it was asked for; then this process has another parent by now. */
	if (getppid() != parent) return 125;
	execvp(arguments[1], arguments + 1);
	fprintf(stderr, "helper: %s: %s\n", arguments[1], strerror(errno));
	return 127;
}

static int offloads_off(int fd, const char *interface)
{
	/* In this order: segmentation depends on checksums. */
	static const struct {
		uint32_t command;
		const char *name;
	} offloads[] = {
		{ETHTOOL_STSO, "TSO"}, {ETHTOOL_SGSO, "GSO"},   {ETHTOOL_SGRO, "GRO"},
		{ETHTOOL_SSG, "SG"},   {ETHTOOL_STXCSUM, "TX checksum"},
	};
	for (size_t i = 0; i < sizeof(offloads) / sizeof(offloads[0]); i++) {
		struct ethtool_value value = {.cmd = offloads[i].command, .data = 0};
		struct ifreq request = {.ifr_data = (void *)&value};
		strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
		if (ioctl(fd, SIOCETHTOOL, &request) == 0 || errno == EOPNOTSUPP) continue;
		fprintf(stderr, "helper: %s off on %s: %s\n", offloads[i].name, interface, strerror(errno));
		return 1;
	}
	return 0;
}

int main(int count, char **arguments)
{
	if (count >= 4 && strcmp(arguments[1], "run") == 0) return run(arguments + 2);
	if (count >= 3 && strcmp(arguments[1], "offloads-off") == 0) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		int failed = fd < 0;
		for (int i = 2; i < count && !failed; i++) failed = offloads_off(fd, arguments[i]);
		return failed;
	}
	fprintf(stderr, "usage: helper run PARENT PROGRAM [ARGUMENT…] | offloads-off INTERFACE…\n");
	return 2;
}
