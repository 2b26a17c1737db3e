// The wire: frames and their parts as one ZMTP frame, and back (docs/reference/frames.md).
import { Unusable, decode, encode } from "./cbor.js";
import { assemble, protectedHeader, sigStructure } from "./event.js";

export const PROTOCOL = 3;
const MAX_PARTS = 1024;

export function pack(frame, ...parts) {
  return Buffer.concat(
    [encode(frame), ...parts].flatMap((piece) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(piece.length);
      return [length, piece];
    }),
  );
}

export function unpack(message) {
  const pieces = [];
  for (let at = 0; at < message.length; ) {
    if (at + 4 > message.length) throw new Unusable("bus.frame", "a length that is cut off");
    const end = at + 4 + message.readUInt32BE(at);
    if (end > message.length || pieces.length > MAX_PARTS) throw new Unusable("bus.frame", "a part that is cut off");
    pieces.push(message.subarray(at + 4, end));
    at = end;
  }
  if (!pieces.length) throw new Unusable("bus.frame", "an empty message");
  const frame = decode(pieces[0], "bus.frame");
  if (typeof frame?.t !== "string") throw new Unusable("bus.frame", "a frame without a kind");
  return { frame, parts: pieces.slice(1) };
}

/** What a client signs to attach. */
export function statement(key, { nonce, broker, name, incarnation, attachment }) {
  const header = protectedHeader(key.keyId);
  const body = encode([nonce, broker, name, incarnation, attachment]);
  return assemble(header, body, key.sign(sigStructure(header, body)));
}
