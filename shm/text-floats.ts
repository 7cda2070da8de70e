/** Short text in cells of numbers: one byte per character, padded with zeros. */

/** Characters per float: six bytes are 48 of its 53 bits. */
const BYTES_PER_FLOAT = 6;

/** Writes `text` to `floats[at … at + length)`. Throws if it is too long. */
export function putText(floats: Float64Array, at: number, length: number, text: string): void {
  if (text.length > length * BYTES_PER_FLOAT)
    throw new RangeError(`"${text}" is too long: more than ${length * BYTES_PER_FLOAT} characters`);
  for (let i = 0; i < length; i++) {
    let value = 0;
    for (let j = BYTES_PER_FLOAT - 1; j >= 0; j--) {
      const place = i * BYTES_PER_FLOAT + j;
      value = value * 256 + (place < text.length ? text.charCodeAt(place) & 0xff : 0);
    }
    floats[at + i] = value;
  }
}

export function getText(floats: Float64Array, at: number, length: number): string {
  let text = '';
  for (let i = 0; i < length; i++)
    for (let value = floats[at + i]; value > 0; value = Math.floor(value / 256))
      text += String.fromCharCode(value % 256);
  return text;
}
