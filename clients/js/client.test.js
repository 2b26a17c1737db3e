// The client, at a broker that a test plays: `npm test`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Client } from "./client.js";
import { SecretKey } from "./keys.js";
import { Link } from "./link.js";
import { EventSigner } from "./signer.js";
import { readCertificate } from "./trust.js";
import { pack, unpack } from "./wire.js";

const told = (_, value) => (typeof value?.hex === "string" ? Buffer.from(value.hex, "hex") : value);
const vectors = (name) => JSON.parse(readFileSync(new URL(`../../tests/vectors/${name}.json`, import.meta.url)), told);
const [KEYS, CERTIFICATES] = ["keys", "certificates"].map(vectors);
const KEY = new SecretKey(KEYS[2].seed);
const CHAIN = CERTIFICATES.chain.filter((raw) => readCertificate(raw).keyId.equals(KEY.keyId)).concat(CERTIFICATES.chain);
const NAME = readCertificate(CHAIN[0]).subject;
const NOW_MS = readCertificate(CHAIN[0]).notBefore * 1000 + 60_000;
const TOPIC = "user/greeting";

/** A broker that lets the client in; what it was sent, and how it tells it something. */
class Broker {
  sent = [];
  /** Whether it tells all that was revoked at once. */
  all = true;
  #link = { onMessage: () => {}, onClosed: () => {}, send: (message) => this.#came(message), close: (why) => this.#ends(why) };

  async open() {
    return this.#link;
  }

  tell(frame, ...parts) {
    this.#link.onMessage(pack(frame, ...parts));
  }

  of(kind) {
    return this.sent.filter(({ frame }) => frame.t === kind);
  }

  #came(message) {
    const { frame, parts } = unpack(message);
    this.sent.push({ frame, parts });
    const granted = { broker: "broker/b1", incarnation: 1000, attachment: 1, nonce: Buffer.alloc(16), store: "s" };
    const answer = {
      time: { t: "timeis", sent: frame.sent, realm_ms: NOW_MS },
      hello: { t: "welcome", ...granted, realm_ms: NOW_MS },
      attach: { t: "revocations", all: this.all },
    }[frame.t];
    if (answer) queueMicrotask(() => this.tell(answer));
  }

  #ends(why) {
    const tell = this.#link.onClosed;
    this.#link.onClosed = () => {};
    tell(why);
  }
}

async function attached(t, broker = new Broker()) {
  const open = Link.open;
  Link.open = () => broker.open();
  t.after(() => (Link.open = open));
  const realm = { name: CERTIFICATES.realm, roots: [CERTIFICATES.root], brokers: [{ address: "127.0.0.1:1", public: KEY.public }] };
  const client = await Client.attach(realm, { key: KEY, chain: CHAIN, name: NAME });
  t.after(() => client.close());
  return { broker, client };
}

/** One event of the client's own source, in an incarnation. */
function said(incarnation, data) {
  return saidInARow(incarnation, 1, data)[0];
}

/** So many events, each sealed by itself. */
function saidInARow(incarnation, count, data) {
  const signer = new EventSigner(NAME, KEY, incarnation, "test", NOW_MS);
  signer.sealed();
  return Array.from({ length: count }, (_, i) => {
    signer.say({ topic: TOPIC, data: data ?? { n: i + 1 } }, NOW_MS);
    return signer.sealed()[0];
  });
}

test("each incarnation of a source is a chain of its own: what comes late of an earlier one is told, and once", async (t) => {
  const [{ broker, client }, got] = [await attached(t), []];
  client.subscribe([TOPIC], ({ event, refused }) => got.push(refused?.code ?? event.data.n));
  for (const [row, incarnation] of [2000, 1500, 3000, 1500, 2000].entries()) {
    broker.tell({ t: "deliver", id: 1, rows: [row + 1], live: true }, said(incarnation, { n: incarnation }));
  }
  assert.deepEqual(got, [2000, 1500, 3000]);
});

test("what comes late is told once, also what is before the first that came, of which nothing is a gap", async (t) => {
  const [{ broker, client }, got] = [await attached(t), []];
  client.subscribe([TOPIC], ({ event, gap }) => got.push(gap ? [gap.after, gap.before] : event.data.n));
  const run = saidInARow(2000, 7);
  for (const [row, n] of [3, 7, 2, 5, 1, 2, 3, 4, 6, 5].entries()) {
    broker.tell({ t: "deliver", id: 1, rows: [row + 1], live: true }, run[n - 1]);
  }
  assert.deepEqual(got, [3, [3, 7], 7, 2, 5, 1, 4, 6]);
});

test("a delivery with more rows than events, or fewer, ends the link", async (t) => {
  for (const rows of [[1, 2], []]) {
    const { broker, client } = await attached(t);
    client.subscribe([TOPIC], () => {});
    broker.tell({ t: "deliver", id: 1, rows, live: true }, said(2000, {}));
    assert.match((await client.closed).message, new RegExp(`sent 1 events for ${rows.length} rows`));
  }
});

test("what the broker misses is sent again, and what was let go of is told to be gone", async (t) => {
  const { broker, client } = await attached(t);
  const answered = [1, 2].map((n) => client.publish({ topic: TOPIC, data: { n } }));
  await Promise.resolve();
  const ack = { level: "stored", copies: 1, synced: false, store: "s", row: 2, time_ms: NOW_MS };
  broker.tell({ t: "acked", ranges: [[NAME, 1000, 1, 3]], ...ack });
  await Promise.all(answered);
  client.publish({ topic: TOPIC, data: { n: 3 } }).catch(() => {});
  await Promise.resolve();
  const before = broker.of("publish").length;
  broker.tell({ t: "missing", incarnation: 1000, ranges: [[2, 4]] });
  assert.equal(broker.of("publish").length, before + 1);
  assert.deepEqual(broker.of("gone").map(({ frame }) => frame.ranges), [[[2, 2], [3, 3]]]);
});

test("of what the broker misses, and nobody has, each frame tells no more than a broker takes", async (t) => {
  const { broker } = await attached(t);
  broker.tell({ t: "missing", incarnation: 1000, ranges: [[10, 139]] });
  assert.deepEqual(broker.of("gone").map(({ frame }) => frame.ranges.length), [64, 64, 2]);
});

test("an answer to another source, or to an earlier process of this one, answers nothing", async (t) => {
  const [{ broker, client }, answers] = [await attached(t), []];
  client.publish({ topic: TOPIC, data: {} }).then((ack) => answers.push(ack.row));
  const ack = (row, ...range) => broker.tell({ t: "acked", ranges: [[...range, 1, 9]], level: "stored", row });
  ack(1, NAME, 999);
  ack(2, `${NAME}.x7`, 1000);
  ack(3, NAME, 1000);
  await new Promise(setImmediate);
  assert.deepEqual(answers, [3]);
});

test("no more is said than a broker may have to answer at once", async (t) => {
  const { client } = await attached(t);
  for (let n = 0; n < 4096; n += 1) client.publish({ topic: TOPIC, data: { n } }).catch(() => {});
  assert.throws(() => client.publish({ topic: TOPIC, data: {} }), { code: "bus.window" });
});

test("a broker is told what was read of it before it has given all that it may", async (t) => {
  const { broker, client } = await attached(t);
  client.subscribe([TOPIC], () => {});
  const parts = saidInARow(2000, 10, { text: "x".repeat(60_000) });
  for (const [row, part] of parts.entries()) broker.tell({ t: "deliver", id: 1, rows: [row + 1], live: true }, part);
  const bytes = parts.slice(0, 9).reduce((sum, part) => sum + part.length, 0);
  assert.deepEqual(broker.of("consumed").map(({ frame }) => [frame.id, frame.count]), [[1, bytes]]);
});

test("who attaches waits until all is told that was revoked", async (t) => {
  const broker = Object.assign(new Broker(), { all: false });
  let there = false;
  const attaching = attached(t, broker).then(() => (there = true));
  while (!broker.of("attach").length) await new Promise(setImmediate);
  for (let n = 0; n < 10; n += 1) await new Promise(setImmediate);
  assert.equal(there, false);
  broker.tell({ t: "revocations", all: true });
  await attaching;
});

test("a broker that asks whether the client lives is answered, and one that answers is not", async (t) => {
  const { broker } = await attached(t);
  for (const asks of [false, true]) broker.tell({ t: "keepalive", asks });
  assert.equal(broker.of("keepalive").length, 1);
});

test("whose key a followed event ends is not heard any more, nor in what is delivered with it", async (t) => {
  const { certificates, event, cases } = vectors("revocations");
  for (const { revocations, code, what } of cases) {
    const [{ broker, client }, got] = [await attached(t), []];
    broker.tell({ t: "certificates" }, ...certificates);
    client.subscribe(["**"], (one) => got.push(one));
    const parts = [...revocations, event];
    broker.tell({ t: "deliver", id: 1, rows: parts.map((_, at) => at + 1), live: true }, ...parts);
    assert.deepEqual(got.map((one) => one.refused?.code ?? ""), [...revocations.map(() => ""), code], what);
  }
});
