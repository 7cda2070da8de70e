/**
 * Chooses the layout of packet memory for the MTUs of a worker's ports.
 *
 *     longest frame    layout
 *     1790 bytes       chunks of 2048 bytes
 *     3838 bytes       chunks of 4096 bytes, the most that the kernel allows
 *     16126 bytes      frames in several chunks of 4096 bytes (multi-buffer XDP, Linux 6.6)
 *
 * A frame is longer than its MTU by the Ethernet header and up to four VLAN tags. An MTU that no
 * layout supports is refused at the start, with the reason. Otherwise the kernel would silently
 * drop its frames.
 */

import { frameBytesMax, JUMBO_FRAME_BYTES_MAX } from './umem.js';

export interface FrameLayout {
  readonly chunkBytes: number;
  /** Whether a frame may take several chunks. */
  readonly multiBuffer: boolean;
}

interface FramePort {
  readonly name: string;
  readonly mtu: number;
}

/** Ethernet header and four VLAN tags. */
const LINK_BYTES = 14 + 4 * 4;
const [SMALL, LARGE] = [2048, 4096];

/** The largest MTU whose frames a layout holds. */
export function mtuMax({ chunkBytes, multiBuffer }: FrameLayout): number {
  return (multiBuffer ? JUMBO_FRAME_BYTES_MAX : frameBytesMax(chunkBytes)) - LINK_BYTES;
}

/**
 * The smallest layout for the largest MTU of these ports.
 *
 * @param isMultiBuffer whether the kernel supports AF_XDP frames of several chunks; called only if
 *   needed
 * @throws Error that names the port, its MTU and what to change
 */
export function frameLayout(ports: readonly FramePort[], isMultiBuffer: () => boolean): FrameLayout {
  const { name, mtu } = ports.reduce((largest, port) => (port.mtu > largest.mtu ? port : largest));
  const layouts: FrameLayout[] = [
    { chunkBytes: SMALL, multiBuffer: false },
    { chunkBytes: LARGE, multiBuffer: false },
    { chunkBytes: LARGE, multiBuffer: true },
  ];
  const layout = layouts.find((candidate) => mtu <= mtuMax(candidate));
  if (layout === undefined)
    throw new Error(
      `${name} has MTU ${mtu}, and frames of at most MTU ${mtuMax(layouts[2])} are supported: set a smaller one (ip link set ${name} mtu ${mtuMax(layouts[2])})`,
    );
  if (layout.multiBuffer && !isMultiBuffer())
    throw new Error(
      `${name} has MTU ${mtu}, and this kernel's AF_XDP has no frames longer than a page: set an MTU of at most ${mtuMax(layouts[1])} (ip link set ${name} mtu ${mtuMax(layouts[1])}), or use Linux 6.6 or later`,
    );
  return layout;
}
