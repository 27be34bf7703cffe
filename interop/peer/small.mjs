// What needs no session: signatures, and the message that reports a failed decryption.

import { expect, same } from './check.mjs';
import { hex, unhex } from './ours.mjs';

/** Each side's signatures are verified by the other, and changed ones refused. */
export async function signatures({ lib }, shim) {
  for (let n = 0; n < 20; n++) {
    const key = lib.PrivateKey.generate();
    const publicKey = key.getPublicKey();
    const message = Buffer.alloc(n * 7, n);
    const theirs = key.sign(message);
    const { signature } = await shim.request('xeddsa.sign', { private: hex(key.serialize()), message: hex(message) });
    expect(publicKey.verify(message, unhex(signature)), 'libsignal refuses our signature');
    const verify = async (bytes) =>
      (await shim.request('xeddsa.verify', { public: hex(publicKey.serialize()), message: hex(message), signature: hex(bytes) })).valid;
    same(await verify(theirs), true, 'our verdict on their signature');
    const changed = Buffer.from(theirs);
    changed[n] ^= 4;
    same(await verify(changed), false, 'our verdict on a changed signature');
    same(publicKey.verify(message, changed), false, 'their verdict on a changed signature');
  }
}

/** A decryption error made by either side is the same bytes, and reads the same. */
export async function retry({ lib }, initiator, responder, agreement, shim) {
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const first = await initiator.encrypt(responder.address, Buffer.from('first'));
  await responder.decrypt(initiator.address, first);
  const answer = await responder.encrypt(initiator.address, Buffer.from('answer'));
  const kinds = { prekey: lib.CiphertextMessageType.PreKey, whisper: lib.CiphertextMessageType.Whisper };
  for (const [message, timestamp] of [[first, 1_700_000_000_123], [answer, 0]]) {
    const { body } = await shim.request('retry.request', {
      failed: { type: message.type, body: hex(message.body) }, timestamp, device_id: 3,
    });
    const theirs = lib.DecryptionErrorMessage.forOriginal(message.body, kinds[message.type], timestamp, 3);
    same(unhex(body), theirs.serialize(), 'the bytes of a decryption error');
    const parsed = await shim.request('retry.parse', { body: hex(theirs.serialize()) });
    same(parsed.ratchet_key, hex(theirs.ratchetKey().serialize()), 'ratchet key');
    same([parsed.timestamp, parsed.device_id], [timestamp, 3], 'timestamp and device');
  }
}
