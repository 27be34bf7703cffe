// Sender keys: one key for all of a group's readers, which travels through sessions.

import { choices, refused, same } from './check.mjs';

const DISTRIBUTION = '2f9ad9e2-3a4c-4bd5-9f1d-0f6a5c1c3b77';
const MESSAGES = 200;
/** Messages that arrive in any order among themselves. */
const WINDOW = 25;

/** The sender writes to a group of one, who joins, loses some, reads others late, and restarts. */
export async function senderKeys(sender, reader, agreement, seed) {
  const pick = choices(seed);
  const events = { sent: 0, read: 0, lost: 0, late: 0, repeated: 0, epoch: 0 };
  await sender.processBundle(reader.address, await reader.bundle(agreement));
  const early = await distribute(sender, reader);
  const before = await sender.groupEncrypt(DISTRIBUTION, Buffer.from('before the reader came'));
  await refused(reader, 'no_sender_key', () => reader.groupDecrypt(sender.address, before), 'a message of an unknown key');
  await join(sender, reader);
  await refused(reader, 'duplicate_message', () => reader.groupDecrypt(sender.address, before), 'a message from before');

  const read = async ({ body, plaintext }) => {
    same(await reader.groupDecrypt(sender.address, body), plaintext, 'plaintext');
    events.read++;
  };
  let late = [];
  while (events.sent < MESSAGES) {
    const flying = late.splice(0);
    for (let n = 0; n < WINDOW; n++) {
      const plaintext = Buffer.alloc([0, 1, 15, 16, 1000, 65536][pick.below(6)], pick.below(256));
      const body = await sender.groupEncrypt(DISTRIBUTION, plaintext);
      events.sent++;
      if (pick.oneIn(10)) events.lost++;
      else if (pick.oneIn(8)) late.push({ body, plaintext });
      else flying.push({ body, plaintext });
    }
    events.late += late.length;
    for (const message of pick.shuffle(flying)) {
      if (pick.oneIn(20)) await changed(sender, reader, message.body);
      await read(message);
      if (!pick.oneIn(8)) continue;
      await refused(reader, 'duplicate_message', () => reader.groupDecrypt(sender.address, message.body), 'a message for the second time');
      events.repeated++;
    }
    if (events.sent === MESSAGES / 2) {
      for (const party of [sender, reader]) await party.restart?.();
      // Keys that are known already, old and new, take nothing back.
      await reader.processDistribution(sender.address, early);
      await join(sender, reader);
    }
  }
  for (const message of late) await read(message);
  return events;
}

/** The distribution message, as it comes out of the session at the reader's. */
async function distribute(sender, reader) {
  const body = await sender.distribute(DISTRIBUTION);
  return reader.decrypt(sender.address, await sender.encrypt(reader.address, body));
}

async function join(sender, reader) {
  await reader.processDistribution(sender.address, await distribute(sender, reader));
}

/** A changed signature, and a changed body under the old one. */
async function changed(sender, reader, body) {
  for (const place of [body.length - 1, body.length - 65]) {
    const other = Buffer.from(body);
    other[place] ^= 8;
    await refused(reader, 'invalid_signature', () => reader.groupDecrypt(sender.address, other), 'a changed group message');
  }
}
