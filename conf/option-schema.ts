/**
 * The schema of a declared option (options/option.ts): the valid values, and the error messages.
 */

import { z } from 'zod';
import { ADDRESSES_MAX, expandPrefixes, parseSpan, SPAN_PATTERN, type Span } from '../options/addresses.js';
import type { Form, Option, OptionKind, Options, Resolved } from '../options/option.js';
import { exampleOf, parseNumber, patternOf } from '../options/units.js';
import { expected, show } from './messages.js';
import {
  form,
  interfaceName,
  ipv4,
  ipv4Mapping,
  ipv4OrMac,
  ipv6OrMac,
  mac,
  name,
  path,
  powerOfTwo,
  whole,
} from './values.js';

/** Maximum of a number without a maximum of its own. */
const COUNT_MAX = 2 ** 31 - 1;
/** Maximum number of entries of a list of counts. */
const COUNTS_MAX = 1024;
const PREFIXES_MAX = 64;
const MAPPINGS_MAX = 4096;
/** 64 bits, at four bits per character. Shorter secrets can be guessed by trial. */
const SECRET_LENGTH_MIN = 16;

const TYPE_TEXT = 'text (put it in quotes)';

type Declared = Option<OptionKind, unknown>;

/**
 * The schemas of declared options by name, for `z.strictObject`. `structures`: the schemas of
 * options of kind `structure`. Throws if one of them is missing.
 */
export function shapeOf<O extends Options>(
  options: O,
  structures: Readonly<Record<string, z.ZodType>> = {},
): { [Name in keyof O]: z.ZodType<Resolved<O>[Name]> } {
  const shape: Record<string, z.ZodType> = {};
  for (const [key, option] of Object.entries(options)) {
    const schema = option.kind === 'structure' ? structures[key] : valueSchema(option);
    if (schema === undefined) throw new Error(`option ${key}: no schema for its structure`);
    shape[key] = completed(schema, option).describe(option.help);
  }
  return shape as never;
}

function completed(schema: z.ZodType, option: Declared): z.ZodType {
  if (option.default !== undefined) return schema.default(option.default as never);
  return option.optional === true ? schema.optional() : schema;
}

function valueSchema(option: Declared): z.ZodType {
  const { min = 1, max = COUNT_MAX } = option;
  switch (option.kind) {
    case 'port':
      return name();
    case 'addresses':
      return z
        .array(
          span(
            'an IPv4 address such as 192.0.2.1, a network such as 192.0.2.0/28, or a range such as 192.0.2.1-192.0.2.9',
          ),
        )
        .min(1)
        .refine((list) => sizeOf(list) <= ADDRESSES_MAX, {
          error: (issue) => `has ${sizeOf(issue.input as string[])} addresses; at most ${ADDRESSES_MAX} are possible`,
        });
    case 'prefixes':
      return z
        .array(span('an IPv4 network such as 10.0.0.0/8, a range such as 10.0.0.1-10.0.0.9, or an address'))
        .refine((list) => networksOf(list) <= PREFIXES_MAX, {
          error: (issue) => `is ${networksOf(issue.input as string[])} networks; at most ${PREFIXES_MAX} are possible`,
        });
    case 'mappings':
      return z.array(ipv4Mapping()).max(MAPPINGS_MAX);
    case 'count':
    case 'seconds':
      if (option.powerOfTwo === true) return powerOfTwo(min, max);
      return option.unit === undefined || patternOf(option.unit) === null ? whole(min, max) : numberWithUnit(option);
    case 'counts':
      return z
        .array(whole(min, max))
        .min(1)
        .max(option.entries ?? COUNTS_MAX);
    case 'share':
      return z.number().min(min).max(max);
    case 'flag':
      return z.boolean();
    case 'flag-or-count': {
      const number = z.int().min(min).max(max);
      return z.union([z.boolean(), number], { error: expected(`true, false or a whole number from ${min} to ${max}`) });
    }
    case 'choice':
      return z.enum(option.choices ?? []);
    case 'rules':
      return z
        .string({ error: expected('the path of a file, or several lines of text') })
        .min(1, { error: expected('the path of a file, or several lines of text') });
    case 'text': {
      const text = z.string({ error: expected(TYPE_TEXT) });
      return option.max === undefined ? text : text.min(option.min ?? 0).max(option.max);
    }
    case 'form':
      return formSchema(option.form);
    case 'program':
      return z
        .array(
          z
            .string({ error: expected(TYPE_TEXT) })
            .min(1)
            .max(4096),
        )
        .min(1)
        .max(64);
    case 'structure':
      throw new Error('a structure has a schema of its own');
  }
}

/** A number that may be written with its unit. Its value is in the option's unit. */
function numberWithUnit({ unit, min = 1, max = COUNT_MAX, default: preset }: Declared): z.ZodType {
  const number = { type: 'integer', minimum: min, maximum: max };
  return z
    .any()
    .transform((written: unknown, context): number => {
      const value = parseNumber(unit, written);
      const message = (text: string): never => {
        // This code marks the value as unusable: validate.ts then leaves it out of further checks.
        context.issues.push({
          code: 'invalid_format',
          format: 'number with a unit',
          input: String(written),
          message: text,
        });
        return z.NEVER;
      };
      if (value === null) return message(expected(exampleOf(unit))({ input: written } as never));
      const shown = typeof written === 'number' ? String(written) : `${show(written)} (${value})`;
      if (value < min) return message(`must be at least ${min}, not ${shown}`);
      if (value > max) return message(`must be at most ${max}, not ${shown}`);
      return value;
    })
    .meta({
      anyOf: [number, { type: 'string', pattern: patternOf(unit) }],
      // Without this, the JSON Schema would lack the default, because a transformation precedes it.
      ...(preset !== undefined && { default: preset }),
    });
}

function span(what: string): z.ZodType<string> {
  return form(SPAN_PATTERN, what).refine((text) => !SPAN.test(text) || typeof parseSpan(text) !== 'string', {
    error: (issue) => String(parseSpan(issue.input as string)),
  });
}

const SPAN = new RegExp(`^${SPAN_PATTERN}$`);

/** The valid entries of a list. Invalid entries have errors of their own. */
function right(list: readonly string[]): string[] {
  return list.filter((text) => typeof text === 'string' && SPAN.test(text) && typeof parseSpan(text) !== 'string');
}

function sizeOf(list: readonly string[]): number {
  return right(list).reduce((sum, text) => {
    const { first, last } = parseSpan(text) as Span;
    return sum + last - first + 1;
  }, 0);
}

function networksOf(list: readonly string[]): number {
  return expandPrefixes(right(list)).length;
}

function formSchema(kind: Form | undefined): z.ZodType {
  switch (kind) {
    case 'ipv4':
      return ipv4();
    case 'mac':
      return mac();
    case 'next-hop':
      return ipv4OrMac();
    case 'next-hop6':
      return ipv6OrMac();
    case 'name':
      return name();
    case 'interface':
      return interfaceName();
    case 'path':
      return path();
    case 'etcd-prefix':
      return z
        .string()
        .regex(/^\/[\x21-\x7e]*$/, { error: expected('a path such as /constellation') })
        .max(200);
    case 'secret':
      return z
        .string({
          error: expected(
            `text of ${SECRET_LENGTH_MIN} characters or more, such as \`openssl rand -hex ${SECRET_LENGTH_MIN}\` prints, in quotes`,
          ),
        })
        .refine((text) => text === '' || text.length >= SECRET_LENGTH_MIN, {
          error: `must have at least ${SECRET_LENGTH_MIN} characters, such as \`openssl rand -hex ${SECRET_LENGTH_MIN}\` prints`,
        });
    default:
      throw new Error('a form that nobody knows');
  }
}
