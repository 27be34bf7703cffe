// The way in: a party that was libsignal's own becomes ours in the middle of a conversation, with all
// that its stores held, and talks on with a peer that does not notice.

import { choices, expect, refused, same } from './check.mjs';
import { Line } from './conversation.mjs';

/** Messages that each side must have read before the party moves, and after it. */
const BEFORE = 40;
const AFTER = 100;

/**
 * `old` is moved to `us`, with the same address; `them` is the peer. `weBegan`: whether `old` began.
 * Sessions, prekeys and identity are what libsignal stored; lost and late messages lie between.
 */
export async function imported(old, us, them, weBegan, agreement, seed) {
  const { oneTime, kem, version, spqr } = agreement;
  const line = new Line(choices(seed));
  const [initiator, responder] = weBegan ? [old, them] : [them, old];
  await initiator.processBundle(responder.address, await responder.bundle({ oneTime, kem }));
  await line.deliver(await line.send(initiator, responder, Buffer.from('first')));
  await line.deliver(await line.send(responder, initiator, Buffer.from('answer')));
  while (line.readByBoth(old, them) < BEFORE) await line.round(old, them);
  const archived = await secondSession(line, initiator, responder, agreement);
  const bundle = await old.bundle({ oneTime, kem });

  await us.takeOver(old, them.address);
  line.replace(old, us);
  same(await us.session(them.address), { version, spqr, archived: 1 }, 'session that was taken over');
  for (const message of archived) await line.deliver(line.moved(message, old, us));
  await foreign(us, them, old);
  await line.flush();
  while (line.readByBoth(us, them) < AFTER) await line.round(us, them);
  await us.restart();
  await line.flush();

  // Prekeys that were published before the move still begin a session.
  await them.processBundle(us.address, bundle);
  const first = await line.send(them, us, Buffer.from('begun with prekeys that were taken over'));
  same(first.type, 'prekey', 'the type of a first message');
  await line.deliver(first);
  await line.deliver(await line.send(us, them, Buffer.from('answer')));
  same(await us.session(them.address), { version, spqr, archived: 2 }, 'session after the new one');
  while (line.readByBoth(us, them) < AFTER + 20) await line.round(us, them);
  await line.flush();
  expect(line.events.epoch > 0 === spqr, `the last epoch of the post-quantum ratchet was ${line.events.epoch}`);
  return line.events;
}

/** A second session over the first. Gives messages of the first that have not arrived. */
async function secondSession(line, initiator, responder, agreement) {
  const late = [];
  for (const [from, to] of [[initiator, responder], [responder, initiator]]) {
    late.push(await line.send(from, to, Buffer.from(`of the first session, from ${from.name}`)));
  }
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  await line.deliver(await line.send(initiator, responder, Buffer.from('anew')));
  await line.deliver(await line.send(responder, initiator, Buffer.from('answer')));
  for (let n = 0; n < 5; n++) await line.round(initiator, responder);
  return late;
}

/** Records of another identity, of an identity that is not trusted, and no records. */
async function foreign(us, them, old) {
  const record = old.stored(them.address).session;
  const somebody = { ...them.address, deviceId: 9 };
  await us.accept(somebody, us.identity);
  await refused(us, 'untrusted_identity', () => us.importSession(somebody, record), 'a record with another identity of the peer');
  await refused(us, 'invalid_key', () => us.importSession(somebody, them.stored(us.address).session), 'a record of somebody else');
  await refused(us, 'invalid_message', () => us.importSession(them.address, record.subarray(0, -1)), 'a record that is cut');
}

/**
 * Nothing was answered yet: the beginner still repeats its first message, the other has read one of
 * them and has not written.
 */
export async function importedUnanswered(old, us, them, weBegan, agreement, seed) {
  const line = new Line(choices(seed));
  const [initiator, responder] = weBegan ? [old, them] : [them, old];
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const firsts = [];
  for (let n = 0; n < 3; n++) firsts.push(await line.send(initiator, responder, Buffer.from(`first ${n}`)));
  await line.deliver(firsts[1]);
  await us.takeOver(old, them.address);
  line.replace(old, us);
  for (const n of [2, 0]) await line.deliver(line.moved(firsts[n], old, us));
  const [begins, answers] = weBegan ? [us, them] : [them, us];
  if (weBegan && !old.release.datesSessions) {
    // A session of no known age is too old, with us as with later releases.
    await refused(us, 'stale_session', () => us.encrypt(them.address, Buffer.from('and another')), 'a session that no time was stored with');
    await us.processBundle(them.address, await them.bundle(agreement));
  }
  const again = await line.send(begins, answers, Buffer.from('and another'));
  same(again.type, 'prekey', 'the type of a message before an answer');
  await line.deliver(again);
  await line.deliver(await line.send(answers, begins, Buffer.from('answer')));
  while (line.readByBoth(us, them) < AFTER) await line.round(us, them);
  await line.flush();
  return line.events;
}

const DISTRIBUTION = '2f9ad9e2-3a4c-4bd5-9f1d-0f6a5c1c3b77';

/** Sender keys, our own and the peer's, in the middle of a group: `old` wrote and read before. */
export async function importedSenderKeys(old, us, them, seed) {
  const pick = choices(seed);
  const events = { sent: 0, read: 0, lost: 0, late: 0, repeated: 0, epoch: 0 };
  for (const [from, to] of [[old, them], [them, old]]) {
    await to.processDistribution(from.address, await from.distribute(DISTRIBUTION));
  }
  const read = async (to, from, { body, plaintext }) => {
    same(await to.groupDecrypt(from.address, body), plaintext, 'plaintext');
    events.read++;
  };
  const talk = async (a, b) => {
    const late = [];
    for (let n = 0; n < 60; n++) {
      const [from, to] = n % 2 ? [a, b] : [b, a];
      const plaintext = Buffer.alloc(pick.below(300), n);
      const message = { body: await from.groupEncrypt(DISTRIBUTION, plaintext), plaintext, toMover: to === a };
      events.sent++;
      // One of each side is late in any case.
      if (n < 2 || pick.oneIn(6)) late.push(message);
      else if (pick.oneIn(8)) events.lost++;
      else await read(to, from, message);
    }
    events.late += late.length;
    return late;
  };
  const late = await talk(old, them);
  await us.takeOver(old, them.address, DISTRIBUTION);
  for (const message of pick.shuffle(late)) {
    const [to, from] = message.toMover ? [us, them] : [them, us];
    await read(to, from, message);
    await refused(to, 'duplicate_message', () => to.groupDecrypt(from.address, message.body), 'a message for the second time');
    events.repeated++;
  }
  for (const message of await talk(us, them)) await read(...(message.toMover ? [us, them] : [them, us]), message);
  await us.restart();
  await talk(us, them);
  return events;
}
