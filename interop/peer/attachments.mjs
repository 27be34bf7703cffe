// Attachments (signal-wire.md §18.1). libsignal does not make them, its users' apps do; here the format
// is made a second time from Node's cryptography, and compared byte for byte.

import { createCipheriv, createHash, createHmac, randomBytes } from 'node:crypto';
import { Refused } from './shim.mjs';
import { same } from './check.mjs';
import { hex, unhex } from './ours.mjs';

const padded = (size) => Math.max(541, Math.floor(1.05 ** Math.ceil(Math.log(size) / Math.log(1.05))));

function make(plaintext, keys, iv) {
  const cipher = createCipheriv('aes-256-cbc', keys.subarray(0, 32), iv);
  const body = Buffer.alloc(padded(plaintext.length));
  plaintext.copy(body);
  const sealed = Buffer.concat([iv, cipher.update(body), cipher.final()]);
  const ciphertext = Buffer.concat([sealed, createHmac('sha256', keys.subarray(32)).update(sealed).digest()]);
  return { ciphertext, digest: createHash('sha256').update(ciphertext).digest() };
}

export async function attachments(shim) {
  for (const size of [0, 1, 540, 541, 542, 1000, 65_536, 1_000_000]) {
    const [plaintext, keys, iv] = [randomBytes(size), randomBytes(64), randomBytes(16)];
    const made = make(plaintext, keys, iv);
    const ours = await shim.request('attachment.encrypt', { plaintext: hex(plaintext), keys: hex(keys), iv: hex(iv) });
    same(unhex(ours.ciphertext), made.ciphertext, `the ciphertext of ${size} bytes`);
    same(unhex(ours.digest), made.digest, `the digest of ${size} bytes`);

    const request = { ciphertext: hex(made.ciphertext), keys: hex(keys), digest: hex(made.digest), size };
    const read = (changes) => shim.request('attachment.decrypt', { ...request, ...changes });
    same(unhex((await read({})).plaintext), plaintext, `the plaintext of ${size} bytes`);
    const changed = Buffer.from(made.ciphertext);
    changed[changed.length >> 1] ^= 1;
    const rehashed = createHash('sha256').update(changed).digest();
    for (const [what, changes] of [
      ['a changed ciphertext', { ciphertext: hex(changed) }],
      ['a changed ciphertext with its digest', { ciphertext: hex(changed), digest: hex(rehashed) }],
      ['another digest', { digest: hex(rehashed) }],
      ['other keys', { keys: hex(randomBytes(64)) }],
      ['a size beyond the padding', { size: padded(size) + 1 }],
    ]) {
      const found = await read(changes).catch((error) => error);
      same(found instanceof Refused ? found.kind : 'no refusal', 'invalid_message', what);
    }
  }
}
