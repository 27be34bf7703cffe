// The numeric limits that both sides must draw at the same place (errors-and-limits.md): messages
// skipped at once, keys kept for them, and receiving chains.

import { refused, same } from './check.mjs';

/**
 * Messages that can be skipped at once. The double ratchet counts from the next message (signal-wire.md
 * §8.7), the post-quantum ratchet from the last one read (spqr.md §9): with it, it is one less.
 */
const MAX_SKIPPED = { classic: 25_000, spqr: 24_999 };
const KEPT_KEYS = 2_000;
const CHAINS = 5;

/** Both directions of a fresh session. */
export async function limits(initiator, responder, { oneTime, kem, spqr }) {
  await initiator.processBundle(responder.address, await responder.bundle({ oneTime, kem }));
  await pass(initiator, responder);
  await pass(responder, initiator);
  for (const [from, to] of [[initiator, responder], [responder, initiator]]) {
    await chains(from, to);
    await jump(from, to, spqr ? MAX_SKIPPED.spqr : MAX_SKIPPED.classic);
  }
}

async function pass(from, to) {
  const message = await from.encrypt(to.address, Buffer.from('on'));
  same(await to.decrypt(from.address, message), Buffer.from('on'), 'plaintext');
}

const text = (n) => Buffer.from(`message ${n}`);

/** The one just too far is refused; the one before it is read, and so is the oldest kept one. */
async function jump(from, to, skipped) {
  await pass(from, to);
  const sent = [];
  for (let n = 0; n <= skipped + 1; n++) {
    const message = await from.encrypt(to.address, text(n));
    if ([skipped - KEPT_KEYS - 1, skipped - KEPT_KEYS, skipped, skipped + 1].includes(n)) sent.push([n, message]);
  }
  const [[, gone], [oldest, kept], [last, reachable], [, beyond]] = sent;
  const read = (message) => to.decrypt(from.address, message);
  await refused(to, to.tooFarAhead, () => read(beyond), 'a message too far ahead');
  same(await read(reachable), text(last), 'the farthest message');
  await refused(to, 'duplicate_message', () => read(gone), 'a message whose key was given up');
  same(await read(kept), text(oldest), 'the oldest message whose key is kept');
}

/** A late message can be read while its chain is one of the last five. */
async function chains(from, to) {
  const late = [];
  for (let n = 0; n <= CHAINS; n++) {
    await pass(to, from);
    late.push(await from.encrypt(to.address, text(n)));
    await pass(from, to);
  }
  await refused(to, 'invalid_message', () => to.decrypt(from.address, late[0]), 'a message of a dropped chain');
  same(await to.decrypt(from.address, late[1]), text(1), 'a message of the oldest chain');
}
