// Our side: a party that lives in the shim. A restart is a new process that loads the dumped state.

import { Refused, Shim } from './shim.mjs';

export const hex = (bytes) => Buffer.from(bytes).toString('hex');
export const unhex = (text) => Buffer.from(text, 'hex');

export class OurParty {
  name = 'tuckseal';
  tooFarAhead = 'too_far_ahead';
  /** What a session may be begun without. */
  allow = {};

  static async make(path, address, registrationId) {
    const party = new OurParty();
    party.path = path;
    party.address = address;
    party.registrationId = registrationId;
    party.shim = new Shim(path);
    const made = await party.shim.request('party.new', {
      party: 'us',
      service_id: address.serviceId,
      device_id: address.deviceId,
      registration_id: registrationId,
    });
    party.identity = unhex(made.identity_public);
    return party;
  }

  #request(op, args) {
    return this.shim.request(op, { party: 'us', ...args });
  }

  /** Becomes the party that was libsignal's, from all that it stored. */
  async takeOver(old, remote, distributionId) {
    const stored = old.stored(remote, distributionId);
    const made = await this.#request('party.new', {
      service_id: this.address.serviceId, device_id: this.address.deviceId,
      registration_id: old.registrationId, identity_private: hex(stored.identity),
    });
    this.registrationId = old.registrationId;
    this.identity = unhex(made.identity_public);
    for (const { kind, record } of stored.prekeys) await this.#request('prekey.import', { kind, record: hex(record) });
    if (stored.session) await this.importSession(remote, stored.session);
    for (const { sender, record } of stored.senderKeys) {
      await this.#request('group.import', { distribution_id: distributionId, sender: sender && wire(sender), record: hex(record) });
    }
  }

  importSession(remote, record) {
    return this.#request('session.import', { remote: wire(remote), record: hex(record) });
  }

  async bundle({ oneTime, kem }) {
    const it = await this.#request('party.bundle', { one_time: oneTime, kem });
    const part = (key) => key && { id: key.id, public: unhex(key.public), signature: key.signature && unhex(key.signature) };
    return {
      registrationId: it.registration_id,
      deviceId: it.device_id,
      identity: unhex(it.identity_key),
      signed: part(it.signed_prekey),
      oneTime: part(it.prekey),
      kem: part(it.kem_prekey),
    };
  }

  async processBundle(remote, bundle) {
    const part = (key) => key && { id: key.id, public: hex(key.public), signature: key.signature && hex(key.signature) };
    return this.#request('session.process_bundle', {
      remote: wire(remote),
      bundle: {
        registration_id: bundle.registrationId,
        device_id: bundle.deviceId,
        identity_key: hex(bundle.identity),
        signed_prekey: part(bundle.signed),
        prekey: part(bundle.oneTime),
        kem_prekey: part(bundle.kem),
      },
      ...this.allow,
    });
  }

  accept(remote, identity) {
    return this.#request('party.accept_identity', { remote: wire(remote), identity_key: hex(identity) });
  }

  async encrypt(remote, plaintext) {
    const { type, body } = await this.#request('session.encrypt', { remote: wire(remote), plaintext: hex(plaintext) });
    return { type, body: unhex(body) };
  }

  async decrypt(remote, { type, body }) {
    const answer = await this.#request('session.decrypt', { remote: wire(remote), type, body: hex(body), ...this.allow });
    return unhex(answer.plaintext);
  }

  async seal(remote, certificate, plaintext, { hint, groupId }) {
    const answer = await this.#request('sealed.seal', {
      remote: wire(remote),
      sender_certificate: hex(certificate),
      plaintext: hex(plaintext),
      content_hint: hint,
      group_id: groupId && hex(groupId),
    });
    return unhex(answer.body);
  }

  async open(body, root, now) {
    const it = await this.#request('sealed.open', { trust_roots: [hex(root)], now, body: hex(body), ...this.allow });
    return {
      plaintext: unhex(it.plaintext),
      sender: { serviceId: it.sender.service_id, deviceId: it.sender.device_id },
      e164: it.e164,
      hint: it.content_hint,
      groupId: it.group_id && unhex(it.group_id),
      group: it.content_type === 'sender_key',
    };
  }

  openAny(body, root, now) {
    return this.open(body, root, now);
  }

  async sealForGroup(remotes, certificate, distributionId, plaintext, options) {
    const body = await this.groupEncrypt(distributionId, plaintext);
    return this.#sealMulti(remotes, certificate, { type: 'sender_key', body }, options);
  }

  async sealForOne(remote, certificate, plaintext, options) {
    return this.#sealMulti([remote], certificate, await this.encrypt(remote, plaintext), options);
  }

  sealPlaintext(remote, certificate, body) {
    return this.#sealMulti([remote], certificate, { type: 'plaintext', body }, { hint: 'implicit', groupId: null });
  }

  async #sealMulti(remotes, certificate, { type, body }, { hint, groupId, excluded }) {
    const answer = await this.#request('sealed.seal_multi', {
      recipients: remotes.map(wire),
      sender_certificate: hex(certificate),
      content: { type, body: hex(body) },
      content_hint: hint,
      group_id: groupId && hex(groupId),
      excluded: excluded ?? [],
    });
    return unhex(answer.sent);
  }

  async distribute(distributionId) {
    return unhex((await this.#request('group.distribute', { distribution_id: distributionId })).body);
  }

  processDistribution(sender, body) {
    return this.#request('group.process', { sender: wire(sender), body: hex(body) });
  }

  async groupEncrypt(distributionId, plaintext) {
    const it = await this.#request('group.encrypt', { distribution_id: distributionId, plaintext: hex(plaintext) });
    return unhex(it.body);
  }

  async groupDecrypt(sender, body) {
    return unhex((await this.#request('group.decrypt', { sender: wire(sender), body: hex(body) })).plaintext);
  }

  async session(remote) {
    const it = await this.#request('session.info', { remote: wire(remote) });
    return { version: it.version, spqr: it.pq_ratchet, archived: it.previous_states };
  }

  dump() {
    return this.#request('party.dump').then((answer) => answer.state);
  }

  /** Ends the process and goes on in a new one from the dumped state. */
  async restart() {
    const state = await this.dump();
    await this.shim.close();
    this.shim = new Shim(this.path);
    await this.#request('party.load', { state });
  }

  close() {
    return this.shim.close();
  }

  /** The kind of a refusal, in the words of shim.md. */
  kindOf(error) {
    if (error instanceof Refused) return error.kind;
    throw error;
  }
}

const wire = (address) => ({ service_id: address.serviceId, device_id: address.deviceId });
