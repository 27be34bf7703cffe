// What goes wrong between honest parties: both begin at once, one was set up anew, one is too old
// for the other's policy.

import { choices, refused, same } from './check.mjs';

/** Both sides begin before either has heard of the other; every message is read all the same. */
export async function bothBegin(a, b, agreement, seed) {
  const pick = choices(seed);
  await a.processBundle(b.address, await b.bundle(agreement));
  await b.processBundle(a.address, await a.bundle(agreement));
  const flying = [];
  const send = async (from, to, n) => {
    const plaintext = Buffer.from(`${n} from ${from.name}`);
    flying.push({ from, to, plaintext, message: await from.encrypt(to.address, plaintext) });
  };
  await send(a, b, 'first');
  await send(b, a, 'first');
  for (const { message } of flying) same(message.type, 'prekey', 'type');
  for (let n = 0; n < 60; n++) {
    for (const { from, to, plaintext, message } of pick.shuffle(flying.splice(0))) {
      same(await to.decrypt(from.address, message), plaintext, `plaintext in round ${n}`);
    }
    if (pick.oneIn(2)) await send(a, b, n);
    if (pick.oneIn(2)) await send(b, a, n);
  }
}

/** A peer with a new identity is refused until a person has accepted it. */
export async function newIdentity(a, b, again, agreement) {
  await a.processBundle(b.address, await b.bundle(agreement));
  await b.decrypt(a.address, await a.encrypt(b.address, Buffer.from('to the old one')));
  const bundle = await again.bundle(agreement);
  await refused(a, 'untrusted_identity', () => a.processBundle(b.address, bundle), 'a bundle of a new identity');
  await again.processBundle(a.address, await a.bundle(agreement));
  const first = await again.encrypt(a.address, Buffer.from('from the new one'));
  await refused(a, 'untrusted_identity', () => a.decrypt(b.address, first), 'a first message of a new identity');
  await a.accept(b.address, again.identity);
  same(await a.decrypt(b.address, first), Buffer.from('from the new one'), 'plaintext');
  const answer = await a.encrypt(b.address, Buffer.from('to the new one'));
  same(await again.decrypt(a.address, answer), Buffer.from('to the new one'), 'plaintext');
}

/** Releases that gave X3DH up refuse a first message that we make by it. */
export async function x3dhRefused(us, them) {
  await us.processBundle(them.address, await them.bundle({ oneTime: true, kem: 'none' }));
  const first = await us.encrypt(them.address, Buffer.from('first'));
  same(first.body[0] >> 4, 3, 'version');
  await refused(them, 'invalid_message', () => them.decrypt(us.address, first), 'X3DH');
}
