// The test vectors, which dsmt's own code has made, as this client reads and writes them: `npm test`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decode, encode } from "./cbor.js";
import { decodePart, openEnvelope, rootOf, seal } from "./event.js";
import { covers, matches, mayWrite } from "./grants.js";
import { SecretKey, keyIdOf, linkKey, verify } from "./keys.js";
import { EventSigner } from "./signer.js";
import { Trust, readCertificate } from "./trust.js";
import { PROTOCOL, pack, statement, unpack } from "./wire.js";

/** A value of a vector: bytes stand as {"hex"}, large integers as {"int"}. */
function told(value) {
  if (Array.isArray(value)) return value.map(told);
  if (value === null || typeof value !== "object") return value;
  if ("hex" in value) return Buffer.from(value.hex, "hex");
  if ("int" in value) return BigInt(value.int);
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, told(one)]));
}

const vectors = (name) => told(JSON.parse(readFileSync(new URL(`../../tests/vectors/${name}.json`, import.meta.url))));
const [KEYS, CERTIFICATES, EVENTS, BURSTS, GRANTS] = ["keys", "certificates", "events", "bursts", "grants"].map(vectors);
const PROGRAM = new SecretKey(KEYS[2].seed);

function trust() {
  const made = new Trust(CERTIFICATES.realm, [CERTIFICATES.root]);
  assert.deepEqual(made.addAll(CERTIFICATES.chain), []);
  return made;
}

const only = (events) => events.map(({ name, refused }) => [name, refused?.code ?? null]);
const fieldsOf = ({ leaf, keyId, timeMs, name, refused, ...fields }) => fields;

/** The code with which every event of a part is refused. */
function codeOf(part) {
  try {
    const codes = new Set(trust().open(part).map((event) => event.refused?.code ?? "believed"));
    return [...codes].join(" ");
  } catch (error) {
    return error.code ?? String(error);
  }
}

test("keys, their ids and their forms for links", () => {
  for (const one of KEYS) {
    const key = new SecretKey(one.seed);
    assert.deepEqual(key.public, one.public);
    assert.deepEqual(keyIdOf(one.public), one.key_id);
    assert.deepEqual([key.linkSecret(), linkKey(one.public)], [one.link_secret, one.link_public]);
    assert.deepEqual(key.sign(one.message), one.signature);
    assert.equal(verify(one.public, one.message, one.signature), true);
    assert.equal(verify(one.public, Buffer.from("another"), one.signature), false);
  }
});

test("certificates up to the root, and those that are not good", () => {
  CERTIFICATES.chain.forEach((raw, at) => {
    const [one, claims] = [readCertificate(raw), CERTIFICATES.claims[at]];
    assert.deepEqual([one.subject, one.issuer, one.keyId], [claims.subject, claims.issuer, claims.key_id]);
    assert.deepEqual([one.publish, one.read, one.depth], [claims.publish, claims.read, claims.depth]);
    assert.deepEqual([one.notBefore, one.notAfter, one.quota], [claims.not_before, claims.not_after, claims.quota]);
  });
  for (const one of CERTIFICATES.refused) {
    assert.throws(() => trust().add(one.certificate), { code: one.code }, one.what);
  }
});

test("events alone: read, verified, and written again byte for byte", () => {
  for (const one of EVENTS.good) {
    const { signed, leaf } = openEnvelope(one.event);
    assert.deepEqual([signed, leaf], [one.signed, one.leaf]);
    const [event] = trust().open(one.event);
    assert.equal(event.refused, null);
    assert.deepEqual(fieldsOf(event), one.fields);
    assert.deepEqual(encode(one.fields), one.payload);
    assert.deepEqual(seal([one.payload], PROGRAM), [one.event]);
  }
  for (const one of EVENTS.refused) assert.equal(codeOf(one.part), one.code, one.what);
});

test("bursts: alone with their paths, as runs whole and in part", () => {
  for (const { events, alone, run, root, without_the_second: some } of BURSTS.good) {
    const names = events.map(({ fields }) => [`${fields.source}#${fields.id.join("-")}`, null]);
    assert.deepEqual(rootOf(events.map(({ leaf }) => leaf)), root);
    assert.deepEqual(only(alone.flatMap((part) => trust().open(part))), names);
    assert.deepEqual(only(run.flatMap((part) => trust().open(part))), names);
    assert.deepEqual(only(some.flatMap((part) => trust().open(part))), names.filter((_, at) => at !== 1));
    assert.deepEqual(decodePart(run[0]).events.map(({ leaf }) => leaf), events.map(({ leaf }) => leaf));
    assert.deepEqual(seal(events.map(({ payload }) => payload), PROGRAM), run);
  }
  for (const one of BURSTS.refused) assert.equal(codeOf(one.part), one.code, one.what);
});

test("revocations: by whom a key ends, and by whom not", () => {
  const { certificates, event, cases } = vectors("revocations");
  for (const one of cases) {
    const made = trust();
    assert.deepEqual(made.addAll(certificates), []);
    one.revocations.flatMap((part) => made.open(part)).forEach((revocation) => {
      assert.equal(revocation.refused, null, one.what);
      made.revoke(revocation);
    });
    assert.equal(made.open(event)[0].refused?.code ?? "", one.code, one.what);
    const shortly = trust();
    assert.deepEqual(shortly.addAll(certificates), []);
    one.revocations.flatMap((part) => shortly.open(part)).forEach((revocation) => shortly.revoke({ ...revocation, ttl: 1000 }));
    assert.equal(shortly.open(event)[0].refused, null, "what has a time to live ends no key for good");
  }
});

test("what no reader would take is not said, and the next event is numbered as if it had not been", () => {
  const signer = new EventSigner("operator/alice.p1", PROGRAM, 1000, "test", 1000);
  const say = (data) => signer.say({ topic: "user/greeting", data }, 1000);
  assert.throws(() => say({ text: "x".repeat(70_000) }), { code: "event.too_big" });
  for (const data of [{ n: NaN }, { n: undefined }, [1], null]) assert.throws(() => say(data), { code: "event.form" });
  assert.equal(say({ text: "hello" }), 2);
  const [started, greeting] = signer.sealed().flatMap((part) => decodePart(part).events);
  assert.deepEqual([started.id[1], greeting.id[1], greeting.chain[0]], [1, 2, 1]);
});

test("the attach statement", () => {
  const one = vectors("attach");
  assert.deepEqual(statement(PROGRAM, one), one.statement);
});

test("frames, as maps and as messages", () => {
  for (const one of vectors("frames")) {
    assert.deepEqual(unpack(one.message), { frame: one.frame, parts: one.parts });
    assert.deepEqual(decode(one.map), one.frame);
    assert.deepEqual(unpack(pack(one.frame, ...one.parts)), { frame: one.frame, parts: one.parts });
  }
  assert.equal(vectors("frames").find(({ frame }) => frame.t === "hello").frame.protocol, PROTOCOL);
  assert.throws(() => unpack(Buffer.from("00000009a1", "hex")), { code: "bus.frame" });
});

test("patterns and grants", () => {
  for (const [pattern, topic, expected] of GRANTS.matches) assert.equal(matches(pattern, topic), expected, `${pattern} ${topic}`);
  for (const [wide, narrow, expected] of GRANTS.covers) assert.equal(covers(wide, narrow), expected, `${wide} ${narrow}`);
  for (const [name, topic, expected] of GRANTS.may_write) assert.equal(mayWrite(name, topic), expected, `${name} ${topic}`);
});
