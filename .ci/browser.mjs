// Pages in a headless Chromium, for the checks of pages that are served here. It is spoken to over
// a pipe, so that nothing but Node is needed.
//
//     const browser = await launch();       // null, with the reason printed, where there is none
//     const page = await browser.open(url);
//     await page.evaluate('document.title');
//     await page.until('window.isReady', 'the page is ready');
//     await page.key('KeyA', 'keyDown');
//     page.errors;                          // What the page has thrown or logged as an error.
//     await browser.close();

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

function find() {
  const candidates = process.env.CHROMIUM ? [process.env.CHROMIUM] : NAMES;
  return candidates.find(name => spawnSync(name, ['--version']).status === 0);
}

export async function launch() {
  const name = find();
  if (!name) {
    console.log(`skipped: none of ${NAMES.join(', ')} is installed (Debian's package chromium)`);
    return null;
  }
  const profile = mkdtempSync(join(tmpdir(), 'browser-'));
  const arguments_ = [
    '--headless=new', '--remote-debugging-pipe', `--user-data-dir=${profile}`,
    // Its sandbox refuses root and most containers; it only sees pages of this repository.
    '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    // Pages that nobody looks at go on as if somebody did.
    '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
    '--disable-backgrounding-occluded-windows', '--disable-background-networking', 'about:blank',
  ];
  const child = spawn(name, arguments_, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
  return new Browser(child, profile);
}

class Browser {
  constructor(child, profile) {
    this.child = child;
    this.profile = profile;
    this.lastId = 0;
    this.answers = new Map();
    this.pages = new Map();
    this.ended = new Promise(resolve => child.once('exit', resolve));
    this.ended.then(() => this.answers.forEach(({ reject }) => reject(new Error('it has ended'))));
    child.stdio[3].on('error', () => {});
    let rest = Buffer.alloc(0);
    child.stdio[4].on('data', data => {
      rest = Buffer.concat([rest, data]);
      for (let end; (end = rest.indexOf(0)) >= 0; rest = rest.subarray(end + 1)) {
        this.handle(JSON.parse(rest.subarray(0, end)));
      }
    });
  }

  handle({ id, result, error, method, params, sessionId }) {
    const answer = this.answers.get(id);
    this.answers.delete(id);
    if (answer) return error ? answer.reject(new Error(error.message)) : answer.resolve(result);
    this.pages.get(sessionId)?.handle(method, params);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.answers.set(id, { resolve, reject });
      this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  // A page in a window of its own, once it has loaded.
  async open(url) {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank', newWindow: true });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const page = new Page(this, sessionId);
    this.pages.set(sessionId, page);
    for (const domain of ['Page', 'Runtime', 'Log']) await page.send(`${domain}.enable`);
    const { errorText } = await page.send('Page.navigate', { url });
    if (errorText) throw new Error(`${url}: ${errorText}`);
    await page.until('location.href !== "about:blank" && document.readyState === "complete"', 'it has loaded');
    return page;
  }

  async close() {
    this.send('Browser.close').catch(() => {});
    const killer = setTimeout(() => this.child.kill('SIGKILL'), 5_000);
    await this.ended;
    clearTimeout(killer);
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

class Page {
  constructor(browser, sessionId) {
    this.browser = browser;
    this.sessionId = sessionId;
    this.errors = [];
  }

  send(method, params) {
    return this.browser.send(method, params, this.sessionId);
  }

  handle(method, params) {
    if (method === 'Runtime.exceptionThrown') {
      const { text, exception } = params.exceptionDetails;
      this.errors.push(exception?.description ?? text);
    }
    if (method === 'Log.entryAdded' && params.entry.level === 'error') {
      const { text, url } = params.entry;
      // Chromium asks for an icon by itself.
      if (!url?.endsWith('/favicon.ico')) this.errors.push(`${text} ${url ?? ''}`);
    }
  }

  // The value of an expression, awaited if it is a promise.
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression, awaitPromise: true, returnByValue: true,
    });
    if (exceptionDetails) {
      const { exception, text } = exceptionDetails;
      throw new Error(exception?.description ?? text);
    }
    return result.value;
  }

  // Waits until an expression is true; gives its value.
  async until(expression, what, seconds = 30) {
    for (const end = Date.now() + seconds * 1000; ;) {
      const value = await this.evaluate(expression);
      if (value) return value;
      if (Date.now() > end) throw new Error(`never: ${what}; errors: ${this.errors.join('; ')}`);
      await new Promise(resolve => setTimeout(resolve, 50));
    }
  }

  // Presses a key (`keyDown`) or lets it go (`keyUp`), by its code.
  async key(code, type) {
    await this.send('Input.dispatchKeyEvent', { type, code });
  }
}
