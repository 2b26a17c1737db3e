// A link: a DEALER over TCP, encrypted by CURVE, that never reconnects by itself.
import { Dealer } from "zeromq";
import { linkKey, z85 } from "./keys.js";

const HANDSHAKE_MS = 5000;
const FAILED = ["handshake:error:auth", "handshake:error:protocol", "handshake:error:other", "connect:retry", "close"];

/** A connection to one broker. `onMessage` is given each message, `onClosed` why the link ended, once. */
export class Link {
  #socket;
  #sending = Promise.resolve();

  constructor(socket) {
    this.#socket = socket;
    this.onMessage = () => {};
    this.onClosed = () => {};
  }

  static async open({ address, public: broker }, key) {
    const socket = new Dealer({
      curveServerKey: z85(linkKey(broker)),
      curvePublicKey: z85(linkKey(key.public)),
      curveSecretKey: z85(key.linkSecret()),
      reconnectInterval: -1,
      linger: 1000,
      ipv6: address.startsWith("["),
    });
    const link = new Link(socket);
    const shaken = new Promise((resolve, reject) => {
      socket.events.on("handshake", resolve);
      for (const kind of FAILED) socket.events.on(kind, () => reject(new Error(`no broker of this key answers at ${address}`)));
      setTimeout(() => reject(new Error(`no broker answers at ${address}`)), HANDSHAKE_MS).unref();
    });
    socket.events.on("disconnect", () => link.close(new Error(`the broker at ${address} closed the link`)));
    socket.connect(`tcp://${address}`);
    try {
      await shaken;
    } catch (error) {
      link.close(error);
      throw error;
    }
    link.#receive();
    return link;
  }

  async #receive() {
    try {
      for await (const [message] of this.#socket) this.onMessage(message);
    } catch (error) {
      this.close(error);
    }
  }

  /** Messages go one after the other: a socket takes one at a time. */
  send(message) {
    this.#sending = this.#sending.then(() => this.#socket.send(message)).catch((error) => this.close(error));
  }

  /** End the link, after what is being sent. */
  close(why) {
    const tell = this.onClosed;
    this.onClosed = () => {};
    this.#sending = this.#sending.then(() => this.#socket.close());
    tell(why);
  }
}
