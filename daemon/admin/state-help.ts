/** The states of an instance, for `help status`. */

import { LIFECYCLE_STATES, STATE_TRAITS } from '../lifecycle/lifecycle.js';

export function stateHelp(): string[] {
  const width = Math.max(...LIFECYCLE_STATES.map((state) => state.length));
  return LIFECYCLE_STATES.map((state) => {
    const { exitCode, help } = STATE_TRAITS[state];
    return `${state.padEnd(width)}  exit code ${exitCode}: ${help}`;
  });
}
