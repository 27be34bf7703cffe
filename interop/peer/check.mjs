// Assertions of the conversations. A deviation is an exception, and says what was seen.

export class Deviation extends Error {}

export function expect(condition, what) {
  if (!condition) throw new Deviation(what);
}

export function same(found, wanted, what) {
  const [a, b] = [found, wanted].map((it) => (it instanceof Uint8Array ? Buffer.from(it).toString('hex') : JSON.stringify(it ?? null)));
  expect(a === b, `${what}: ${short(a)}, expected ${short(b)}`);
}

const short = (text) => (text.length > 100 ? `${text.slice(0, 100)}… (${text.length})` : text);

/** The call must be refused with this kind, and must leave the party's state as it was. */
export async function refused(party, kind, call, what) {
  const before = await party.dump();
  let found = 'no refusal';
  try {
    await call();
  } catch (error) {
    if (error instanceof Deviation) throw error;
    found = party.kindOf(error);
  }
  same(found, kind, `${what} at ${party.name}`);
  expect((await party.dump()) === before, `${what} at ${party.name}: a refusal changed the state`);
}

/** A repeatable source of choices (mulberry32). */
export function choices(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return {
    below: (n) => next() % n,
    oneIn: (n) => next() % n === 0,
    shuffle(list) {
      for (let i = list.length - 1; i > 0; i--) {
        const j = next() % (i + 1);
        [list[i], list[j]] = [list[j], list[i]];
      }
      return list;
    },
  };
}
