// The signer: a source's own numbers, chains and clock (docs/reference/protocol.md, "Publishing").
import { Unusable, encode } from "./cbor.js";
import { NO_LEAF, checked, leafHash, protectedHeader, seal } from "./event.js";
import { lookup } from "./grants.js";

const COUNTER = 16n;

/** What one source says in one incarnation. */
export class EventSigner {
  #heads = new Map();
  #clock = 0n;
  #waiting = [];
  #sequence = 0;

  constructor(name, key, incarnation, version, nowMs) {
    Object.assign(this, { name, key, incarnation });
    const started = { previous_incarnation: null, previous_sequence: null, version };
    this.say({ topic: `source/${name}`, data: started }, nowMs);
  }

  /** Number and chain one draft; its sequence. What is said until `sealed` is under one signature. Throws, as `checked`. */
  say(draft, nowMs) {
    const found = lookup(draft.topic);
    if (!found) throw new Unusable("event.topic", `there is no topic ${draft.topic}; docs/reference/topics.md lists them`);
    const { row } = found;
    const shared = typeof row.writers !== "string";
    const isFact = row.kind === "fact" || (row.kind === null && draft.version !== undefined);
    const version = isFact && shared ? (draft.version ?? 1) : undefined;
    const [number, previous] = this.#heads.get(draft.topic) ?? [0, NO_LEAF];
    const event = {
      source: this.name,
      id: [this.incarnation, this.#sequence + 1],
      chain: [number + 1, previous],
      type: row.type,
      topic: draft.topic,
      subject: draft.subject ?? draft.topic,
      time: this.#tick(nowMs),
      data: draft.data,
    };
    const more = { ttl: draft.ttl ?? row.ttl_ms, cause: draft.cause, to: draft.to, replaces: draft.replaces };
    if (version !== undefined) Object.assign(more, { version, epoch: draft.epoch ?? 1 });
    for (const [key, value] of Object.entries(more)) if (value !== undefined && value !== null) event[key] = value;
    const body = checked(encode(event));
    this.#sequence += 1;
    this.#heads.set(draft.topic, [number + 1, leafHash(protectedHeader(this.key.keyId), body)]);
    this.#waiting.push(body);
    return this.#sequence;
  }

  /** A hybrid clock: above all that was ticked or seen before. */
  #tick(nowMs) {
    const now = BigInt(Math.floor(nowMs)) << COUNTER;
    this.#clock = now > this.#clock ? now : this.#clock + 1n;
    return this.#clock;
  }

  /** Take note of the time of an event that was read; one more than 10 s ahead is not followed. */
  seen(time, nowMs) {
    const value = BigInt(time);
    if (value > this.#clock && Number(value >> COUNTER) - nowMs <= 10_000) this.#clock = value;
  }

  /** What was said, signed, as parts of a `publish`. */
  sealed() {
    const waiting = this.#waiting;
    this.#waiting = [];
    return seal(waiting, this.key);
  }
}
