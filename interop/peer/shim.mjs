// The shim as a child process: one request, one answer, in order (docs/spec/shim.md).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** A request that the shim answered with `err`. */
export class Refused extends Error {
  constructor(op, { kind, message }) {
    super(`${op}: ${kind}: ${message}`);
    this.kind = kind;
  }
}

export class Shim {
  #child;
  #lines;
  #waiting = new Map();
  #next = 0;
  #exit;

  constructor(path) {
    this.#child = spawn(path, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#exit = once(this.#child, 'exit');
    this.#exit.then(() => this.#fail('the shim ended'), (error) => this.#fail(error.message));
    this.#lines = createInterface({ input: this.#child.stdout, crlfDelay: Infinity });
    this.#lines.on('line', (line) => this.#answer(JSON.parse(line)));
  }

  /** Bytes go out as hex; the answer is the `ok` object as it came. */
  request(op, args = {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { op, resolve, reject });
      this.#child.stdin.write(JSON.stringify({ id, op, ...args }) + '\n');
    });
  }

  #answer({ id, ok, err }) {
    const { op, resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (err) reject(new Refused(op, err));
    else resolve(ok);
  }

  #fail(reason) {
    for (const { op, reject } of this.#waiting.values()) reject(new Error(`${op}: ${reason}`));
    this.#waiting.clear();
  }

  /** Ends the input; the shim must end with status 0. */
  async close() {
    this.#child.stdin.end();
    const [status] = await this.#exit;
    if (status !== 0) throw new Error(`the shim ended with status ${status}`);
  }
}
