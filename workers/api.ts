/** All that a middlebox may import. */
export { DROPPED, type Batch } from './batch.js';
export { NONE } from '../shm/none.js';
export { defineMiddlebox } from './middlebox.js';
export { option } from './options.js';
