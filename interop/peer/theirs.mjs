// The real library's side, in this process. All its stores keep serialized records, so that nothing
// is shared by reference between two calls.

/** The last release that begins and takes sessions by X3DH is 0.74. */
const LAST_X3DH = 74;

/** The first release that is tried here and has the post-quantum ratchet is 0.76. */
const FIRST_SPQR = 76;

/** The first release that demands it is 0.92. */
const FIRST_DEMANDS_SPQR = 92;

/** The first release that is tried here and stores when an unanswered session was begun is 0.60. */
const FIRST_DATES_SESSIONS = 60;

/** The first release whose version-2 envelopes are today's is 0.42. */
const FIRST_SEALED_V2 = 42;

/** Releases differ in a few signatures; what a release can do is asked of the library itself. */
export async function load(version) {
  const library = await import(`libsignal-${version}`);
  const lib = library.default ?? library;
  const minor = Number(version.split('.')[1]);
  // Where the post-quantum ratchet can be chosen, it is on.
  const ratchet = lib.UsePQRatchet ? [lib.UsePQRatchet.Yes] : [];
  // Later releases want the local address in every call: one more argument that has no default.
  const wantsLocal = lib.signalEncrypt.length > 4;
  const release = {
    name: `libsignal ${version}`, version, lib, ratchet, wantsLocal,
    x3dh: minor <= LAST_X3DH, kyber: 'KEMKeyPair' in lib,
    spqr: minor >= FIRST_SPQR, demandsSpqr: minor >= FIRST_DEMANDS_SPQR,
    datesSessions: minor >= FIRST_DATES_SESSIONS,
    SentMessage: minor >= FIRST_SEALED_V2 ? await sentMessage(version) : null,
  };
  return { ...release, make: (address, registrationId) => new TheirParty(release, address, registrationId) };
}

/** The class that takes a version-2 message for many apart; it stands in a file of its own. */
async function sentMessage(version) {
  const { default: found } = await import(`libsignal-${version}/dist/SealedSenderMultiRecipientMessage.js`);
  return found.default ?? found;
}

/** The same release without the post-quantum ratchet, where it lets its user choose; else nothing. */
export function ratchetOff(release) {
  const choice = release.lib.UsePQRatchet;
  if (!choice) return null;
  const off = { ...release, name: `${release.name}, ratchet off`, ratchet: [choice.No], spqr: false, off: true };
  return { ...off, make: (address, registrationId) => new TheirParty(off, address, registrationId) };
}

class TheirParty {
  constructor(release, address, registrationId) {
    this.name = release.name;
    this.release = release;
    // The library has no kind of its own for it.
    this.tooFarAhead = 'invalid_message';
    this.lib = release.lib;
    this.address = address;
    this.registrationId = registrationId;
    this.key = this.lib.PrivateKey.generate();
    this.identity = this.key.getPublicKey().serialize();
    this.nextId = 1;
    this.stores = makeStores(this.lib, this.key, registrationId);
  }

  /** The address of the remote, and our own where the release wants it. */
  #between(remote) {
    return this.release.wantsLocal ? [this.#at(remote), this.#at(this.address)] : [this.#at(remote)];
  }

  #at({ serviceId, deviceId }) {
    return this.lib.ProtocolAddress.new(serviceId, deviceId);
  }

  async bundle({ oneTime, kem }) {
    const { lib, stores } = this;
    const id = this.nextId++;
    const bundle = { registrationId: this.registrationId, deviceId: this.address.deviceId, identity: this.identity };
    const signed = lib.PrivateKey.generate();
    bundle.signed = { id, public: signed.getPublicKey().serialize() };
    bundle.signed.signature = this.key.sign(bundle.signed.public);
    await stores.signed.saveSignedPreKey(id, lib.SignedPreKeyRecord.new(id, 0, signed.getPublicKey(), signed, bundle.signed.signature));
    if (oneTime) {
      const key = lib.PrivateKey.generate();
      bundle.oneTime = { id, public: key.getPublicKey().serialize() };
      await stores.prekeys.savePreKey(id, lib.PreKeyRecord.new(id, key.getPublicKey(), key));
    }
    if (kem !== 'none') {
      const pair = lib.KEMKeyPair.generate();
      bundle.kem = { id, public: pair.getPublicKey().serialize() };
      bundle.kem.signature = this.key.sign(bundle.kem.public);
      await stores.kyber.saveKyberPreKey(id, lib.KyberPreKeyRecord.new(id, 0, pair, bundle.kem.signature));
      if (kem === 'one-time') stores.kyber.oneTime.add(id);
    }
    return bundle;
  }

  async processBundle(remote, bundle) {
    const { lib, stores } = this;
    const key = (bytes) => lib.PublicKey.deserialize(bytes);
    const kem = bundle.kem
      ? [bundle.kem.id, lib.KEMPublicKey.deserialize(bundle.kem.public), bundle.kem.signature]
      : [];
    const theirs = lib.PreKeyBundle.new(
      bundle.registrationId,
      bundle.deviceId,
      bundle.oneTime?.id ?? null,
      bundle.oneTime ? key(bundle.oneTime.public) : null,
      bundle.signed.id,
      key(bundle.signed.public),
      bundle.signed.signature,
      key(bundle.identity),
      ...kem,
    );
    await lib.processPreKeyBundle(theirs, ...this.#between(remote), stores.sessions, stores.identities, ...this.release.ratchet);
  }

  accept(remote, identity) {
    return this.stores.identities.saveIdentity(this.#at(remote), this.lib.PublicKey.deserialize(identity));
  }

  async encrypt(remote, plaintext) {
    const { lib, stores } = this;
    const message = await lib.signalEncrypt(plaintext, ...this.#between(remote), stores.sessions, stores.identities);
    const type = message.type() === lib.CiphertextMessageType.PreKey ? 'prekey' : 'whisper';
    return { type, body: message.serialize() };
  }

  async decrypt(remote, { type, body }) {
    const { lib, stores } = this;
    const at = this.#between(remote);
    if (type === 'whisper') {
      return lib.signalDecrypt(lib.SignalMessage.deserialize(body), ...at, stores.sessions, stores.identities);
    }
    const kyber = this.release.kyber ? [stores.kyber, ...this.release.ratchet] : [];
    return lib.signalDecryptPreKey(
      lib.PreKeySignalMessage.deserialize(body), ...at, stores.sessions, stores.identities, stores.prekeys, stores.signed, ...kyber,
    );
  }

  async seal(remote, certificate, plaintext, { hint, groupId }) {
    const { lib, stores } = this;
    const message = await lib.signalEncrypt(plaintext, ...this.#between(remote), stores.sessions, stores.identities);
    const content = lib.UnidentifiedSenderMessageContent.new(
      message, lib.SenderCertificate.deserialize(certificate), HINTS.indexOf(hint), groupId ?? null,
    );
    return lib.sealedSenderEncrypt(content, this.#at(remote), stores.identities);
  }

  async open(body, root, now) {
    const { lib, stores } = this;
    const content = await lib.sealedSenderDecryptToUsmc(body, stores.identities);
    const kyber = this.release.kyber ? [stores.kyber, ...this.release.ratchet] : [];
    const it = await lib.sealedSenderDecryptMessage(
      body, lib.PublicKey.deserialize(root), now, null, this.address.serviceId, this.address.deviceId,
      stores.sessions, stores.identities, stores.prekeys, stores.signed, ...kyber,
    );
    return {
      plaintext: it.message(),
      sender: { serviceId: it.senderUuid(), deviceId: it.deviceId() },
      e164: it.senderE164(),
      hint: HINTS[content.contentHint()],
      groupId: content.groupId(),
    };
  }

  async sealForGroup(remotes, certificate, distributionId, plaintext, options) {
    const message = await this.lib.groupEncrypt(this.#at(this.address), distributionId, this.stores.senderKeys, plaintext);
    return this.#sealMulti(remotes, certificate, message, options);
  }

  async sealForOne(remote, certificate, plaintext, options) {
    const { lib, stores } = this;
    const message = await lib.signalEncrypt(plaintext, ...this.#between(remote), stores.sessions, stores.identities);
    return this.#sealMulti([remote], certificate, message, options);
  }

  sealPlaintext(remote, certificate, body) {
    const message = this.lib.CiphertextMessage.from(this.lib.PlaintextContent.deserialize(body));
    return this.#sealMulti([remote], certificate, message, { hint: 'implicit', groupId: null });
  }

  #sealMulti(remotes, certificate, message, { hint, groupId, excluded }) {
    const { lib, stores } = this;
    const content = lib.UnidentifiedSenderMessageContent.new(
      message, lib.SenderCertificate.deserialize(certificate), HINTS.indexOf(hint), groupId ?? null,
    );
    const recipients = remotes.map((remote) => this.#at(remote));
    if (!excluded) return lib.sealedSenderMultiRecipientEncrypt(content, recipients, stores.identities, stores.sessions);
    return lib.sealedSenderMultiRecipientEncrypt({
      content, recipients, identityStore: stores.identities, sessionStore: stores.sessions,
      excludedRecipients: excluded.map((id) => lib.ServiceId.parseFromServiceIdString(id)),
    });
  }

  /** Opens an envelope with a session or a group message in it. */
  async openAny(body, root, now) {
    const { lib, stores } = this;
    const content = await lib.sealedSenderDecryptToUsmc(body, stores.identities);
    const { SenderKey, Plaintext } = lib.CiphertextMessageType;
    const kind = content.msgType();
    if (kind !== SenderKey && kind !== Plaintext) return { ...(await this.open(body, root, now)), group: false };
    const certificate = content.senderCertificate();
    if (!certificate.validate(lib.PublicKey.deserialize(root), now)) throw Object.assign(new Error('the certificate is not valid'), { code: 'Certificate' });
    const sender = { serviceId: certificate.senderUuid(), deviceId: certificate.senderDeviceId() };
    return {
      plaintext: kind === Plaintext ? content.contents().subarray(1) : await this.groupDecrypt(sender, content.contents()),
      sender, group: kind === SenderKey, hint: HINTS[content.contentHint()], groupId: content.groupId(),
    };
  }

  /** The distribution message of our key, which is made when there is none. */
  async distribute(distributionId) {
    const message = await this.lib.SenderKeyDistributionMessage.create(this.#at(this.address), distributionId, this.stores.senderKeys);
    return message.serialize();
  }

  processDistribution(sender, body) {
    const message = this.lib.SenderKeyDistributionMessage.deserialize(body);
    return this.lib.processSenderKeyDistributionMessage(this.#at(sender), message, this.stores.senderKeys);
  }

  async groupEncrypt(distributionId, plaintext) {
    const message = await this.lib.groupEncrypt(this.#at(this.address), distributionId, this.stores.senderKeys, plaintext);
    return message.serialize();
  }

  groupDecrypt(sender, body) {
    return this.lib.groupDecrypt(this.#at(sender), this.stores.senderKeys, body);
  }

  /** All that the stores hold, as the library serialized it: what an app has to move. */
  stored(remote, distributionId) {
    const { prekeys, signed, kyber, sessions, senderKeys } = this.stores;
    const at = (address) => `${address.serviceId}.${address.deviceId}`;
    const serialized = (kind, store) => [...store.records].map(([id, it]) => ({ kind: kind(id), record: it.serialize() }));
    const key = (address) => senderKeys.records.get(`${at(address)}/${distributionId}`);
    const found = sessions.records.get(at(remote));
    return {
      identity: this.key.serialize(),
      prekeys: [
        ...serialized(() => 'one-time', prekeys),
        ...serialized(() => 'signed', signed),
        ...serialized((id) => (kyber.oneTime.has(id) ? 'kem-one-time' : 'kem-last-resort'), kyber),
      ],
      session: found && Buffer.from(found, 'hex'),
      senderKeys: [[null, key(this.address)], [remote, key(remote)]]
        .filter(([, record]) => record)
        .map(([sender, record]) => ({ sender, record: Buffer.from(record, 'hex') })),
    };
  }

  /** The library tells neither the version nor the ratchet; its own messages do. */
  async session() {
    return null;
  }

  /** No identities: 0.60 already keeps the one of a first message that it then refuses. */
  async dump() {
    return JSON.stringify([...this.stores.sessions.records, ...this.stores.senderKeys.records]);
  }

  async close() {}

  /** The kind of a refusal: the library's own error codes, in the words of shim.md. */
  kindOf(error) {
    const { ErrorCode } = this.lib;
    switch (error.code) {
      case ErrorCode.DuplicatedMessage:
        return 'duplicate_message';
      case ErrorCode.UntrustedIdentity:
        return 'untrusted_identity';
      case ErrorCode.SessionNotFound:
        return 'no_session';
      case ErrorCode.SealedSenderSelfSend:
        return 'self_send';
      default:
        if (/[Ss]ender ?key/.test(error.message)) return 'no_sender_key';
        if (/[Ss]ignature/.test(error.message)) return 'invalid_signature';
        return /trust root|[Cc]ertificate/.test(error.message) ? 'invalid_certificate' : 'invalid_message';
    }
  }
}

const HINTS = ['default', 'resendable', 'implicit'];

function makeStores(lib, identityKey, registrationId) {
  const name = (address) => `${address.name()}.${address.deviceId()}`;

  class Sessions extends lib.SessionStore {
    records = new Map();
    async saveSession(address, record) {
      this.records.set(name(address), Buffer.from(record.serialize()).toString('hex'));
    }
    async getSession(address) {
      const record = this.records.get(name(address));
      return record ? lib.SessionRecord.deserialize(Buffer.from(record, 'hex')) : null;
    }
    async getExistingSessions(addresses) {
      return Promise.all(addresses.map((address) => this.getSession(address)));
    }
  }

  class SenderKeys extends lib.SenderKeyStore {
    records = new Map();
    async saveSenderKey(sender, distributionId, record) {
      this.records.set(`${name(sender)}/${distributionId}`, Buffer.from(record.serialize()).toString('hex'));
    }
    async getSenderKey(sender, distributionId) {
      const record = this.records.get(`${name(sender)}/${distributionId}`);
      return record ? lib.SenderKeyRecord.deserialize(Buffer.from(record, 'hex')) : null;
    }
  }

  /** Trust on first use. */
  class Identities extends lib.IdentityKeyStore {
    known = new Map();
    async getIdentityKey() {
      return identityKey;
    }
    async getLocalRegistrationId() {
      return registrationId;
    }
    async saveIdentity(address, key) {
      const hex = Buffer.from(key.serialize()).toString('hex');
      const changed = this.known.has(name(address)) && this.known.get(name(address)) !== hex;
      this.known.set(name(address), hex);
      return lib.IdentityChange ? Number(changed) : changed;
    }
    async isTrustedIdentity(address, key) {
      const known = this.known.get(name(address));
      return known === undefined || known === Buffer.from(key.serialize()).toString('hex');
    }
    async getIdentity(address) {
      const known = this.known.get(name(address));
      return known ? lib.PublicKey.deserialize(Buffer.from(known, 'hex')) : null;
    }
  }

  const kept = (record, id, kind) => {
    if (!record) throw new Error(`no ${kind} prekey ${id}`);
    return record;
  };

  class PreKeys extends lib.PreKeyStore {
    records = new Map();
    async savePreKey(id, record) {
      this.records.set(id, record);
    }
    async getPreKey(id) {
      return kept(this.records.get(id), id, 'one-time');
    }
    async removePreKey(id) {
      this.records.delete(id);
    }
  }

  class Signed extends lib.SignedPreKeyStore {
    records = new Map();
    async saveSignedPreKey(id, record) {
      this.records.set(id, record);
    }
    async getSignedPreKey(id) {
      return kept(this.records.get(id), id, 'signed');
    }
  }

  class Kyber extends (lib.KyberPreKeyStore ?? class {}) {
    records = new Map();
    oneTime = new Set();
    async saveKyberPreKey(id, record) {
      this.records.set(id, record);
    }
    async getKyberPreKey(id) {
      return kept(this.records.get(id), id, 'kyber');
    }
    async markKyberPreKeyUsed(id) {
      if (this.oneTime.delete(id)) this.records.delete(id);
    }
  }

  return {
    sessions: new Sessions(),
    senderKeys: new SenderKeys(),
    identities: new Identities(),
    prekeys: new PreKeys(),
    signed: new Signed(),
    kyber: new Kyber(),
  };
}
