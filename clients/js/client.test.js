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
      attach: { t: "revocations", all: true },
    }[frame.t];
    if (answer) queueMicrotask(() => this.tell(answer));
  }

  #ends(why) {
    const tell = this.#link.onClosed;
    this.#link.onClosed = () => {};
    tell(why);
  }
}

async function attached(t) {
  const [broker, open] = [new Broker(), Link.open];
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

test("a delivery with more rows than events ends the link", async (t) => {
  const { broker, client } = await attached(t);
  client.subscribe([TOPIC], () => {});
  broker.tell({ t: "deliver", id: 1, rows: [1, 2], live: true }, said(2000, {}));
  assert.match((await client.closed).message, /sent 1 events for 2 rows/);
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
