// Events: COSE_Sign1 alone, or members of a burst with one signature (docs/reference/protocol.md, "Events", "Bursts").
import { Unusable, decode, encode } from "./cbor.js";
import { isTopic } from "./grants.js";
import { sha256 } from "./keys.js";

const EDDSA = -8;
const PATH = -70010;
const MAX_EVENT = 64 * 1024;
const MAX_BODY = MAX_EVENT - 1024;
const RUN_EVENTS = 64;
const RUN_BYTES = 16 * 1024;
const ENVELOPE_BYTES = 98;
const MAX_INT = 2n ** 63n - 1n;
export const NO_LEAF = Buffer.alloc(32);

export const protectedHeader = (keyId) => encode(new Map([[1, EDDSA], [4, keyId]]));
export const sigStructure = (header, content) => encode(["Signature1", header, Buffer.alloc(0), content]);
export const leafHash = (header, body) => sha256(Buffer.of(0), header, body);

/** A COSE_Sign1: tag 18, and an array of four. */
export function assemble(header, body, signature, path) {
  const unprotected = new Map(path ? [[PATH, path]] : []);
  return Buffer.concat([Buffer.of(0xd2), encode([header, unprotected, body, signature])]);
}

// --- trees ---------------------------------------------------------------------------------------------------------------

const inner = (left, right) => sha256(Buffer.of(1), left, right);

function rootHash(size, top) {
  const count = Buffer.alloc(8);
  count.writeBigUInt64BE(BigInt(size));
  return sha256(Buffer.of(2), count, top);
}

/** The root of at least one leaf; an odd one goes up as it is. */
export function rootOf(leaves) {
  let level = leaves;
  while (level.length > 1) {
    const above = [];
    for (let at = 0; at < level.length; at += 2) {
      above.push(at + 1 < level.length ? inner(level[at], level[at + 1]) : level[at]);
    }
    level = above;
  }
  return rootHash(leaves.length, level[0]);
}

/** The root that a leaf and its path give. */
function rootByPath(leaf, [place, size, siblings]) {
  let [index, left, node, rest] = [place, size, leaf, [...siblings]];
  for (; left > 1; index >>= 1, left = (left + 1) >> 1) {
    if ((index ^ 1) >= left) continue;
    if (!rest.length) throw new Unusable("event.path", "inclusion path is too short");
    const sibling = rest.shift();
    node = index & 1 ? inner(sibling, node) : inner(node, sibling);
  }
  if (rest.length) throw new Unusable("event.path", "inclusion path is too long");
  return rootHash(size, node);
}

function stepsOf(index, size) {
  let met = 0;
  for (let [at, left] = [index, size]; left > 1; at >>= 1, left = (left + 1) >> 1) met += (at ^ 1) < left ? 1 : 0;
  return met;
}

function isWorthARun(places, size) {
  const absent = size - places.length;
  const paths = places.reduce((sum, place) => sum + stepsOf(place, size), 0);
  return absent === 0 || (absent - paths) * 34 < (places.length - 1) * ENVELOPE_BYTES;
}

// --- reading -------------------------------------------------------------------------------------------------------------

const isBytes = (value, length) => Buffer.isBuffer(value) && (length === undefined || value.length === length);

function keyIdIn(header) {
  const told = decode(header);
  const good = told instanceof Map && told.size === 2 && told.get(1) === EDDSA && isBytes(told.get(4));
  if (!good || !header.equals(protectedHeader(told.get(4)))) {
    throw new Unusable("event.form", "the protected header must hold EdDSA and a key id, nothing else");
  }
  return told.get(4);
}

function isPath(path) {
  if (!Array.isArray(path) || path.length !== 3 || !Array.isArray(path[2])) return false;
  const [index, size, siblings] = path;
  const numbers = Number.isInteger(index) && Number.isInteger(size) && index >= 0 && index < size && size <= 2 ** 20;
  return numbers && siblings.every((one) => isBytes(one, 32));
}

/** A COSE_Sign1 taken apart: header, key id, payload, signature, and what was signed. */
export function openEnvelope(raw) {
  if (raw.length > MAX_EVENT) throw new Unusable("event.too_big", `it has ${raw.length} bytes`);
  if (raw[0] !== 0xd2) throw new Unusable("event.form", "not a tagged COSE_Sign1");
  const outer = decode(raw.subarray(1));
  if (!Array.isArray(outer) || outer.length !== 4) throw new Unusable("event.form", "not a COSE_Sign1 of four parts");
  const [header, unprotected, body, signature] = outer;
  if (![header, body, signature].every((one) => isBytes(one))) throw new Unusable("event.form", "not a COSE_Sign1");
  const labels = unprotected instanceof Map ? [...unprotected.keys()] : Object.keys(unprotected ?? { none: 0 });
  if (labels.length > 1 || (labels.length && labels[0] !== PATH)) {
    throw new Unusable("event.form", "unknown unprotected header");
  }
  const path = labels.length ? unprotected.get(PATH) : undefined;
  if (path && !isPath(path)) throw new Unusable("event.path", "not an inclusion path");
  if (!raw.equals(assemble(header, body, signature, path))) throw new Unusable("event.form", "not deterministic");
  const keyId = keyIdIn(header);
  const leaf = leafHash(header, body);
  const signed = sigStructure(header, path ? rootByPath(leaf, path) : body);
  return { header, keyId, body, signature, leaf, path, signed };
}

/** A part of a message: events, and the one signature that they have. */
export function decodePart(part) {
  if (part[0] === 0x83) return decodeRun(part);
  const { keyId, body, signature, leaf, signed } = openEnvelope(part);
  return { keyId, signature, signed, events: [{ ...eventOf(body), leaf, keyId }] };
}

function decodeRun(part) {
  const told = decode(part);
  const [header, signature, members] = told;
  const good = told.length === 3 && isBytes(header) && isBytes(signature) && Array.isArray(members);
  if (!good || members.length < 2 || members.length > RUN_EVENTS || !members.every((one) => isBytes(one))) {
    throw new Unusable("event.form", "not a run of header, signature and members");
  }
  const places = [...members.keys()].filter((at) => members[at].length !== 32);
  const size = places.reduce((sum, at) => sum + members[at].length, 0);
  if (size > RUN_BYTES) throw new Unusable("event.too_big", `a run has ${size} bytes of payloads`);
  if (!isWorthARun(places, members.length)) throw new Unusable("event.form", "a run of more leaves than is worth it");
  const keyId = keyIdIn(header);
  const leaves = members.map((one) => (one.length === 32 ? one : leafHash(header, one)));
  const events = places.map((at) => ({ ...eventOf(members[at]), leaf: leaves[at], keyId }));
  return { keyId, signature, signed: sigStructure(header, rootOf(leaves)), events };
}

/** How many events a part says to hold, whether they can be used or not: so many rows of a delivery are its own. */
export function eventsIn(part) {
  if (part[0] !== 0x83) return 1;
  try {
    return decode(part)[2].filter((one) => one.length !== 32).length;
  } catch {
    return 1;
  }
}

// --- payloads ------------------------------------------------------------------------------------------------------------

const isWhole = (value) => typeof value === "bigint" || Number.isInteger(value);
const isNumber = (value) => isWhole(value) && value > 0 && BigInt(value) <= MAX_INT;
const isName = (value) => typeof value === "string" && value.length <= 512;
const isShown = (value) => isName(value) && (isTopic(value) || !/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(value));
const isTwo = (value) => Array.isArray(value) && value.length === 2 && value.every(isNumber);
const isId = (value) => Array.isArray(value) && value.length === 3 && isTopic(value[0]) && isTwo(value.slice(1));
const isList = (value, is) => Array.isArray(value) && value.every(is);

function isData(value, depth) {
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value === "bigint") return value >= -MAX_INT && value <= MAX_INT;
  if (value === null || typeof value !== "object" || Buffer.isBuffer(value)) return true;
  return depth > 0 && !(value instanceof Map) && Object.values(value).every((one) => isData(one, depth - 1));
}

const REQUIRED = {
  source: (value) => isName(value) && isTopic(value),
  id: isTwo,
  chain: (value) => isList(value, Boolean) && value.length === 2 && isNumber(value[0]) && isBytes(value[1], 32),
  type: isShown,
  topic: (value) => isName(value) && isTopic(value),
  subject: isShown,
  time: isNumber,
  data: (value) => value !== null && typeof value === "object" && !Array.isArray(value) && isData(value, 64),
};
const OPTIONAL = {
  cause: (value) => isList(value, isId),
  ttl: (value) => isNumber(value) && value <= 2 ** 53,
  to: (value) => isList(value, isTopic),
  epoch: isNumber,
  version: isNumber,
  replaces: isId,
  declares: isTwo,
};

/** The event of a payload. */
export function eventOf(body) {
  const told = decode(body);
  const fault = faultIn(told);
  if (fault) throw new Unusable("event.form", `payload is not an event: ${fault}`);
  return { ...told, timeMs: Number(BigInt(told.time) >> 16n), name: `${told.source}#${told.id.join("-")}` };
}

function faultIn(told) {
  if (told === null || typeof told !== "object" || told instanceof Map) return "not a map";
  const unknown = Object.keys(told).find((key) => !(key in REQUIRED) && !(key in OPTIONAL));
  if (unknown) return `an unknown key ${unknown}`;
  const bad = Object.entries(REQUIRED).find(([key, is]) => !is(told[key]));
  const left = (key) => told[key] === undefined || (told[key] === null && !["cause", "to"].includes(key));
  const odd = Object.entries(OPTIONAL).find(([key, is]) => !left(key) && !is(told[key]));
  if (bad || odd) return `its ${(bad ?? odd)[0]}`;
  if (left("epoch") !== left("version")) return "an epoch without a version, or the other way";
  if (told.chain[0] === 1 && !told.chain[1].equals(NO_LEAF)) return "a first event that links to another";
  return "";
}

// --- writing -------------------------------------------------------------------------------------------------------------

/** A payload that readers take. Throws for one that is too big, or no event. */
export function checked(body) {
  if (body.length > MAX_BODY) throw new Unusable("event.too_big", `it has ${body.length} bytes, and ${MAX_BODY} are the most`);
  eventOf(body);
  return body;
}

/** Prepared payloads in portions that one signature may stand over. */
function portions(bodies) {
  const found = [[]];
  let size = 0;
  for (const body of bodies) {
    if (found.at(-1).length && (found.at(-1).length >= RUN_EVENTS || size + body.length > RUN_BYTES)) {
      found.push([]);
      size = 0;
    }
    found.at(-1).push(body);
    size += body.length;
  }
  return found.filter((portion) => portion.length);
}

/** Payloads as signed parts of a message: each portion of several is one run, with one signature. */
export function seal(bodies, key) {
  const header = protectedHeader(key.keyId);
  return portions(bodies).map((portion) => {
    if (portion.length === 1) return assemble(header, portion[0], key.sign(sigStructure(header, portion[0])));
    const root = rootOf(portion.map((body) => leafHash(header, body)));
    return encode([header, key.sign(sigStructure(header, root)), portion]);
  });
}
