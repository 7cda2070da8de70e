/** `constellationd --schema`: the configuration's JSON Schema, for editors. */

import { jsonSchema } from '../../conf/schema.js';
import { builtInMiddleboxes } from './middleboxes.js';

/** The schema with all built-in middleboxes, as text. */
export async function schemaText(): Promise<string> {
  return `${JSON.stringify(jsonSchema(await builtInMiddleboxes()), null, 2)}\n`;
}
