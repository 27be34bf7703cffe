// libsignal-protocol-c, the C library that was the reference before libsignal: X3DH, version 3. It is
// called in this process, and takes its cryptography and its stores from here, as it wants it.

import { createCipheriv, createDecipheriv, createHash, createHmac, randomFillSync } from 'node:crypto';

/** Debian's package libsignal-protocol-c2.3.2 installs this. */
const LIBRARY = 'libsignal-protocol-c.so.2.3.2';
const NAME = 'libsignal-protocol-c 2.3';

/** The peer. An exception where the library is not installed. */
export async function loadC() {
  const { default: koffi } = await import('koffi');
  const c = bind(koffi, koffi.load(LIBRARY));
  const make = (address, registrationId) => new CParty(c, address, registrationId);
  return { name: NAME, make, x3dh: true, kyber: false, spqr: false, sessionsAlone: true };
}

const KINDS = {
  [-1001]: 'duplicate_message',
  [-1003]: 'no_prekey',
  [-1006]: 'unknown_version',
  [-1007]: 'legacy_version',
  [-1008]: 'no_session',
  [-1010]: 'untrusted_identity',
  [-1011]: 'invalid_signature',
};
const FAILED = -1000;
const INVALID_KEY_ID = -1003;
const PREKEY_TYPE = 3;
const AES_CBC = 2;

class Failure extends Error {
  constructor(name, code) {
    super(`${name}: error ${code}`);
    this.code = code;
  }
}

/** The library's functions; all pointers are untyped. A negative answer is an exception. */
function bind(koffi, library) {
  const Address = koffi.struct({ name: 'void *', name_len: 'size_t', device_id: 'int32_t' });
  const call = (result, name, ...args) => library.func(name, result, args);
  /** A function that gives what it makes through its first pointer to a pointer, which stands at `at`. */
  const maker = (name, args, at = 0) => {
    const inner = call('int', name, ...args.toSpliced(at, 0, koffi.out(koffi.pointer('void *'))));
    return (...given) => {
      const made = [null];
      check(name, inner(...given.toSpliced(at, 0, made)));
      return made[0];
    };
  };
  const doer = (name, ...args) => {
    const inner = call('int', name, ...args);
    return (...given) => check(name, inner(...given));
  };
  const check = (name, code) => {
    if (code < 0) throw new Failure(name, code);
    return code;
  };
  const [pointer, size, id] = ['void *', 'size_t', 'uint32_t'];

  const newBuffer = call(pointer, 'signal_buffer_create', 'const uint8_t *', size);
  const bufferData = call(pointer, 'signal_buffer_data', pointer);
  const bufferLength = call(size, 'signal_buffer_len', pointer);
  const read = (at, length) => Buffer.from(new Uint8Array(koffi.view(at, length)));
  const contents = (buffer) => read(bufferData(buffer), Number(bufferLength(buffer)));
  const free = call('void', 'signal_buffer_free', pointer);

  return {
    read,
    write: (at, bytes) => new Uint8Array(koffi.view(at, bytes.length)).set(bytes),
    /** Writes a new buffer with these bytes to where the library wants it. */
    give: (out, bytes) => koffi.encode(out, pointer, newBuffer(bytes, bytes.length)),
    store: (out, type, value) => koffi.encode(out, type, value),
    /** The bytes of a buffer that is ours to free. */
    take: (buffer) => {
      const bytes = contents(buffer);
      free(buffer);
      return bytes;
    },
    contents,
    /** The address stays where it is: ciphers and builders keep the pointer. */
    address: ({ serviceId, deviceId }) => {
      const name = koffi.alloc('uint8_t', serviceId.length);
      new Uint8Array(koffi.view(name, serviceId.length)).set(Buffer.from(serviceId));
      const at = koffi.alloc(Address, 1);
      koffi.encode(at, Address, { name, name_len: serviceId.length, device_id: deviceId });
      return at;
    },
    readAddress: (at) => {
      const { name, name_len: length, device_id: device } = koffi.decode(at, Address);
      return `${read(name, Number(length))}.${device}`;
    },
    callback: (result, args, f) => koffi.register(f, koffi.pointer(koffi.proto(result, args))),
    table: (functions) => {
      const type = koffi.array(pointer, functions.length);
      const at = koffi.alloc(pointer, functions.length);
      koffi.encode(at, type, functions);
      return at;
    },
    unref: call('void', 'signal_type_unref', pointer),
    newContext: maker('signal_context_create', [pointer]),
    setCrypto: doer('signal_context_set_crypto_provider', pointer, pointer),
    newStores: maker('signal_protocol_store_context_create', [pointer]),
    setStore: (kind, stores, table) => doer(`signal_protocol_store_context_set_${kind}_store`, pointer, pointer)(stores, table),
    newKeyPair: maker('curve_generate_key_pair', [pointer], 1),
    publicOf: call(pointer, 'ec_key_pair_get_public', pointer),
    privateOf: call(pointer, 'ec_key_pair_get_private', pointer),
    publicBytes: maker('ec_public_key_serialize', [pointer]),
    privateBytes: maker('ec_private_key_serialize', [pointer]),
    decodePublic: maker('curve_decode_point', ['const uint8_t *', size, pointer]),
    sign: maker('curve_calculate_signature', [pointer, pointer, 'const uint8_t *', size], 1),
    newPreKey: maker('session_pre_key_create', [id, pointer]),
    preKeyBytes: maker('session_pre_key_serialize', [pointer]),
    newSigned: maker('session_signed_pre_key_create', [id, 'uint64_t', pointer, 'const uint8_t *', size]),
    signedBytes: maker('session_signed_pre_key_serialize', [pointer]),
    newBundle: maker('session_pre_key_bundle_create', [id, 'int', id, pointer, id, pointer, 'const uint8_t *', size, pointer]),
    newBuilder: maker('session_builder_create', [pointer, pointer, pointer]),
    process: doer('session_builder_process_pre_key_bundle', pointer, pointer),
    freeBuilder: call('void', 'session_builder_free', pointer),
    newCipher: maker('session_cipher_create', [pointer, pointer, pointer]),
    freeCipher: call('void', 'session_cipher_free', pointer),
    encrypt: maker('session_cipher_encrypt', [pointer, 'const uint8_t *', size], 3),
    messageType: call('int', 'ciphertext_message_get_type', pointer),
    messageBytes: call(pointer, 'ciphertext_message_get_serialized', pointer),
    decode: {
      prekey: maker('pre_key_signal_message_deserialize', ['const uint8_t *', size, pointer]),
      whisper: maker('signal_message_deserialize', ['const uint8_t *', size, pointer]),
    },
    decrypt: {
      prekey: maker('session_cipher_decrypt_pre_key_signal_message', [pointer, pointer, pointer], 3),
      whisper: maker('session_cipher_decrypt_signal_message', [pointer, pointer, pointer], 3),
    },
  };
}

/** One side that lives in the C library. */
class CParty {
  name = NAME;
  #c;
  #context;
  #stores;
  #identity;
  #kept;
  #nextId = 1;
  #registrationId;

  constructor(c, address, registrationId) {
    this.#c = c;
    this.address = address;
    this.#registrationId = registrationId;
    this.#context = c.newContext(null);
    c.setCrypto(this.#context, crypto(c));
    this.#identity = c.newKeyPair(this.#context);
    this.identity = this.#publicBytes(this.#identity);
    const privateKey = c.take(c.privateBytes(c.privateOf(this.#identity)));
    this.#stores = c.newStores(this.#context);
    this.#kept = keep(c, this.#stores, { identity: this.identity, privateKey, registrationId });
  }

  #publicBytes(pair) {
    return this.#c.take(this.#c.publicBytes(this.#c.publicOf(pair)));
  }

  async bundle({ oneTime }) {
    const c = this.#c;
    const id = this.#nextId++;
    const pair = c.newKeyPair(this.#context);
    const signed = { id, public: this.#publicBytes(pair) };
    signed.signature = c.take(c.sign(this.#context, c.privateOf(this.#identity), signed.public, signed.public.length));
    const record = c.newSigned(id, 0, pair, signed.signature, signed.signature.length);
    this.#kept.signed.set(id, c.take(c.signedBytes(record)));
    const bundle = { registrationId: this.#registrationId, deviceId: this.address.deviceId, identity: this.identity, signed };
    if (oneTime) {
      const pair = c.newKeyPair(this.#context);
      this.#kept.prekeys.set(id, c.take(c.preKeyBytes(c.newPreKey(id, pair))));
      bundle.oneTime = { id, public: this.#publicBytes(pair) };
    }
    return bundle;
  }

  async processBundle(remote, { registrationId, deviceId, identity, signed, oneTime }) {
    const c = this.#c;
    const key = (bytes) => c.decodePublic(bytes, bytes.length, this.#context);
    const bundle = c.newBundle(
      registrationId, deviceId, oneTime?.id ?? 0, oneTime ? key(oneTime.public) : null,
      signed.id, key(signed.public), signed.signature, signed.signature.length, key(identity),
    );
    const builder = c.newBuilder(this.#stores, c.address(remote), this.#context);
    try {
      c.process(builder, bundle);
    } finally {
      c.freeBuilder(builder);
    }
  }

  async accept(remote, identity) {
    this.#kept.identities.set(name(remote), Buffer.from(identity).toString('hex'));
  }

  #withCipher(remote, work) {
    const cipher = this.#c.newCipher(this.#stores, this.#c.address(remote), this.#context);
    try {
      return work(cipher);
    } finally {
      this.#c.freeCipher(cipher);
    }
  }

  async encrypt(remote, plaintext) {
    const c = this.#c;
    return this.#withCipher(remote, (cipher) => {
      const message = c.encrypt(cipher, plaintext, plaintext.length);
      const type = c.messageType(message) === PREKEY_TYPE ? 'prekey' : 'whisper';
      const body = c.contents(c.messageBytes(message));
      c.unref(message);
      return { type, body };
    });
  }

  async decrypt(remote, { type, body }) {
    const c = this.#c;
    const message = c.decode[type](body, body.length, this.#context);
    try {
      return this.#withCipher(remote, (cipher) => c.take(c.decrypt[type](cipher, message, null)));
    } finally {
      c.unref(message);
    }
  }

  async session() {
    return null;
  }

  /** Sessions alone, as with libsignal. */
  async dump() {
    return JSON.stringify([...this.#kept.sessions].map(([at, record]) => [at, record.toString('hex')]));
  }

  async close() {}

  kindOf(error) {
    if (error instanceof Failure) return KINDS[error.code] ?? 'invalid_message';
    throw error;
  }
}

const name = ({ serviceId, deviceId }) => `${serviceId}.${deviceId}`;

/** The stores: maps here, behind the library's tables of functions. */
function keep(c, stores, { identity, privateKey, registrationId }) {
  const kept = { sessions: new Map(), prekeys: new Map(), signed: new Map(), identities: new Map() };
  const [pointer, size, id] = ['void *', 'size_t', 'uint32_t'];
  const table = (...functions) => c.table([...functions.map(([args, f]) => c.callback('int', [...args, pointer], f)), null, null]);
  const put = (map) => [[id, pointer, size], (key, at, length) => (map.set(key, c.read(at, Number(length))), 0)];
  const has = (map) => [[id], (key) => Number(map.has(key))];
  const prekeyTable = (map) =>
    table(
      [[pointer, id], (out, key) => (map.has(key) ? (c.give(out, map.get(key)), 0) : INVALID_KEY_ID)],
      put(map),
      has(map),
      [[id], (key) => (map.delete(key), 0)],
    );
  const { sessions, identities } = kept;
  const load = (out, _, at) => {
    const record = sessions.get(c.readAddress(at));
    if (record) c.give(out, record);
    return Number(record !== undefined);
  };
  const hex = (at, length) => c.read(at, Number(length)).toString('hex');
  c.setStore('session', stores, table(
    [[pointer, pointer, pointer], load],
    [[pointer, pointer, size], () => FAILED],
    [[pointer, pointer, size, pointer, size], (at, record, length) => (sessions.set(c.readAddress(at), c.read(record, Number(length))), 0)],
    [[pointer], (at) => Number(sessions.has(c.readAddress(at)))],
    [[pointer], (at) => Number(sessions.delete(c.readAddress(at)))],
    [[pointer, size], () => FAILED],
  ));
  c.setStore('pre_key', stores, prekeyTable(kept.prekeys));
  c.setStore('signed_pre_key', stores, prekeyTable(kept.signed));
  const trusted = (at, key, length) => {
    const known = identities.get(c.readAddress(at));
    return Number(known === undefined || known === hex(key, length));
  };
  // The one function whose user data is not the last argument.
  const localId = c.callback('int', [pointer, pointer], (_, out) => (c.store(out, id, registrationId), 0));
  const ready = (args, f) => c.callback('int', [...args, pointer], f);
  c.setStore('identity_key', stores, c.table([
    ready([pointer, pointer], (publicOut, privateOut) => (c.give(publicOut, identity), c.give(privateOut, privateKey), 0)),
    localId,
    ready([pointer, pointer, size], (at, key, length) => (identities.set(c.readAddress(at), hex(key, length)), 0)),
    ready([pointer, pointer, size], trusted),
    null,
    null,
  ]));
  return kept;
}

/** Node's cryptography, behind the library's table of functions. */
function crypto(c) {
  const running = new Map();
  let handles = 0n;
  const [pointer, size] = ['void *', 'size_t'];
  const start = (out, hash) => {
    running.set(++handles, hash);
    c.store(out, pointer, handles);
    return 0;
  };
  const key = (handle) => BigInt(handle);
  const update = c.callback('int', [pointer, pointer, size, pointer], (handle, at, length) => (running.get(key(handle)).update(c.read(at, Number(length))), 0));
  const final = c.callback('int', [pointer, pointer, pointer], (handle, out) => (c.give(out, running.get(key(handle)).digest()), 0));
  const cleanup = c.callback('void', [pointer, pointer], (handle) => void running.delete(key(handle)));
  const cipher = (make) =>
    c.callback('int', [pointer, 'int', pointer, size, pointer, size, pointer, size, pointer], (out, kind, secret, secretLength, iv, ivLength, text, length) => {
      const mode = kind === AES_CBC ? 'cbc' : 'ctr';
      const it = make(`aes-${8 * Number(secretLength)}-${mode}`, c.read(secret, Number(secretLength)), c.read(iv, Number(ivLength)));
      try {
        c.give(out, Buffer.concat([it.update(c.read(text, Number(length))), it.final()]));
        return 0;
      } catch {
        return FAILED;
      }
    });
  return c.table([
    c.callback('int', [pointer, size, pointer], (at, length) => (c.write(at, randomFillSync(Buffer.alloc(Number(length)))), 0)),
    c.callback('int', [pointer, pointer, size, pointer], (out, at, length) => start(out, createHmac('sha256', c.read(at, Number(length))))),
    update, final, cleanup,
    c.callback('int', [pointer, pointer], (out) => start(out, createHash('sha512'))),
    update, final, cleanup,
    cipher(createCipheriv), cipher(createDecipheriv),
    null,
  ]);
}
