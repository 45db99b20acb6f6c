// A small driver of a headless Chromium, by its debugging protocol over two pipes.

import { spawn } from 'node:child_process';

const PATIENCE_MS = 30_000;

export class Browser {
  constructor(profile) {
    const options = ['--headless=new', '--remote-debugging-pipe', '--no-first-run', '--disable-gpu',
      '--disable-dev-shm-usage', '--disable-background-networking', '--mute-audio', `--user-data-dir=${profile}`];
    // It has no sandbox for root.
    if (process.getuid() === 0) options.push('--no-sandbox');
    this.process = spawn('chromium', [...options, 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.calls = new Map();
    this.id = 0;
    this.complaints = [];
    let rest = '';
    this.process.stdio[4].setEncoding('utf8').on('data', (text) => {
      const parts = (rest + text).split('\0');
      rest = parts.pop();
      parts.forEach((part) => this.take(JSON.parse(part)));
    });
    this.process.on('exit', () => this.calls.forEach(({ reject }) => reject(new Error('chromium has ended'))));
  }

  take({ id, result, error, method, params }) {
    if (id) {
      const { resolve, reject } = this.calls.get(id);
      this.calls.delete(id);
      return error ? reject(new Error(error.message)) : resolve(result);
    }
    if (method === 'Runtime.exceptionThrown') {
      const { text, exception } = params.exceptionDetails;
      this.complaints.push(exception?.description ?? text);
    } else if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params.type)) {
      this.complaints.push(params.args.map((it) => it.value ?? it.description).join(' '));
    } else if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    }
  }

  send(method, params = {}, sessionId = this.session) {
    const id = (this.id += 1);
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => this.calls.set(id, { resolve, reject }));
  }

  /** Opens an empty page of that size. */
  async open(width, height) {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' }, undefined);
    ({ sessionId: this.session } = await this.send('Target.attachToTarget', { targetId, flatten: true }, undefined));
    for (const domain of ['Page', 'Runtime', 'Log']) await this.send(`${domain}.enable`);
    await this.send('Emulation.setScrollbarsHidden', { hidden: true });
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
  }

  goto(url) {
    return this.send('Page.navigate', { url });
  }

  /** The value of an expression in the page, which may be a promise. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  }

  /** Waits until an expression is true. */
  async until(what, expression) {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const is = await this.value(expression).catch((error) => (this.last = error) && false);
      if (is) return is;
      if (Date.now() > deadline) throw new Error(`never: ${what}; ${this.last ?? ''}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Presses a key, as by the keyboard. */
  async press(key, text) {
    const code = { Enter: 13, Tab: 9, ArrowRight: 39, Escape: 27 }[key];
    for (const type of ['keyDown', 'keyUp']) {
      await this.send('Input.dispatchKeyEvent', { type, key, code: key, windowsVirtualKeyCode: code, text: type === 'keyDown' ? text : undefined });
    }
  }

  /** Types a text where the cursor is. */
  type(text) {
    return this.send('Input.insertText', { text });
  }

  look(scheme) {
    return this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  }

  async screenshot() {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png' });
    return Buffer.from(data, 'base64');
  }

  async close() {
    const ended = new Promise((resolve) => this.process.on('exit', resolve));
    const timer = setTimeout(() => this.process.kill('SIGKILL'), 5_000);
    this.send('Browser.close', {}, undefined).catch(() => {});
    await ended;
    clearTimeout(timer);
  }
}
