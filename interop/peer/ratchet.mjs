// The post-quantum ratchet as it is seen on the wire (signal-wire.md §10.2, spqr.md §4), and who may
// go without it.

import { refused, same } from './check.mjs';

const FIELD = 5;

/** The epoch that an ordinary message names, 0 where it carries nothing of the ratchet. */
export function epoch(body) {
  const MAC = 8;
  const fields = body.subarray(1, body.length - MAC);
  for (let at = 0; at < fields.length; ) {
    const [tag, start] = varint(fields, at);
    const [value, after] = varint(fields, start);
    const bytes = (tag & 7) === 2;
    if (bytes && tag >> 3 === FIELD) return varint(fields, after + 1)[0];
    at = after + (bytes ? value : 0);
  }
  return 0;
}

/** The number, and where the bytes after it begin. */
function varint(bytes, at) {
  let value = 0;
  for (let power = 1; ; power *= 128) {
    const byte = bytes[at++];
    value += (byte & 127) * power;
    if (byte < 128) return [value, at];
  }
}

/**
 * A peer without the ratchet cannot talk to us by default, and can where it is allowed. We demand the
 * ratchet by mixing its key into our first message, so that there the peer refuses (spqr.md §3.2).
 */
export async function withoutRatchet(initiator, responder, us, agreement) {
  const allowed = us.allow;
  for (const allow of [{}, allowed]) {
    us.allow = allow;
    await initiator.processBundle(responder.address, await responder.bundle(agreement));
    const first = await initiator.encrypt(responder.address, Buffer.from('first'));
    const read = () => responder.decrypt(initiator.address, first);
    if (allow === allowed) same(await read(), Buffer.from('first'), 'plaintext where it is allowed');
    else await refused(responder, 'invalid_message', read, 'a first message between a side with the ratchet and one without');
  }
  for (const [from, to] of [[responder, initiator], [initiator, responder]]) {
    const text = Buffer.from(`from ${from.name}`);
    same(await to.decrypt(from.address, await from.encrypt(to.address, text)), text, 'plaintext');
  }
  const { version, spqr } = await us.session((initiator === us ? responder : initiator).address);
  same([version, spqr], [4, false], 'version and ratchet of the session where it is allowed');
}

/** Two releases of libsignal that no session can join: one has no ratchet, the other demands it. */
export async function cannotMeet(initiator, responder, agreement) {
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const first = await initiator.encrypt(responder.address, Buffer.from('first'));
  await refused(responder, 'invalid_message', () => responder.decrypt(initiator.address, first), `a first message of ${initiator.name}`);
}
