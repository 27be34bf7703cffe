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

/** A peer without the ratchet is refused by default, in either role, and can be allowed. */
export async function withoutRatchet(initiator, responder, us, agreement) {
  const allowed = us.allow;
  us.allow = {};
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const first = await initiator.encrypt(responder.address, Buffer.from('first'));
  const read = () => responder.decrypt(initiator.address, first);
  if (responder === us) {
    await refused(us, 'invalid_message', read, 'a first message without the ratchet');
    us.allow = allowed;
    same(await read(), Buffer.from('first'), 'plaintext when it is allowed');
    return;
  }
  same(await read(), Buffer.from('first'), 'plaintext');
  const answer = await responder.encrypt(initiator.address, Buffer.from('answer'));
  await refused(us, 'invalid_message', () => us.decrypt(responder.address, answer), 'an answer without the ratchet');
}
