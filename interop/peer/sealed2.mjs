// Sealed sender, version 2: once for many recipients, split on the way, opened by each.

import { refused, same } from './check.mjs';
import { hex, unhex } from './ours.mjs';
import { EXPIRES } from './sealed.mjs';

const DISTRIBUTION = 'e1b1a3f4-92c8-4b6e-8a52-7c1f0f6e2d19';
const ABSENT = '31415926-5358-4979-8323-846264338327';
const SENT = 0x23;
const RECEIVED = 0x22;
/** Where the sender's tag begins in a received message. */
const SENDER_TAG = 33;

/** The sender writes to a group of two, with somebody excluded, and then to one of them alone. */
export async function sealedForMany(sender, readers, agreement, authority, release, shim) {
  const { lib } = release;
  const keys = { root: lib.PrivateKey.generate(), server: lib.PrivateKey.generate() };
  const root = keys.root.getPublicKey().serialize();
  const { address, identity } = sender;
  const certificate = await authority.issue(keys, { address, identity, e164: null });
  for (const reader of readers) {
    await sender.processBundle(reader.address, await reader.bundle(agreement));
    const distribution = await sender.encrypt(reader.address, await sender.distribute(DISTRIBUTION));
    await reader.processDistribution(address, await reader.decrypt(address, distribution));
  }
  const to = readers.map((reader) => reader.address);
  const exchange = { root, stranger: lib.PrivateKey.generate().getPublicKey().serialize(), from: address };

  for (const [hint, groupId] of [['default', null], ['resendable', Buffer.from('a group')], ['implicit', Buffer.alloc(32, 9)]]) {
    const plaintext = Buffer.from(`to all, ${hint}`);
    const sent = await sender.sealForGroup(to, certificate, DISTRIBUTION, plaintext, { hint, groupId, excluded: [ABSENT] });
    same(sent[0], SENT, 'version byte of a sent message');
    const parts = await split(sent, release, shim);
    same(parts.excluded, [ABSENT], 'who is excluded');
    same(parts.recipients.map((it) => it.serviceId).sort(), to.map((it) => it.serviceId).sort(), 'recipients');
    for (const reader of readers) {
      const part = parts.recipients.find((it) => it.serviceId === reader.address.serviceId);
      same(part.devices, [[reader.address.deviceId, reader.registrationId]], 'devices');
      await open(reader, part.received, { plaintext, hint, groupId }, exchange, { group: true });
    }
    const [first, second] = readers.map((reader) => parts.recipients.find((it) => it.serviceId === reader.address.serviceId));
    await refused(readers[1], 'invalid_message', () => readers[1].openAny(first.received, root, EXPIRES), "another one's copy");
    await refused(readers[0], 'duplicate_message', () => readers[0].openAny(first.received, root, EXPIRES), 'a copy for the second time');
    same(second.received.subarray(49), first.received.subarray(49), 'the shared part');
  }

  const plaintext = Buffer.from('to one');
  const sent = await sender.sealForOne(to[0], certificate, plaintext, { hint: 'implicit', groupId: null });
  const { recipients } = await split(sent, release, shim);
  same(recipients.length, 1, 'recipients of a message for one');
  same(recipients[0].received, lib.sealedSenderMultiRecipientMessageForSingleRecipient(sent), 'what the only recipient gets');
  await open(readers[0], recipients[0].received, { plaintext, hint: 'implicit', groupId: null }, exchange, { group: false });
}

/** Refused in every way that it should be, then opened. */
async function open(reader, received, wanted, { root, stranger, from }, { group }) {
  same(received[0], RECEIVED, 'version byte of a received message');
  const at = (trusted, now, body = received) => () => reader.openAny(body, trusted, now);
  await refused(reader, 'invalid_certificate', at(stranger, EXPIRES), 'an envelope under a foreign root');
  await refused(reader, 'invalid_certificate', at(root, EXPIRES + 1), 'an envelope of an ended certificate');
  for (const place of [1, SENDER_TAG, 49, received.length - 1]) {
    const changed = Buffer.from(received);
    changed[place] ^= 1;
    // What the tag does not prove looks like an envelope that somebody else sealed.
    const kind = place === SENDER_TAG ? 'invalid_certificate' : 'invalid_message';
    await refused(reader, kind, at(root, EXPIRES, changed), `an envelope changed at ${place}`);
  }
  // The low half of the version byte is nobody's concern.
  const other = Buffer.from(received);
  other[0] = SENT;
  const opened = await at(root, EXPIRES, other)();
  same(opened.plaintext, wanted.plaintext, 'plaintext');
  same(opened.sender, from, 'sender');
  same([opened.hint, opened.groupId && hex(opened.groupId)], [wanted.hint, wanted.groupId && hex(wanted.groupId)], 'hint and group id');
  same(opened.group, group, 'whether it is a group message');
}

/** Both sides take a sent message apart alike. */
async function split(sent, release, shim) {
  const it = await shim.request('sealed.split', { sent: hex(sent) });
  const ours = {
    excluded: it.excluded,
    recipients: it.recipients.map((one) => ({
      serviceId: one.service_id,
      devices: one.devices.map((device) => [device.device_id, device.registration_id]),
      received: unhex(one.received),
    })),
  };
  const theirs = new release.SentMessage(sent);
  const map = theirs.recipientsByServiceIdString();
  same([...theirs.excludedRecipientServiceIdStrings()], ours.excluded, 'excluded, as both read it');
  same(Object.keys(map).sort(), ours.recipients.map((one) => one.serviceId).sort(), 'recipients, as both read it');
  for (const { serviceId, devices, received } of ours.recipients) {
    const { deviceIds, registrationIds } = map[serviceId];
    same(deviceIds.map((id, n) => [id, registrationIds[n]]), devices, 'devices, as both read it');
    same(theirs.messageForRecipient(map[serviceId]), received, 'what a recipient receives, as both cut it');
  }
  return ours;
}

/** Releases before 0.41.1 derive the envelope's keys otherwise, so neither side opens the other's. */
export async function sealedV2Refused(sender, reader, agreement, authority, { lib }, shim) {
  const keys = { root: lib.PrivateKey.generate(), server: lib.PrivateKey.generate() };
  const root = keys.root.getPublicKey().serialize();
  const { address, identity } = sender;
  const certificate = await authority.issue(keys, { address, identity, e164: null });
  await sender.processBundle(reader.address, await reader.bundle(agreement));
  const sent = await sender.sealForOne(reader.address, certificate, Buffer.from('to one'), { hint: 'default', groupId: null });
  const { recipients } = await shim.request('sealed.split', { sent: hex(sent) });
  same(recipients.map((it) => it.service_id), [reader.address.serviceId], 'recipients');
  const received = unhex(recipients[0].received);
  await refused(reader, 'invalid_message', () => reader.openAny(received, root, EXPIRES), 'an envelope of the other derivation');
}
