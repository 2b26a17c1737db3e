// Grants: topics, patterns, who may write where (docs/reference/protocol.md, "Topics and grants").
import { readFileSync } from "node:fs";

const ROWS = JSON.parse(readFileSync(new URL("topics.json", import.meta.url)));
const NAME = String.raw`(?!\.{1,2}(?:/|$))[a-z0-9._-]{1,63}`;
const TOPIC = new RegExp(`^${NAME}(?:/${NAME}){0,15}$`);
const PATTERN = new RegExp(String.raw`^(?:(?:${NAME}|\+)/)*(?:${NAME}|\+)?$`);

export const isTopic = (text) => typeof text === "string" && text.length <= 512 && TOPIC.test(text) && !text.endsWith("\n");
export const isPattern = (text) => text === "/" || (text.length > 0 && text.length <= 512 && PATTERN.test(text));

const levelsOf = (pattern) => (pattern.endsWith("/") ? [pattern.slice(0, -1).split("/"), true] : [pattern.split("/"), false]);

/** Whether a pattern takes a topic. */
export function matches(pattern, topic) {
  if (pattern === "/") return true;
  const [levels, subtree] = levelsOf(pattern);
  const told = topic.split("/");
  if (subtree ? told.length <= levels.length : told.length !== levels.length) return false;
  return levels.every((level, at) => level === "+" || level === told[at]);
}

/** Whether every topic that `narrow` takes is taken by `wide`. */
export function covers(wide, narrow) {
  if (wide === "/") return true;
  if (narrow === "/") return false;
  const [above, wideSubtree] = levelsOf(wide);
  const [below, narrowSubtree] = levelsOf(narrow);
  if (wideSubtree ? below.length < above.length + (narrowSubtree ? 0 : 1) : narrowSubtree || above.length !== below.length) {
    return false;
  }
  return above.every((level, at) => level === "+" || level === below[at]);
}

const compile = (template) =>
  new RegExp(`^${template.replace(/<([a-z]+)(\/?)>/g, (_, name, rest) => `(?<${name}>${rest ? ".+" : "[^/]+"})`)}$`);
const COMPILED = ROWS.map((row) => ({ ...row, pattern: compile(row.topic) }));

/** The first row of the registry that takes a topic, and what its levels are. */
export function lookup(topic) {
  for (const row of COMPILED) {
    const found = row.pattern.exec(topic);
    if (found) return { row, levels: found.groups ?? {} };
  }
  return null;
}

/** Whether the topic's row lets a source of this name write it; its certificate must grant it, too. */
export function mayWrite(name, topic) {
  const found = lookup(topic);
  if (!found) return false;
  const { row, levels } = found;
  if (typeof row.writers === "string") return row.writers.replace(/<([a-z]+)\/?>/g, (_, level) => levels[level]) === name;
  const [role, , service] = name.split("/");
  return row.writers.includes(role) && !(role === "agent" && "service" in levels && levels.service !== service);
}

const LEVELS = { root: 1, issuer: 2, operator: 2, broker: 2, controller: 2, joining: 2, node: 2, monitor: 2, agent: 5 };
export const isSource = (name) => isTopic(name) && LEVELS[name.split("/")[0]] === name.split("/").length;

function mayName(issuer, subject) {
  const [role, ...rest] = issuer.split("/");
  if (role === "operator") return subject.startsWith(`${issuer}.`) || subject.startsWith("joining/");
  if (role === "node") return subject === `monitor/${rest[0]}` || subject.startsWith(`agent/${rest[0]}/`);
  return role === "issuer" && subject.startsWith("node/");
}

const subset = (narrow, wide) => narrow.every((one) => wide.some((other) => covers(other, one)));

/** Whether a certificate stays within its issuer's. */
export function isWithin(below, above) {
  return (
    below.issuer === above.subject &&
    mayName(above.subject, below.subject) &&
    below.depth >= 0 &&
    below.depth < above.depth &&
    subset(below.publish, above.publish) &&
    subset(below.read, above.read) &&
    below.quota <= above.quota &&
    below.notBefore >= above.notBefore &&
    below.notAfter <= above.notAfter
  );
}
