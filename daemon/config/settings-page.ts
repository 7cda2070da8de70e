/**
 * `constellationd --settings`: docs/settings.md, generated from the declarations of all options.
 */

import { CHAIN_REASON } from '../../conf/changes.js';
import type { MiddleboxDeclaration } from '../../conf/middleboxes.js';
import { type ChangeKind, changeOf, type Option, type OptionKind, type Options } from '../../options/option.js';
import { ALL_SECTIONS } from '../../options/sections.js';
import { exampleOf, patternOf, showNumber } from '../../options/units.js';
import { builtInMiddleboxes } from './middleboxes.js';

type Declared = Option<OptionKind, unknown>;

const HEAD = `# Settings

This page is generated from the declarations of the options (\`npm run settings\`). \`constellationd --check\` checks a
configuration against them, and \`constellationd --schema\` prints them as a JSON Schema for editors.

A number with a unit can be written with it: times as \`200ms\`, \`30s\`, \`5m\`, \`2h\`; sizes as \`64KiB\`, \`256MiB\`; rates as
\`500k\`, \`10M\`, \`1G\` bits a second. A list of addresses can hold addresses, networks (\`192.0.2.0/28\`: all sixteen
addresses) and ranges (\`192.0.2.1-192.0.2.9\`).

**Change** says how a changed value takes effect:

| change | meaning |
| --- | --- |
| hot | \`constellation reload\` applies it at once, and nothing is lost |
| rolling | at the next start of the instance; the sites can restart one after another. If it says what is lost, that waits for \`constellation join lossy\` |
| all sites | at the next start, and members with different values do not work together: the reason is given |
`;

/** The whole page. */
export async function settingsText(): Promise<string> {
  return settingsPage(await builtInMiddleboxes());
}

function settingsPage(declarations: readonly MiddleboxDeclaration[]): string {
  const sections = ALL_SECTIONS.map(({ path, when, help, options }) => {
    const place = path.length === 0 ? 'At the top' : `\`${path.join('.')}\``;
    return table(`${place}${when === undefined ? '' : `, with \`${when}\``}`, help, options);
  });
  const middleboxes = declarations.map(({ name, help, options }) => table(`Middlebox \`${name}\``, help, options));
  return [HEAD, agreedTable(declarations), ...sections, ...middleboxes].join('\n');
}

/** All options that must agree at all sites, with the reasons. */
function agreedTable(declarations: readonly MiddleboxDeclaration[]): string {
  const places = [
    ...ALL_SECTIONS.map(({ path, options }) => ({ place: path, options })),
    ...declarations.map(({ name, options }) => ({ place: ['middleboxes', name], options })),
  ];
  const rows = places.flatMap(({ place, options }) =>
    Object.entries(options).flatMap(([name, option]) => {
      const { kind, reason = '' } = changeOf(option);
      return kind === 'all-sites' ? [`| \`${[...place, name].join('.')}\` | ${escaped(reason)} |`] : [];
    }),
  );
  return [
    '## The same at all sites',
    '',
    'Members tell each other their values of these options. If one differs, the log, `constellation status` and',
    '`constellation join` name the option and both values.',
    '',
    '| option | why |',
    '| --- | --- |',
    `| \`middleboxes\` | ${CHAIN_REASON} |`,
    ...rows,
    '',
  ].join('\n');
}

function table(title: string, help: string, options: Options): string {
  const rows = Object.entries(options).map(([name, option]) =>
    [`\`${name}\``, valuesOf(option), presetOf(option), effectOf(option), option.help].map(escaped).join(' | '),
  );
  const head = ['option', 'values', 'default', 'change', 'meaning'];
  return [
    `## ${title}`,
    '',
    help,
    '',
    `| ${head.join(' | ')} |`,
    `| ${head.map(() => '---').join(' | ')} |`,
    ...rows.map((row) => `| ${row} |`),
    '',
  ].join('\n');
}

function escaped(text: string): string {
  return text.replaceAll('|', '\\|');
}

const TYPES: Readonly<Record<OptionKind, string>> = {
  port: 'name of a port',
  addresses: 'list of addresses',
  prefixes: 'list of networks',
  mappings: 'list of mappings',
  count: 'whole number',
  counts: 'list of whole numbers',
  seconds: 'time',
  share: 'number from 0 to 1',
  flag: 'true, false',
  'flag-or-count': 'true, false, or a number',
  choice: '',
  text: 'text',
  form: 'text',
  program: 'list: program and arguments',
  rules: 'path of a file, or several lines',
  structure: '',
};

const FORMS: Readonly<Record<NonNullable<Declared['form']>, string>> = {
  ipv4: 'IPv4 address',
  mac: 'MAC address',
  'next-hop': 'IPv4 or MAC address',
  'next-hop6': 'IPv6 or MAC address',
  name: 'name',
  interface: 'interface',
  path: 'path',
  secret: 'text of 16 characters or more',
  'etcd-prefix': 'path in etcd',
};

function valuesOf(option: Declared): string {
  const { kind, unit, min, max, choices, form, powerOfTwo } = option;
  if (choices !== undefined) return choices.join(', ');
  if (form !== undefined) return FORMS[form];
  if (kind === 'structure') return 'list or mapping';
  if (kind !== 'count' && kind !== 'seconds' && kind !== 'counts' && kind !== 'flag-or-count') return TYPES[kind];
  const what =
    powerOfTwo === true
      ? 'power of two'
      : unit !== undefined && patternOf(unit) !== null
        ? unitName(option)
        : TYPES[kind];
  const limits = [min, max].map((limit) => (limit === undefined ? null : showNumber(unit, limit)));
  if (limits[1] === null) return limits[0] === null ? what : `${what}, ${limits[0]} or more`;
  return `${what}, ${limits[0] ?? 0} to ${limits[1]}`;
}

function unitName({ unit }: Declared): string {
  return /^a (\w+)/.exec(exampleOf(unit))?.[1] ?? 'whole number';
}

function presetOf({ default: preset, optional, unit, kind }: Declared): string {
  if (preset === undefined) return optional === true || kind === 'structure' ? '–' : 'required';
  if (typeof preset === 'number') return `\`${showNumber(unit, preset).replace(' ', ' ')}\``;
  if (Array.isArray(preset)) return preset.length === 0 ? 'none' : `\`[${preset.join(', ')}]\``;
  return preset === '' ? 'none' : `\`${String(preset)}\``;
}

const KINDS: Readonly<Record<ChangeKind, string>> = { hot: 'hot', rolling: 'rolling', 'all-sites': 'all sites' };

function effectOf(option: Declared): string {
  const { kind, reason, loses } = changeOf(option);
  if (loses !== undefined) return `${KINDS[kind]}; if it is reduced, ${loses} are lost`;
  return reason === undefined ? KINDS[kind] : `${KINDS[kind]}: ${reason}`;
}
