// Sealed sender, version 1, in both directions, with certificates that either side made.

import { expect, refused, same } from './check.mjs';
import { hex, unhex } from './ours.mjs';

export const EXPIRES = 2_000_000_000_000;

/** Makes certificates in the shim. */
export class OurAuthority {
  name = 'tuckseal';

  constructor(shim) {
    this.shim = shim;
  }

  async issue(keys, { address, identity, e164 }) {
    const { certificate } = await this.shim.request('certificate.server', {
      key_id: 7,
      trust_root_private: hex(keys.root.serialize()),
      server_public: hex(keys.server.getPublicKey().serialize()),
    });
    const sender = await this.shim.request('certificate.sender', {
      service_id: address.serviceId,
      e164,
      device_id: address.deviceId,
      identity_public: hex(identity),
      expires: EXPIRES,
      server_certificate: certificate,
      server_private: hex(keys.server.serialize()),
    });
    return unhex(sender.certificate);
  }
}

/** Makes certificates in the real library. */
export class TheirAuthority {
  constructor({ lib, name }) {
    this.lib = lib;
    this.name = name;
  }

  async issue(keys, { address, identity, e164 }) {
    const server = this.lib.ServerCertificate.new(7, keys.server.getPublicKey(), keys.root);
    const { serviceId, deviceId } = address;
    const key = this.lib.PublicKey.deserialize(identity);
    return this.lib.SenderCertificate.new(serviceId, e164, deviceId, key, EXPIRES, server, keys.server).serialize();
  }
}

/** A whole exchange under certificates of one authority. */
export async function sealedExchange(initiator, responder, agreement, authority, lib, shim) {
  const keys = { root: lib.PrivateKey.generate(), server: lib.PrivateKey.generate() };
  const root = keys.root.getPublicKey().serialize();
  const certificates = new Map();
  for (const [party, e164] of [[initiator, '+15550100'], [responder, null]]) {
    const { address, identity } = party;
    certificates.set(party, { e164, bytes: await authority.issue(keys, { address, identity, e164 }) });
  }
  await bothJudge(certificates.get(initiator).bytes, root, lib, shim);
  await initiator.processBundle(responder.address, await responder.bundle(agreement));
  const exchange = { certificates, root, stranger: lib.PrivateKey.generate().getPublicKey().serialize() };
  await pass(initiator, responder, exchange, { hint: 'resendable', groupId: Buffer.from('a group') });
  await pass(responder, initiator, exchange, { hint: 'implicit', groupId: null });
  for (const hint of ['default', 'resendable', 'implicit']) {
    await pass(initiator, responder, exchange, { hint, groupId: null });
    await pass(responder, initiator, exchange, { hint, groupId: Buffer.alloc(32, 9) });
  }
}

/** Seals, has it refused in every way that it should be, and then opened. */
async function pass(from, to, { certificates, root, stranger }, options) {
  const { bytes, e164 } = certificates.get(from);
  const plaintext = Buffer.from(`sealed by ${from.name}, ${options.hint}`);
  const envelope = await from.seal(to.address, bytes, plaintext, options);
  const open = (body, trusted, now) => to.open(body, trusted, now);
  await refused(to, 'invalid_certificate', () => open(envelope, stranger, EXPIRES), 'an envelope under a foreign root');
  await refused(to, 'invalid_certificate', () => open(envelope, root, EXPIRES + 1), 'an envelope of an ended certificate');
  const changed = Buffer.from(envelope);
  changed[changed.length - 1] ^= 1;
  await refused(to, 'invalid_message', () => open(changed, root, EXPIRES), 'a changed envelope');
  const opened = await open(envelope, root, EXPIRES);
  same(opened.plaintext, plaintext, 'plaintext');
  same(opened.sender, from.address, 'sender');
  same(opened.e164, e164, 'phone number');
  same(opened.hint, options.hint, 'content hint');
  same(opened.groupId, options.groupId, 'group id');
}

/** Both sides judge a certificate alike: good, under a foreign root, ended. */
async function bothJudge(certificate, root, lib, shim) {
  const foreign = lib.PrivateKey.generate().getPublicKey().serialize();
  const theirs = lib.SenderCertificate.deserialize(certificate);
  for (const [trusted, now, wanted] of [[root, EXPIRES, true], [foreign, EXPIRES, false], [root, EXPIRES + 1, false]]) {
    expect(theirs.validate(lib.PublicKey.deserialize(trusted), now) === wanted, 'libsignal judges the certificate otherwise');
    const ours = await shim.request('certificate.check', { certificate: hex(certificate), trust_roots: [hex(trusted)], now });
    same(ours.valid, wanted, 'certificate.check');
  }
}
