// Runs every conversation with every peer:
//   node run.mjs [--shim PATH] [--releases 0.60.2,…,c] [--feature WORDS] [--seed N]
// `c` is the C library; WORDS choose the features that they are part of. Prints one line for each peer, role and feature; ends with status 1 when
// anything deviated.

import { parseArgs } from 'node:util';
import { attachments } from './attachments.mjs';
import { loadC } from './c-library.mjs';
import { converse } from './conversation.mjs';
import { senderKeys } from './groups.mjs';
import { imported, importedSenderKeys, importedUnanswered } from './imports.mjs';
import { limits } from './limits.mjs';
import { OurParty } from './ours.mjs';
import { OurAuthority, TheirAuthority, sealedExchange } from './sealed.mjs';
import { sealedForMany, sealedV2Refused } from './sealed2.mjs';
import { Shim } from './shim.mjs';
import { fingerprints, retry, sealedRetry, signatures } from './small.mjs';
import { cannotMeet, withoutRatchet } from './ratchet.mjs';
import { load, ratchetOff } from './theirs.mjs';
import { bothBegin, newIdentity, x3dhRefused } from './trouble.mjs';

const { values: options } = parseArgs({
  options: {
    shim: { type: 'string', default: '../../target/debug/shim' },
    releases: { type: 'string', default: '0.60.2' },
    feature: { type: 'string', default: '' },
    seed: { type: 'string', default: '1' },
  },
});

const OURS = { serviceId: '9d0652a3-dcc3-4d11-975f-74d61598733f', deviceId: 1 };
const THEIRS = { serviceId: '796abedb-ca4e-4f18-8803-1fde5b921f9f', deviceId: 2 };
const THIRD = { serviceId: '5f0e2b7a-9c1d-4e83-b6a4-0d8c7f2e1b39', deviceId: 3 };

/** How a session can begin. */
const AGREEMENTS = {
  'X3DH': { oneTime: true, kem: 'none', version: 3 },
  'X3DH, no one-time prekey': { oneTime: false, kem: 'none', version: 3 },
  'PQXDH': { oneTime: true, kem: 'one-time', version: 4 },
  'PQXDH, last resort': { oneTime: false, kem: 'last-resort', version: 4 },
};

/** Which agreements the release can do, and the one that all other features are tried with. */
function agreementsOf(release) {
  const can = { 3: release.x3dh, 4: release.kyber };
  const all = Object.entries(AGREEMENTS).map(([name, it]) => [name, { ...it, spqr: release.spqr && it.version === 4 }]);
  const usable = all.filter(([, it]) => can[it.version]);
  return { usable, usual: Object.fromEntries(all)[release.kyber ? 'PQXDH' : 'X3DH'] };
}

/** Messages that each side reads where the ratchet is to go through several epochs. */
const EPOCHS_LONG = 700;

function* plan(release, seed) {
  const { usable, usual } = agreementsOf(release);
  for (const [feature, agreement] of usable) {
    yield { feature, roles: true, run: (i, r, us, n) => converse(i, r, agreement, seed + n) };
  }
  if (release.spqr) {
    yield { feature: 'PQXDH, several epochs', roles: true, run: (i, r, us, n) => converse(i, r, usual, seed + n, EPOCHS_LONG) };
  } else if (release.kyber) {
    yield { feature: 'no ratchet is refused unless allowed', roles: true, run: (i, r, us) => withoutRatchet(i, r, us, usual) };
  }
  if (!release.sessionsAlone) yield* moves(release, seed, usable);
  // What does not depend on the ratchet has been tried with it.
  if (release.off) return;
  if (!release.x3dh) yield { feature: 'X3DH is refused', roles: false, run: x3dhRefused };
  yield { feature: 'both begin at once', roles: false, run: (i, r, us, n) => bothBegin(i, r, usual, seed + n) };
  yield {
    feature: 'new identity',
    roles: true,
    run: async (i, r, us) => {
      const again = await make(r === us, release);
      await newIdentity(i, r, again, usual).finally(() => again.close());
    },
  };
  if (release.sessionsAlone) return;
  // 25 000 messages each way: once is enough, both sides send and both receive.
  yield { feature: 'limits', roles: false, run: (i, r) => limits(i, r, usual) };
  yield { feature: 'sender keys', roles: true, run: (i, r, us, n) => senderKeys(i, r, usual, seed + n) };
  for (const issuer of ['tuckseal', 'libsignal']) {
    yield {
      feature: `sealed sender v1, certificates of ${issuer}`,
      roles: true,
      run: (i, r, us) => sealedExchange(i, r, usual, authority(issuer, release, us), release.lib, us.shim),
    };
  }
  for (const issuer of ['tuckseal', 'libsignal']) {
    if (!release.SentMessage) break;
    yield {
      feature: `sealed sender v2, certificates of ${issuer}`,
      roles: true,
      run: async (i, r, us) => {
        const third = await make(r === us, release, THIRD);
        await sealedForMany(i, [r, third], usual, authority(issuer, release, us), release, us.shim).finally(() => third.close());
      },
    };
  }
  if (!release.SentMessage) {
    yield {
      feature: 'sealed sender v2 of the old kind is refused',
      roles: true,
      run: (i, r, us) => sealedV2Refused(i, r, usual, authority('tuckseal', release, us), release, us.shim),
    };
  }
  yield { feature: 'decryption error', roles: true, run: (i, r, us) => retry(release, i, r, usual, us.shim) };
  if (release.SentMessage) {
    yield {
      feature: 'decryption error in an envelope',
      roles: true,
      run: (i, r, us) => sealedRetry(release, i, r, usual, authority('tuckseal', release, us), us.shim),
    };
  }
  yield { feature: 'signatures', roles: false, run: (i, r, us) => signatures(release, us.shim) };
  yield { feature: 'safety numbers', roles: false, run: (i, r, us) => fingerprints(release, us.shim) };
}

/** A party of this release moves to us: `begins` tells who had begun. */
function* moves(release, seed, usable) {
  const old = (us) => release.make(us.address, us.registrationId);
  const cell = (words, name, talk, agreement) => ({
    feature: `${words}, ${name}`,
    roles: true,
    run: (i, r, us, n) => talk(old(us), us, us === i ? r : i, us === i, agreement, seed + n),
  });
  for (const [name, agreement] of usable) {
    yield cell('import', name, imported, agreement);
    yield cell('import before an answer', name, importedUnanswered, agreement);
  }
  if (release.off) return;
  yield {
    feature: 'import of sender keys',
    roles: false,
    run: (i, r, us, n) => importedSenderKeys(old(us), us, r, seed + n),
  };
}

const authority = (issuer, release, us) => (issuer === 'tuckseal' ? new OurAuthority(us.shim) : new TheirAuthority(release));

async function make(ours, release, address = ours ? OURS : THEIRS) {
  if (!ours) return release.make(address, 2222);
  const party = await OurParty.make(options.shim, address, 1111);
  // The post-quantum ratchet is demanded of every release that has it.
  party.allow = { allow_x3dh: true, allow_no_pq: !release.spqr };
  return party;
}

let attempts = 0;

async function attempt(release, { run }, weBegin) {
  const n = attempts++;
  const us = await make(true, release);
  const them = await make(false, release);
  return outcome(() => (weBegin ? run(us, them, us, n) : run(them, us, us, n))).finally(() => us.close());
}

async function outcome(run) {
  try {
    const events = await run();
    return { ok: true, notes: events ? summary(events) : '' };
  } catch (error) {
    return { ok: false, notes: error.stack };
  }
}

const summary = ({ epoch, ...counts }) =>
  Object.entries(counts).map(([name, n]) => `${n} ${name}`).join(', ') + (epoch > 0 ? `, epoch ${epoch}` : '');

function row(...cells) {
  console.log(`| ${cells.map((cell, n) => cell.padEnd([29, 10, 43, 9][n] ?? 0)).join(' | ')} |`);
}

let failures = 0;

function report(peer, begins, feature, { ok, notes }) {
  row(peer, begins, feature, ok ? 'ok' : 'DEVIATES', ok ? notes : '');
  if (ok) return;
  failures++;
  console.error(notes);
}

/** Every cell of one peer. */
async function all(release) {
  for (const entry of plan(release, Number(options.seed))) {
    if (!entry.feature.includes(options.feature)) continue;
    for (const weBegin of entry.roles ? [true, false] : [true]) {
      const begins = entry.roles ? (weBegin ? 'tuckseal' : 'the peer') : '–';
      report(release.name, begins, entry.feature, await attempt(release, entry, weBegin));
    }
  }
}

/** No session joins a release without the ratchet and one that demands it, whoever begins. */
async function strangers() {
  const strict = peers.find((it) => it.demandsSpqr);
  if (!strict || options.feature) return;
  for (const old of peers.filter((it) => it.kyber && !it.spqr)) {
    for (const oldBegins of [true, false]) {
      const pair = [old.make(OURS, 1111), strict.make(THEIRS, 2222)];
      const [initiator, responder] = oldBegins ? pair : pair.toReversed();
      const found = await outcome(() => cannotMeet(initiator, responder, AGREEMENTS.PQXDH));
      report(old.name, oldBegins ? 'the peer' : 'the other', `refused with ${strict.name}`, found);
    }
  }
}

/** What no release of libsignal does. */
async function withoutPeer() {
  const feature = 'attachments';
  if (!feature.includes(options.feature)) return;
  const shim = new Shim(options.shim);
  report(`cryptography of Node ${process.versions.node}`, '–', feature, await outcome(() => attachments(shim)));
  await shim.close();
}

const peers = [];
row('peer', 'begins', 'feature', 'result', 'events');
row('---', '---', '---', '---', '---');
for (const version of options.releases.split(',')) {
  if (version === 'c') {
    await loadC().then(all, ({ message }) => console.log(`SKIPPED interop with libsignal-protocol-c: ${message}`));
    continue;
  }
  const release = await load(version);
  for (const peer of [release, ratchetOff(release)].filter(Boolean)) {
    await all(peer);
    peers.push(peer);
  }
}
await strangers();
await withoutPeer();
if (failures > 0) console.error(`${failures} of the conversations deviated`);
process.exitCode = failures > 0 ? 1 : 0;
