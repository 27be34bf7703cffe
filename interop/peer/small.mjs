// What needs no conversation: signatures, safety numbers, and the message that reports a failed
// decryption.

import { expect, same } from './check.mjs';
import { hex, unhex } from './ours.mjs';
import { EXPIRES } from './sealed.mjs';

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

/** The report of a failed decryption as it travels: plaintext content in an envelope, both ways. */
export async function sealedRetry({ lib }, initiator, responder, agreement, authority, shim) {
  const keys = { root: lib.PrivateKey.generate(), server: lib.PrivateKey.generate() };
  const root = keys.root.getPublicKey().serialize();
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const first = await initiator.encrypt(responder.address, Buffer.from('first'));
  await responder.decrypt(initiator.address, first);
  const { address, identity } = responder;
  const certificate = await authority.issue(keys, { address, identity, e164: null });
  const report = lib.DecryptionErrorMessage.forOriginal(first.body, lib.CiphertextMessageType.PreKey, 1_700_000_000_123, 3);
  const content = lib.PlaintextContent.from(report).serialize();
  const sent = await responder.sealPlaintext(initiator.address, certificate, content);
  const { recipients } = await shim.request('sealed.split', { sent: hex(sent) });
  const opened = await initiator.openAny(unhex(recipients[0].received), root, EXPIRES);
  same(opened.sender, address, 'sender');
  same(lib.DecryptionErrorMessage.extractFromSerializedBody(opened.plaintext).serialize(), report.serialize(), 'the report');
}

/** Safety numbers: the digits are equal, and each side's code is scanned by the other. */
export async function fingerprints({ lib }, shim) {
  const [ours, theirs] = [1, 2].map((n) => ({ id: Buffer.alloc(16 + n, n), key: lib.PrivateKey.generate().getPublicKey() }));
  const stranger = { ...theirs, key: lib.PrivateKey.generate().getPublicKey() };
  const wire = ({ id, key }) => ({ id: hex(id), key: hex(key.serialize()) });
  const make = (version, iterations, local, remote) =>
    shim.request('fingerprint', { version, iterations, local: wire(local), remote: wire(remote) });
  const makeTheirs = (version, iterations, local, remote) =>
    lib.Fingerprint.new(iterations, version, local.id, local.key, remote.id, remote.key);
  for (const [version, iterations] of [[1, 1024], [2, 5200], [2, 2]]) {
    const made = await make(version, iterations, ours, theirs);
    const real = makeTheirs(version, iterations, ours, theirs);
    same(made.display, real.displayableFingerprint().toString(), 'digits');
    same(unhex(made.scannable), real.scannableFingerprint().toBuffer(), 'the bytes of the code');

    const opposite = makeTheirs(version, iterations, theirs, ours);
    const other = makeTheirs(version, iterations, stranger, ours);
    same(opposite.displayableFingerprint().toString(), made.display, 'digits at the other side');
    for (const [scanned, match] of [[opposite, true], [other, false]]) {
      const code = scanned.scannableFingerprint();
      const found = await shim.request('fingerprint.compare', { ours: made.scannable, theirs: hex(code.toBuffer()) });
      same(found.match, match, 'our verdict on their code');
      const scannedHere = lib.ScannableFingerprint._fromBuffer(unhex(made.scannable));
      same(code.compare(scannedHere), match, 'their verdict on our code');
    }
    const another = makeTheirs(3 - version, iterations, theirs, ours).scannableFingerprint();
    const refusal = await shim
      .request('fingerprint.compare', { ours: made.scannable, theirs: hex(another.toBuffer()) })
      .catch((error) => error);
    same(refusal.kind, 'fingerprint_mismatch', 'a code of another version');
  }
}
