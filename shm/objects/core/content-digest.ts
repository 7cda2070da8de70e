/**
 * Digest of a set of entries, independent of their order: the sum of a hash of each, as 64 bits.
 * The keys are fixed, so that every instance gets the same digest. It detects accidental
 * differences, not deliberate ones: members are authenticated.
 */

import { hashWords } from '../../hash.js';

export class ContentDigest {
  private low = 0;
  private high = 0;

  add(words: Int32Array): void {
    this.low = (this.low + hashWords(0x6469_6765, 0x7374_2031, words, 0, words.length)) | 0;
    this.high = (this.high + hashWords(0x6469_6765, 0x7374_2032, words, 0, words.length)) | 0;
  }

  /** 16 hex digits. */
  toString(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return hex(this.high) + hex(this.low);
  }
}
