/** All commands, in the order `help` lists them. */

import type { Command } from '../command.js';
import { showBlocks, unblock } from './blocks.js';
import { drain } from './drain.js';
import { help } from './help.js';
import { join } from './join.js';
import { memberAdd, memberEvict, memberList, memberRemove } from './member.js';
import { reload } from './reload.js';
import { reloadKeys } from './reload-keys.js';
import { reloadRecords } from './reload-records.js';
import { reloadRules } from './reload-rules.js';
import { restart } from './restart.js';
import { save } from './save.js';
import { showCounters } from './show-counters.js';
import { showFlows } from './show-flows.js';
import { showLag } from './show-lag.js';
import { showObjects } from './show-objects.js';
import { showPeers } from './show-peers.js';
import { showAlerts, showRecords } from './show-records.js';
import { showRejects } from './show-rejects.js';
import { showRules } from './show-rules.js';
import { showThreads } from './show-threads.js';
import { shutdown } from './shutdown.js';
import { status } from './status.js';

export const COMMANDS: readonly Command[] = [
  status,
  showPeers,
  showRejects,
  showObjects,
  showLag,
  showFlows,
  showRules,
  showThreads,
  showCounters,
  showAlerts,
  showBlocks,
  unblock,
  showRecords,
  memberList,
  memberAdd,
  memberRemove,
  memberEvict,
  join,
  drain,
  restart,
  reload,
  reloadKeys,
  reloadRules,
  reloadRecords,
  save,
  shutdown,
  help,
];
