#!/usr/bin/env node
// The command line: `dsmt.js --realm FILE --identity FILE tail PATTERN...`, or `... publish TOPIC JSON...`.
import { parseArgs } from "node:util";
import { Client, readIdentity, readRealm } from "./client.js";

const USAGE = "usage: dsmt.js --realm REALM.CBOR --identity FILE tail PATTERN... | publish TOPIC JSON...";

const shown = (_, value) => {
  if (typeof value === "bigint") return value.toString();
  return value?.type === "Buffer" ? { hex: Buffer.from(value.data).toString("hex") } : value;
};
const say = (what) => process.stdout.write(`${JSON.stringify(what, shown)}\n`);

function told({ event, refused, gap, row, live, complete }) {
  if (event) return { event: event.name, topic: event.topic, type: event.type, data: event.data, row, live };
  if (refused) return { refused: refused.code, message: refused.message, row };
  return gap ? { gap } : { complete: complete.row };
}

async function main() {
  const options = { realm: { type: "string" }, identity: { type: "string" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [verb, ...rest] = positionals;
  if (!values.realm || !values.identity || !rest.length || !["tail", "publish"].includes(verb)) throw new Error(USAGE);
  const client = await Client.attach(readRealm(values.realm), readIdentity(values.identity));
  client.onNote = (error) => process.stderr.write(`${error.message}\n`);
  try {
    await (verb === "tail" ? tail(client, rest) : publish(client, ...rest));
  } finally {
    client.close();
  }
}

async function tail(client, patterns) {
  client.subscribe(patterns, (what) => say(told(what)));
  for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => client.close());
  const why = await client.closed;
  if (why) throw why;
}

async function publish(client, topic, ...texts) {
  const acks = await Promise.all(texts.map((text) => client.publish({ topic, data: JSON.parse(text) })));
  acks.forEach(({ sequence, level, row }) => say({ sequence, level, row }));
}

main().catch((error) => {
  process.stderr.write(`dsmt.js: ${error.message}\n`);
  process.exitCode = 1;
});
