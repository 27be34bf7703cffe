// One conversation over a bad network: messages are lost, swapped, repeated and late, one is changed
// on its way, and in the middle a second session begins over the first and our side restarts. Every
// plaintext and every refusal is checked.

import { choices, expect, refused, same } from './check.mjs';
import { epoch } from './ratchet.mjs';

/** Each side must have read at least this many messages, unless a conversation says another number. */
const MESSAGES = 100;

/** The second session begins after as many, so that both sessions are long. */
const SECOND_SESSION_AFTER = 50;

/** Rounds for which a message may be late. A session keeps five receiving chains, one a round. */
const LATEST = 2;

/**
 * `agreement`: what the responder's bundle holds, and the session that comes out: its version, and
 * whether it has the post-quantum ratchet. Gives the numbers of what happened.
 */
export async function converse(initiator, responder, agreement, seed, messages = MESSAGES) {
  const { oneTime, kem, version, spqr } = agreement;
  const line = new Line(choices(seed));
  await initiator.processBundle(responder.address, await responder.bundle({ oneTime, kem }));
  await begin(initiator, responder, line);
  for (const [from, to] of [[responder, initiator], [initiator, responder]]) {
    const message = await line.send(from, to, Buffer.from(`whisper of ${from.name}`));
    same(message.type, 'whisper', `the first message of ${from.name} after an answer`);
    same(message.body[0] >> 4, version, 'version in the first byte');
    await line.deliver(message);
  }
  for (const party of [initiator, responder]) await changedMessage(party, party === initiator ? responder : initiator, line);

  const go = async (until) => {
    while (line.readByBoth(initiator, responder) < until) await line.round(initiator, responder);
  };
  await go(SECOND_SESSION_AFTER);
  await secondSession(initiator, responder, agreement, line);
  await go(messages);
  await line.flush();
  for (const party of [initiator, responder]) {
    const found = await party.session(other(party, initiator, responder).address);
    if (found !== null) same(found, { version, spqr, archived: 1 }, 'session');
  }
  expect(line.events.sent >= 2 * messages, `${line.events.sent} messages were sent`);
  expect(line.events.epoch > 0 === spqr, `the last epoch of the post-quantum ratchet was ${line.events.epoch}`);
  for (const event of ['lost', 'late', 'repeated']) expect(line.events[event] > 0, `nothing was ${event}`);
  return line.events;
}

const other = (party, a, b) => (party === a ? b : a);

/** The first messages arrive in another order; none of them may be read twice. */
async function begin(initiator, responder, line) {
  const firsts = [];
  for (let n = 0; n < 3; n++) firsts.push(await line.send(initiator, responder, Buffer.from(`first ${n} 🦭`)));
  for (const message of firsts) same(message.type, 'prekey', 'the type of a first message');
  for (const n of [1, 0]) await line.deliver(firsts[n]);
  await line.repeat(firsts[1]);
  line.hold(firsts[2]);
}

/**
 * The initiator begins anew, so that both sides archive the first session, and our side restarts with
 * both in its state. What the first session wrote before is read all the same, by both sides, and it
 * is the current one again then; a message of the second brings that one back.
 */
async function secondSession(initiator, responder, agreement, line) {
  const write = (from, to, text) => line.send(from, to, Buffer.from(text));
  const old = [];
  for (const text of ['old 0', 'old 1', 'old 2']) {
    old.push(await write(initiator, responder, text), await write(responder, initiator, text));
  }
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const [first, second] = [await write(initiator, responder, 'anew'), await write(initiator, responder, 'anew too')];
  for (const message of [first, second]) same(message.type, 'prekey', 'the type of a first message of the second session');
  await line.deliver(first);
  await line.deliver(await write(responder, initiator, 'answer'));
  for (const message of old.splice(0, 2)) await line.deliver(message);
  for (const party of [initiator, responder]) await party.restart?.();
  for (const message of old) await line.deliver(message);
  await line.repeat(old[0]);
  await line.deliver(second);
  await line.deliver(await write(responder, initiator, 'and on'));
}

/** A changed message is refused and changes nothing: the real one can be read afterwards. */
async function changedMessage(from, to, line) {
  const message = await line.send(from, to, Buffer.from('to be changed'));
  for (const place of [message.body.length - 1, message.body.length - 12, 30]) {
    const body = Buffer.from(message.body);
    body[place] ^= 0x10;
    await refused(to, 'invalid_message', () => to.decrypt(from.address, { ...message, body }), `a message changed at ${place}`);
  }
  await line.deliver(message);
}

/** Everything between the two parties. */
export class Line {
  events = { sent: 0, read: 0, lost: 0, late: 0, repeated: 0, epoch: 0 };
  #choices;
  #held = [];
  #read = new Map();
  #round = 0;

  constructor(choices) {
    this.#choices = choices;
  }

  readBy(party) {
    return this.#read.get(party) ?? 0;
  }

  /** What both of them have read at least. */
  readByBoth(a, b) {
    return Math.min(this.readBy(a), this.readBy(b));
  }

  /** From now on one party stands where another stood, also for what is late; it has read nothing yet. */
  replace(old, party) {
    this.#held = this.#held.map(({ message, to, due }) => ({ message: this.moved(message, old, party), to: to === old ? party : to, due }));
  }

  /** The message, with another party in the place of one. */
  moved(message, old, party) {
    const put = (it) => (it === old ? party : it);
    return { ...message, from: put(message.from), to: put(message.to) };
  }

  /** Both sides write a few messages; what is not lost or late arrives in any order. */
  async round(a, b) {
    this.#round++;
    for (const [from, to] of [[a, b], [b, a]]) {
      const flying = this.#held.filter((it) => it.to === to && it.due <= this.#round).map((it) => it.message);
      this.#held = this.#held.filter((it) => it.to !== to || it.due > this.#round);
      for (let n = 1 + this.#choices.below(5); n > 0; n--) {
        const message = await this.send(from, to, this.#plaintext());
        if (this.#choices.oneIn(10)) this.events.lost++;
        else if (this.#choices.oneIn(8)) this.hold(message);
        else flying.push(message);
      }
      for (const message of this.#choices.shuffle(flying)) {
        await this.deliver(message);
        if (this.#choices.oneIn(8)) await this.repeat(message);
      }
    }
  }

  #plaintext() {
    const sizes = [0, 1, 15, 16, 17, 100, 1000, 65536];
    return Buffer.alloc(sizes[this.#choices.below(sizes.length)], this.#choices.below(256));
  }

  async send(from, to, plaintext) {
    this.events.sent++;
    return { from, to, plaintext, ...(await from.encrypt(to.address, plaintext)) };
  }

  async deliver(message) {
    const { from, to, plaintext } = message;
    same(await to.decrypt(from.address, message), plaintext, `plaintext from ${from.name}`);
    this.events.read++;
    // Ordinary messages alone; a first message holds one inside. Answers show what both sides agreed on.
    if (message.type === 'whisper') this.events.epoch = Math.max(this.events.epoch, epoch(message.body));
    this.#read.set(to, this.readBy(to) + 1);
  }

  /** The same bytes again. */
  async repeat(message) {
    const { from, to } = message;
    await refused(to, 'duplicate_message', () => to.decrypt(from.address, message), 'a message for the second time');
    this.events.repeated++;
  }

  hold(message) {
    this.#held.push({ message, to: message.to, due: this.#round + 1 + this.#choices.below(LATEST) });
    this.events.late++;
  }

  /** All that is late arrives. */
  async flush() {
    for (const { message } of this.#held.splice(0)) await this.deliver(message);
  }
}
