// Trust: certificates up to the realm's root, revocations, and what an event's signature is worth.
import { Unusable, decode } from "./cbor.js";
import { decodePart, openEnvelope } from "./event.js";
import { isPattern, isSource, isWithin, matches, mayWrite } from "./grants.js";
import { keyIdOf, verify } from "./keys.js";

const REVOKED = /^trust\/revoked\/([0-9a-f]{32})\/(.+)$/;

/** A certificate taken apart. */
export function readCertificate(raw) {
  if (raw.length > 4096) throw new Unusable("trust.certificate", "a certificate has at most 4096 bytes");
  const envelope = openEnvelope(raw);
  if (envelope.path) throw new Unusable("trust.certificate", "a certificate is signed alone");
  const claims = decode(envelope.body);
  const key = claims instanceof Map ? claims.get(8)?.get?.(1) : undefined;
  if (!key || key.get(1) !== 1 || key.get(-1) !== 6 || key.get(-2)?.length !== 32) {
    throw new Unusable("trust.certificate", "the confirmation key is not an Ed25519 key");
  }
  const [issuer, subject, notAfter, notBefore, issued] = [1, 2, 4, 5, 6].map((label) => claims.get(label));
  const [publish, read, depth, quota] = [-70001, -70002, -70003, -70004].map((label) => claims.get(label));
  const numbers = [notAfter, notBefore, issued, depth, quota].every(Number.isInteger);
  if (!numbers || ![publish, read].every((one) => Array.isArray(one) && one.every(isPattern))) {
    throw new Unusable("trust.certificate", "not a certificate");
  }
  if (!isSource(subject)) throw new Unusable("trust.name", `${subject} is not the name of a source`);
  const told = { issuer, subject, notAfter, notBefore, issued, publish, read, depth, quota };
  const publicKey = key.get(-2);
  return { ...told, public: publicKey, keyId: keyIdOf(publicKey), issuerKeyId: envelope.keyId, raw, envelope };
}

/** What one reader knows about who may say what. */
export class Trust {
  #roots;
  #good = new Map();
  #revoked = new Map();

  constructor(realm, roots) {
    this.realm = realm;
    this.#roots = new Map(roots.map((root) => [keyIdOf(root).toString("hex"), root]));
  }

  #held(keyId) {
    return this.#good.get(keyId.toString("hex")) ?? [];
  }

  #isByRoot(one) {
    return this.#roots.has(one.issuerKeyId.toString("hex"));
  }

  #issuers(one) {
    return this.#isByRoot(one) ? [] : this.#held(one.issuerKeyId).filter((above) => isWithin(one, above));
  }

  /** Take in a certificate whose issuer is known. */
  add(raw) {
    const one = readCertificate(raw);
    const held = this.#held(one.keyId);
    if (held.some((other) => other.raw.equals(raw))) return one;
    const root = this.#roots.get(one.issuerKeyId.toString("hex"));
    if (!root && !this.#held(one.issuerKeyId).length) throw new Unusable("trust.stranger", `${one.subject}: unknown issuer`);
    const issuer = root ?? this.#issuers(one)[0]?.public;
    if (!issuer) throw new Unusable("trust.widened", `the certificate of ${one.subject} goes beyond its issuer's`);
    if (!verify(issuer, one.envelope.signed, one.envelope.signature)) {
      throw new Unusable("trust.signature", `certificate of ${one.subject}: bad signature`);
    }
    this.#good.set(one.keyId.toString("hex"), [one, ...held]);
    return one;
  }

  /** Take in certificates in any order; returns why each that is not good is not. */
  addAll(raws) {
    let left = [...raws];
    for (;;) {
      const errors = [];
      const again = left.filter((raw) => {
        try {
          this.add(raw);
          return false;
        } catch (error) {
          errors.push(error);
          return true;
        }
      });
      if (again.length === left.length || !again.length) return errors;
      left = again;
    }
  }

  // --- revocations -------------------------------------------------------------------------------------------------------

  /** Take in an event that was opened, if it is a revocation. */
  revoke(event) {
    const found = REVOKED.exec(event.topic);
    if (!found || (event.ttl ?? null) !== null || this.#roots.has(found[1])) return;
    const by = this.#revoked.get(found[1]) ?? new Set();
    this.#revoked.set(found[1], by.add(event.keyId.toString("hex")));
  }

  /** Whether a way from a certificate up to the root stands; `by` has revoked one further down on it. */
  #stands(one, by = new Set()) {
    const keyId = one.keyId.toString("hex");
    if (by.has(keyId)) return false;
    const ended = new Set([...by, ...(this.#revoked.get(keyId) ?? [])]);
    if (this.#isByRoot(one)) return ![...ended].some((other) => this.#roots.has(other));
    return this.#issuers(one).some((above) => this.#stands(above, ended));
  }

  // --- events ------------------------------------------------------------------------------------------------------------

  /** The events of a part, each with `refused`: why it may not be used, or null. Throws when none of it can be read. */
  open(part) {
    const told = decodePart(part);
    const held = this.#held(told.keyId);
    if (!held.length) throw new Unusable("trust.stranger", "signed with a key that is unknown here");
    const events = told.events.map((event) => ({ ...event, refused: this.#denied(event, held) }));
    if (events.every((event) => event.refused)) return events;
    if (!verify(held[0].public, told.signed, told.signature)) {
      throw new Unusable("trust.signature", `bad signature on an event of ${events[0].source}`);
    }
    return events;
  }

  #denied(event, held) {
    const known = held.filter((one) => one.subject === event.source);
    if (!known.length) return new Unusable("trust.name", `${held[0].subject} signed as ${event.source}`);
    const own = known.filter((one) => this.#stands(one));
    if (!own.length) return new Unusable("trust.revoked", `${event.source} was revoked`);
    const at = Math.floor(event.timeMs / 1000);
    const valid = own.filter((one) => one.notBefore <= at && at <= one.notAfter);
    if (!valid.length) return new Unusable("trust.expired", `no certificate of ${event.source} was valid then`);
    const granted = valid.some((one) => one.publish.some((pattern) => matches(pattern, event.topic)));
    if (granted && mayWrite(event.source, event.topic)) return null;
    return new Unusable("trust.denied", `${event.source} may not publish ${event.topic}`);
  }
}
