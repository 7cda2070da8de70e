/**
 * Replies, as a middlebox sends them: the third verdict, besides forward and drop. plane/replies.ts
 * makes them.
 */

/** Codes of "destination unreachable" that a filter sends (RFC 792, RFC 1812 §5.2.7.1). */
export const Unreachable = {
  NET: 0,
  HOST: 1,
  PROTOCOL: 2,
  PORT: 3,
  NET_PROHIBITED: 9,
  HOST_PROHIBITED: 10,
  PROHIBITED: 13,
};

/**
 * Each method makes packet `i` a reply and returns true. If no reply is allowed, it returns false
 * and leaves the packet unchanged; the caller must then drop or forward it. No reply is allowed to
 * fragments, and to packets that do not go from one host to another.
 */
export interface Replies {
  /** Turns an ICMP echo request into its reply. */
  echo(i: number): boolean;
  /**
   * Turns a TCP segment into the reset that a closed port would send (RFC 9293 §3.10.7.1). A reset
   * is never answered.
   */
  reset(i: number): boolean;
  /**
   * Turns a packet into the ICMP or ICMPv6 error "destination unreachable", with a code of
   * `Unreachable`. Errors are never answered, and the rate is limited as RFC 1812 §4.3.2.8 asks.
   * The error's source is the port's address, or, if the port has none, the packet's destination.
   */
  unreachable(i: number, code: number): boolean;
  /**
   * IPv4 only. Sends back what the middlebox has written in place of the packet, with the endpoints
   * exchanged. The caller sets the IPv4 total length and header length. The UDP length and all
   * checksums are computed here.
   */
  turn(i: number): boolean;
}
