// CBOR as dsmt writes and reads it: deterministic (RFC 8949, 4.2.1) and plain (docs/reference/protocol.md, "CBOR").
import { cdeEncodeOptions, decode as read, encode as write } from "cbor2";

const READING = { rejectDuplicateKeys: true, rejectStreaming: true, rejectBigInts: true };

/** An input of which nothing may be used: `code` says why, in dsmt's words. */
export class Unusable extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const bytesOf = (value) => new Uint8Array(value.buffer, value.byteOffset, value.byteLength);

/** A value with plain Uint8Arrays in the place of Buffers, of which the encoder would make maps. */
function bare(value) {
  if (value instanceof Uint8Array) return bytesOf(value);
  if (Array.isArray(value)) return value.map(bare);
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [key, bare(one)]));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, bare(one)]));
  }
  return value;
}

export const encode = (value) => Buffer.from(write(bare(value), cdeEncodeOptions));

/** A value with Buffers for bytes; throws for a tag, for undefined, and for anything else that is not plain. */
function plain(value, depth) {
  if (depth < 0) throw new Error("too deep");
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "bigint") return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map((one) => plain(one, depth - 1));
  if (value instanceof Map) return new Map([...value].map(([key, one]) => [key, plain(one, depth - 1)]));
  if (Object.getPrototypeOf(value) !== Object.prototype) throw new Error("not a plain value");
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one, depth - 1)]));
}

/** Read one whole value; maps with other keys than text become Maps. */
export function decode(raw, code = "event.form") {
  try {
    return plain(read(bytesOf(raw), READING), 128);
  } catch (error) {
    throw new Unusable(code, `not plain CBOR: ${error.message}`);
  }
}
