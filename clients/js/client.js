// A client: one source's connection to one broker (docs/reference/protocol.md).
import { readFileSync } from "node:fs";
import { Unusable, decode } from "./cbor.js";
import { eventsIn } from "./event.js";
import { SecretKey } from "./keys.js";
import { Link } from "./link.js";
import { EventSigner } from "./signer.js";
import { Trust, readCertificate } from "./trust.js";
import { PROTOCOL, pack, statement, unpack } from "./wire.js";

const VERSION = "js-0.1.0";
const CREDIT = 2 * 1024 * 1024;
const LOOK_MS = 1000;
const QUIET_MS = 2000;
const LOST_MS = 5000;
const MEASURE_MS = 60_000;
const WINDOW = 4096;
const CHAINS = 100_000;
const HOLES = 64;

/** Take a number from what is missing; whether it was. */
function take(missing, number) {
  const at = missing.findIndex(([low, high]) => low <= number && number <= high);
  if (at < 0) return false;
  const [low, high] = missing[at];
  missing.splice(at, 1, ...[[low, number - 1], [number + 1, high]].filter(([a, b]) => a <= b));
  return true;
}

/** What dsmt keeps in an `identity` file: a key, and its certificates up to the root's. */
export function readIdentity(path) {
  const { seed, chain } = decode(readFileSync(path));
  return { key: new SecretKey(seed), chain, name: readCertificate(chain[0]).subject };
}

/** What dsmt keeps in a home's `realm.cbor`: the realm's name, its roots' keys, and its brokers. */
export function readRealm(path) {
  const { name, roots, brokers } = decode(readFileSync(path));
  return { name, roots, brokers: brokers.map(([address, key]) => ({ address, public: key })) };
}

/** An attached client. `onNote` is told what is wrong and ends nothing. */
export class Client {
  #link;
  #offset = 0;
  #subscriptions = new Map();
  #numbers = 0;
  #unanswered = new Map();
  #unacknowledged = new Map();
  #flushing = false;
  #awaited = null;
  #over = null;
  #heard = performance.now();
  #measured = performance.now();

  constructor(realm, identity) {
    Object.assign(this, { realm, identity, onNote: () => {} });
    this.trust = new Trust(realm.name, realm.roots);
    const errors = this.trust.addAll(identity.chain);
    if (errors.length) throw errors[0];
    this.closed = new Promise((resolve) => (this.#end = resolve));
  }

  #end;

  /** Connect to a realm's first broker that answers, and attach. Throws why none could be. */
  static async attach(realm, identity) {
    let failed = new Error(`realm ${realm.name} names no broker`);
    for (const broker of realm.brokers) {
      const client = new Client(realm, identity);
      try {
        await client.#attach(broker);
        return client;
      } catch (error) {
        client.close(error);
        failed = error;
      }
    }
    throw failed;
  }

  async #attach(broker) {
    this.#link = await Link.open(broker, this.identity.key);
    this.#link.onMessage = (message) => this.#message(message);
    this.#link.onClosed = (why) => this.#lost(why);
    for (let round = 0; round < 3; round += 1) {
      this.#ask();
      await this.#expect("timeis");
    }
    const { key, chain, name } = this.identity;
    const hello = { protocol: PROTOCOL, realm: this.realm.name, name, incarnation: 0, firm: false, attachment: 1 };
    this.#send({ t: "hello", ...hello, pid: process.pid, version: VERSION, address: "" }, ...chain);
    const welcome = await this.#expect("welcome");
    this.broker = welcome.broker;
    this.incarnation = welcome.incarnation;
    this.#send({ t: "attach", statement: statement(key, { ...welcome, name }) });
    await this.#expect("revocations");
    this.#signer = new EventSigner(name, key, welcome.incarnation, VERSION, this.nowMs());
    this.#watch = setInterval(() => this.#look(), LOOK_MS);
  }

  #signer;
  #watch;

  /** Realm time in ms. */
  nowMs() {
    return performance.now() + this.#offset;
  }

  // --- saying ------------------------------------------------------------------------------------------------------------

  /**
   * Say something: `{topic, data, ...}`; resolves with the acknowledgement. All that is said in one turn is one burst.
   * Throws for what no reader would take, which is not said then, and when the link has ended.
   */
  publish(draft) {
    if (this.#over) throw this.#over;
    if (this.#unanswered.size >= WINDOW) throw new Unusable("bus.window", `${WINDOW} events are not acknowledged yet: wait`);
    const sequence = this.#signer.say(draft, this.nowMs());
    if (!this.#flushing) {
      this.#flushing = true;
      queueMicrotask(() => this.#flush());
    }
    return new Promise((resolve, reject) => this.#unanswered.set(sequence, { resolve, reject }));
  }

  #flush() {
    this.#flushing = false;
    for (const part of this.#signer.sealed()) {
      for (const { id } of this.trust.open(part)) this.#unacknowledged.set(id[1], part);
      this.#send({ t: "publish" }, part);
    }
  }

  #acked({ ranges, ...ack }) {
    for (const [source, incarnation, first, last] of ranges) {
      if (source !== this.identity.name || incarnation !== this.incarnation) continue;
      for (let sequence = first; sequence <= last; sequence += 1) this.#answer(sequence)?.resolve({ ...ack, sequence });
    }
  }

  #nacked({ source, incarnation, sequence, code, message, next }) {
    if (source !== this.identity.name || incarnation !== this.incarnation) return;
    const error = new Unusable(code, next ? `${message}; next: ${next}` : message);
    const answer = this.#answer(sequence);
    if (answer) answer.reject(error);
    else this.onNote(error);
  }

  #answer(sequence) {
    const found = this.#unanswered.get(sequence);
    this.#unanswered.delete(sequence);
    this.#unacknowledged.delete(sequence);
    return found;
  }

  /** The broker misses some of what was said: it is sent again, and what was let go of is `gone`. */
  #missing({ incarnation, ranges }) {
    const wanted = ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, n) => first + n));
    const parts = new Set(wanted.map((sequence) => this.#unacknowledged.get(sequence)).filter(Boolean));
    for (const part of parts) this.#send({ t: "publish" }, part);
    const gone = wanted.filter((sequence) => !this.#unacknowledged.has(sequence)).map((sequence) => [sequence, sequence]);
    for (let at = 0; at < gone.length; at += 64) this.#send({ t: "gone", incarnation, ranges: gone.slice(at, at + 64) });
  }

  // --- reading -----------------------------------------------------------------------------------------------------------

  /** Follow topics: `tell` is given {event, row, live}, {refused, row}, {gap} and {complete}. */
  subscribe(patterns, tell, { start = "facts" } = {}) {
    if (this.#over) throw this.#over;
    const id = (this.#numbers += 1);
    this.#subscriptions.set(id, { tell, chains: new Map(), taken: 0 });
    this.#send({ t: "subscribe", id, patterns, start, credit: CREDIT });
    return () => {
      this.#subscriptions.delete(id);
      this.#send({ t: "unsubscribe", id });
    };
  }

  #delivered({ id, rows, live }, parts) {
    const subscription = this.#subscriptions.get(id);
    if (!subscription) return;
    let at = 0;
    for (const part of parts) {
      for (const event of this.#opened(part)) {
        const row = rows[at];
        at += 1;
        if (event.refused) subscription.tell({ refused: event.refused, row });
        else this.#read(subscription, event, row, live);
      }
      subscription.taken += part.length;
    }
    if (at !== rows.length) this.close(new Error(`${this.broker} sent ${at} events for ${rows.length} rows`));
    if (subscription.taken >= CREDIT / 4) {
      this.#send({ t: "consumed", id, count: subscription.taken });
      subscription.taken = 0;
    }
  }

  #opened(part) {
    try {
      return this.trust.open(part);
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      return Array.from({ length: eventsIn(part) }, () => ({ refused: error }));
    }
  }

  /** What was read of the chain of an event; it begins with the first that comes, of which nothing before is a gap. */
  #chain({ chains }, event) {
    const line = `${event.source} ${event.topic} ${event.id[0]}`;
    const number = event.chain[0] - 1;
    const chain = chains.get(line) ?? { number, leaf: event.chain[1], missing: number ? [[1, number]] : [] };
    chains.delete(line); // the newest is the last
    chains.set(line, chain);
    if (chains.size > CHAINS) chains.delete(chains.keys().next().value);
    return chain;
  }

  #read(subscription, event, row, live) {
    const number = event.chain[0];
    const chain = this.#chain(subscription, event);
    if (number <= chain.number) {
      if (!take(chain.missing, number)) return; // at least once: it was read
    } else {
      if (number > chain.number + 1) {
        chain.missing.push([chain.number + 1, number - 1]);
        subscription.tell({ gap: { source: event.source, topic: event.topic, after: chain.number, before: number } });
      } else if (!event.chain[1].equals(chain.leaf)) {
        subscription.tell({ refused: new Unusable("event.chain", `${event.source} said two things as one`), row });
      }
      Object.assign(chain, { number, leaf: event.leaf });
    }
    if (chain.missing.length > HOLES) chain.missing.shift();
    this.trust.revoke(event);
    this.#signer.seen(event.time, this.nowMs());
    subscription.tell({ event, row, live });
  }

  // --- the link ----------------------------------------------------------------------------------------------------------

  #send(frame, ...parts) {
    this.#link.send(pack(frame, ...parts));
  }

  /** The next frame of a kind. */
  #expect(kind) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the broker did not answer with ${kind}`)), LOST_MS);
      const settle = (done) => (value) => {
        clearTimeout(timer);
        this.#awaited = null;
        done(value);
      };
      this.#awaited = { kind, resolve: settle(resolve), reject: settle(reject) };
    });
  }

  #message(message) {
    this.#heard = performance.now();
    try {
      const { frame, parts } = unpack(message);
      this.#frame(frame, parts);
      const whole = frame.t !== "revocations" || frame.all;
      if (frame.t === this.#awaited?.kind && whole) this.#awaited.resolve(frame);
    } catch (error) {
      this.close(error);
    }
  }

  #frame(frame, parts) {
    const does = {
      deliver: () => this.#delivered(frame, parts),
      complete: () => this.#subscriptions.get(frame.id)?.tell({ complete: frame }),
      acked: () => this.#acked(frame),
      nacked: () => this.#nacked(frame),
      missing: () => this.#missing(frame),
      welcome: () => this.trust.addAll(parts).forEach((error) => this.onNote(error)),
      certificates: () => this.trust.addAll(parts).forEach((error) => this.onNote(error)),
      revocations: () => parts.forEach((part) => this.#revoked(part)),
      keepalive: () => frame.asks && this.#send({ t: "keepalive" }),
      tally: () => this.#send({ t: "tallied", token: frame.token }),
      measure: () => this.#ask(),
      timeis: () => this.#learn(frame),
      refused: () => this.close(new Unusable(frame.code, frame.next ? `${frame.message}; next: ${frame.next}` : frame.message)),
    };
    does[frame.t]?.();
  }

  #revoked(part) {
    for (const event of this.#opened(part)) {
      if (event.refused) this.onNote(event.refused);
      else this.trust.revoke(event);
    }
  }

  #ask() {
    this.#measured = performance.now();
    this.#send({ t: "time", sent: this.#measured });
  }

  /** Realm time was what the broker said about half a round trip ago. */
  #learn({ sent, realm_ms: realm }) {
    this.#offset = realm - (sent + performance.now()) / 2;
  }

  #look() {
    const now = performance.now();
    if (now - this.#heard > LOST_MS) this.close(new Error(`nothing came from ${this.broker} for ${LOST_MS / 1000} s`));
    else if (now - this.#heard >= QUIET_MS) this.#send({ t: "keepalive", asks: true });
    if (now - this.#measured >= MEASURE_MS) this.#ask();
  }

  /** End the connection. */
  close(why = null) {
    if (this.#link) this.#link.close(why);
    else this.#lost(why);
  }

  #lost(why) {
    clearInterval(this.#watch);
    const error = why ?? new Error("the client was closed");
    this.#over = error;
    this.#awaited?.reject(error);
    for (const { reject } of this.#unanswered.values()) reject(error);
    this.#unanswered.clear();
    this.#end(why);
  }
}
