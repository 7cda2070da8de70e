/**
 * Checks the content of a file against the schema and against itself, and finds all problems in one
 * run. Sections are checked one by one, and the checks across settings run on all parts that are
 * valid by themselves.
 */

import { z } from 'zod';
import { FORMER_NAMES } from '../options/sections.js';
import { crossChecks, type Draft, type Host } from './cross-checks.js';
import { explain, oneOf, show } from './messages.js';
import type { MiddleboxDeclaration } from './middleboxes.js';
import type { Path, Problem } from './problem.js';
import { type Driver, type SectionName, sections, type WrittenConfig } from './schema.js';
import { suggestion } from './suggest.js';

type Validated =
  | { readonly written: WrittenConfig; readonly problems?: undefined }
  | { readonly problems: Problem[]; readonly written?: undefined };

/**
 * What was found instead of a mapping. The value is not shown: it may be a secret from a file that
 * was named by mistake.
 */
function kindOf(value: unknown): string {
  return Array.isArray(value) ? 'a list' : typeof value === 'string' ? 'a text' : `a ${typeof value}`;
}

/** `value` is the content of the YAML. */
export function validate(value: unknown, declarations: readonly MiddleboxDeclaration[], host: Host): Validated {
  if (!isMapping(value)) {
    const what = value === null || value === undefined ? 'the file is empty' : `this is ${kindOf(value)}`;
    return { problems: [{ path: [], at: 'value', message: `expected a mapping with the configuration; ${what}` }] };
  }
  const schemas = sections(declarations, driverOf(value));
  const problems: Problem[] = [];
  const draft: Record<string, unknown> = {};
  for (const key of Object.keys(value)) if (!Object.hasOwn(schemas, key)) problems.push(unknownKey([], key, schemas));
  for (const section of Object.keys(schemas) as SectionName[]) {
    // A section whose settings are all commented out is treated as empty.
    const { content, former } = withPresentNames(section, value[section] ?? undefined);
    const result = schemas[section].safeParse(content, { error: explain });
    if (result.success) {
      draft[section] = result.data;
    } else {
      problems.push(
        ...result.error.issues
          .flatMap((issue) => toProblems(issue, section, schemas[section]))
          .map((problem) => withFormerName(problem, former)),
      );
      draft[section] = prune(content, result.error.issues);
    }
  }
  problems.push(...crossChecks(draft as Draft, declarations, host));
  return problems.length > 0 ? { problems } : { written: draft as unknown as WrittenConfig };
}

/** A section under the present names of its options, and the former names that the file has. */
function withPresentNames(section: string, value: unknown): { content: unknown; former: ReadonlyMap<string, string> } {
  const former = new Map<string, string>();
  if (!isMapping(value) || !Object.hasOwn(FORMER_NAMES, section)) return { content: value, former };
  const content = { ...value };
  for (const [old, present] of Object.entries(FORMER_NAMES[section])) {
    if (!Object.hasOwn(content, old) || Object.hasOwn(content, present)) continue;
    content[present] = content[old];
    delete content[old];
    former.set(present, old);
  }
  return { content, former };
}

/** The problem at the name that the file has. */
function withFormerName(problem: Problem, former: ReadonlyMap<string, string>): Problem {
  const [section, option, ...rest] = problem.path;
  const old = former.get(String(option));
  return old === undefined ? problem : { ...problem, path: [section, old, ...rest] };
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Which form the ports must have. If the driver itself is wrong, the form that they seem to have.
 */
function driverOf(value: Record<string, unknown>): Driver {
  const io = value['packet_io'];
  if (isMapping(io) && (io['driver'] === 'pcap' || io['driver'] === 'af_xdp')) return io['driver'];
  const ports = isMapping(value['ports']) ? Object.values(value['ports']) : [];
  const isFile = (port: unknown) =>
    isMapping(port) && ('mac' in port || 'in' in port || 'out' in port) && !('interface' in port);
  return isMapping(io) && ports.some(isFile) ? 'pcap' : 'af_xdp';
}

function toProblems(issue: z.core.$ZodIssue, section: SectionName, schema: z.ZodType): Problem[] {
  const path = [section, ...(issue.path as (string | number)[])];
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, issue.path as Path);
    return issue.keys.map((key) => unknownKey(path, key, known));
  }
  if (issue.code === 'invalid_key') {
    return [{ path, at: 'key', message: issue.issues[0]?.message ?? issue.message }];
  }
  return [{ path, at: 'value', message: issue.message }];
}

function unknownKey(path: Path, key: string, known: Readonly<Record<string, unknown>>): Problem {
  const names = Object.keys(known);
  const hint = suggestion(key, names) || `; known here: ${oneOf(names)}`;
  return { path: [...path, key], at: 'key', message: `unknown setting ${show(key)}${hint}` };
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly additionalProperties?: SchemaNode | boolean;
  readonly items?: SchemaNode;
  readonly anyOf?: readonly SchemaNode[];
  readonly oneOf?: readonly SchemaNode[];
}

/**
 * The keys that a schema knows at a path. Called only after an error, so its cost does not matter.
 */
function keysAt(schema: z.ZodType, path: Path): Readonly<Record<string, unknown>> {
  let nodes = [z.toJSONSchema(schema, { io: 'input' }) as SchemaNode];
  for (const step of path) nodes = alternatives(nodes).flatMap((node) => child(node, step));
  return Object.assign({}, ...alternatives(nodes).map((node) => node.properties ?? {}));
}

function child(node: SchemaNode, step: Path[number]): SchemaNode[] {
  if (typeof step === 'number') return node.items === undefined ? [] : [node.items];
  const named = node.properties?.[step] ?? node.additionalProperties;
  return typeof named === 'object' ? [named] : [];
}

function alternatives(nodes: readonly SchemaNode[]): SchemaNode[] {
  return nodes.flatMap((node) => {
    const choices = node.anyOf ?? node.oneOf;
    return choices === undefined ? [node] : alternatives(choices);
  });
}

/**
 * A copy without the values that the issues point at, so that everything left has the right type.
 * List entries keep their index.
 */
function prune(value: unknown, issues: readonly z.core.$ZodIssue[]): unknown {
  let copy = structuredClone(value);
  for (const issue of issues) {
    if (issue.code === 'unrecognized_keys' || issue.code === 'custom') continue;
    // A list or mapping of the wrong size still has entries worth checking.
    if ((issue.code === 'too_small' || issue.code === 'too_big') && issue.origin === 'array') continue;
    const last = issue.path.at(-1);
    if (last === undefined) {
      copy = undefined;
      continue;
    }
    let parent: unknown = copy;
    for (const step of issue.path.slice(0, -1)) parent = (parent as Record<PropertyKey, unknown> | undefined)?.[step];
    if (typeof parent === 'object' && parent !== null) (parent as Record<PropertyKey, unknown>)[last] = undefined;
  }
  return copy;
}
