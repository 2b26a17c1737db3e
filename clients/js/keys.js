// Keys: Ed25519 for signatures, their X25519 form for links (docs/reference/protocol.md, "Keys").
import { createHash, createPrivateKey, createPublicKey, sign, verify as check } from "node:crypto";

const PRIVATE = Buffer.from("302e020100300506032b657004220420", "hex"); // PKCS 8 and SPKI of RFC 8410, before the 32 bytes
const PUBLIC = Buffer.from("302a300506032b6570032100", "hex");
const P = 2n ** 255n - 19n;
const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

export const sha256 = (...pieces) => {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest();
};

export const keyIdOf = (publicKey) => sha256(publicKey).subarray(0, 16);

/** A source's private key, of its seed of 32 bytes. */
export class SecretKey {
  #key;

  constructor(seed) {
    this.seed = Buffer.from(seed);
    this.#key = createPrivateKey({ key: Buffer.concat([PRIVATE, this.seed]), format: "der", type: "pkcs8" });
    this.public = createPublicKey(this.#key).export({ format: "der", type: "spki" }).subarray(-32);
    this.keyId = keyIdOf(this.public);
  }

  sign(message) {
    return sign(null, message, this.#key);
  }

  /** The X25519 secret: the first half of SHA-512 of the seed, clamped (RFC 7748, 5). */
  linkSecret() {
    const secret = createHash("sha512").update(this.seed).digest().subarray(0, 32);
    secret[0] &= 248;
    secret[31] = (secret[31] & 127) | 64;
    return secret;
  }
}

const modulo = (value) => ((value % P) + P) % P;

function inverse(value) {
  let [result, base, left] = [1n, modulo(value), P - 2n];
  for (; left > 0n; left >>= 1n, base = modulo(base * base)) if (left & 1n) result = modulo(result * base);
  return result;
}

/** The X25519 form of an Ed25519 public key: u = (1 + y) / (1 - y), little-endian. */
export function linkKey(publicKey) {
  const y = BigInt(`0x${Buffer.from(publicKey).reverse().toString("hex")}`) & (2n ** 255n - 1n);
  const u = modulo((1n + y) * inverse(1n - y));
  return Buffer.from(u.toString(16).padStart(64, "0"), "hex").reverse();
}

export function verify(publicKey, message, signature) {
  if (signature.length !== 64) return false;
  const key = createPublicKey({ key: Buffer.concat([PUBLIC, publicKey]), format: "der", type: "spki" });
  return check(null, message, key, signature);
}

/** Bytes as ZeroMQ writes keys (rfc.zeromq.org/spec/32). */
export function z85(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4) {
    const value = bytes.readUInt32BE(at);
    for (let power = 85 ** 4; power >= 1; power /= 85) text += Z85[Math.floor(value / power) % 85];
  }
  return text;
}
