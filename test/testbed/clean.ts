/** `npm run testbed:clean`: removes what killed testbed runs left behind. */

import { sweep } from './sweep.js';

const removed = sweep();
console.log(removed.length === 0 ? 'nothing was left behind' : `removed: ${removed.join(' ')}`);
