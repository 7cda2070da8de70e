/** How a command fails. A `UsageError` ends the client with 2, any other error with 1. */

/** The command line has a syntax error. */
export class UsageError extends Error {}

/** The command is valid, but the instance did not do what it asks for. */
export class FailedError extends Error {}

/** Makes foreign text safe for an answer: at most 40 characters, one line, printable ASCII. */
export function printable(text: string): string {
  const short = text.length > 40 ? `${text.slice(0, 37)}...` : text;
  return short.replace(/[^\x20-\x7e]/g, '?');
}
