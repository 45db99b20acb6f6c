// Plays an operator and a player at the admin server's page; see .ci/admin-page.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';

import { Browser } from './browser.mjs';

const [admin, game, binary, profile, pictures] = process.argv.slice(2);
const browser = new Browser(profile);
const $ = (id) => `document.getElementById(${JSON.stringify(id)})`;
const text = (id) => browser.value(`${$(id)}.textContent`);
const click = (id) => browser.value(`${$(id)}.click()`);
const shows = (id, part) => browser.until(`#${id} shows ${part}`, `${$(id)}.textContent.includes(${JSON.stringify(part)})`);
const picture = async (name, scheme = 'light') => {
  await browser.look(scheme);
  await new Promise((resolve) => setTimeout(resolve, 300));
  writeFileSync(`${pictures}/${name}.png`, await browser.screenshot());
};
async function write(id, words) {
  await browser.value(`${$(id)}.value = ''; ${$(id)}.focus()`);
  await browser.type(words);
}

let load;
async function run() {
  await browser.open(1280, 900);
  await browser.send('Emulation.setLocaleOverride', { locale: 'en-GB' });
  await browser.goto(admin);
  await shows('badge', 'Ready');

  // A figure moves under load.
  const seconds = process.env.LOAD_SECONDS ?? '6';
  load = spawn(binary, ['load', '--addr', game, '--connections', '60', '--rate', '1500', '--seconds', seconds, '--warmup', '0.1'], { stdio: 'ignore' });
  const loaded = new Promise((resolve) => load.on('exit', resolve));
  await browser.until('connections are counted', `Number(${$('connections')}.textContent) >= 60`);
  await browser.until('messages are counted', `parseFloat(${$('received')}.textContent.replace(/,/g, '')) > 300`);
  await browser.until('a latency is told', `/ms|µs/.test(${$('p99')}.textContent)`);
  assert.match(await browser.value(`${$('plot-load')}.getAttribute('aria-label')`), /shard 1: \d+ %/);
  const drawn = `[...${$('plot-messages')}.getContext('2d').getImageData(0, 0, 900, 160).data].filter((it, at) => at % 4 === 3 && it).length`;
  assert.ok(await browser.value(drawn) > 500, 'something is drawn');
  if (process.env.PICTURES) await new Promise((resolve) => setTimeout(resolve, Number(seconds) * 800));
  await picture('overview-light');
  await picture('overview-dark', 'dark');
  await browser.look('light');

  // By the keyboard to the list of sessions.
  await browser.value(`${$('tab-overview')}.focus()`);
  await browser.press('ArrowRight');
  await browser.until('sessions are listed', `${$('list')}.tBodies[0].rows.length === 25`);
  assert.equal(await browser.value('document.activeElement.id'), 'tab-sessions');
  await picture('sessions-light');
  await picture('sessions-dark', 'dark');
  await click('next');
  await shows('shown', '26–50');
  await loaded;

  // A chat and an echo.
  await click('tab-play');
  await write('uid', 'amy');
  await click('join');
  await shows('talk', 'You are in lobby, with nobody else');
  assert.equal(await browser.value('document.activeElement.id'), 'words');
  await browser.type('hello <b>there</b>');
  await browser.press('Enter', '\r');
  await shows('talk', 'hello <b>there</b>');
  await browser.value(`${$('shout')}.requestSubmit()`);
  await shows('answer', '{"text":"hello"}');
  await browser.value(`${$('rate')}.value = 2; ${$('rate')}.dispatchEvent(new Event('input'))`);
  await browser.until('echoes come', `Number(${$('echoes')}.textContent) > 20`);
  await picture('play-light');
  await picture('play-dark', 'dark');
  await browser.value(`${$('rate')}.value = 0; ${$('rate')}.dispatchEvent(new Event('input'))`);

  // The session is found, looked at, and kicked once that is confirmed.
  await click('tab-sessions');
  await write('search', 'AM');
  await browser.until('amy is found', `${$('list')}.tBodies[0].rows.length === 1 && ${$('list')}.tBodies[0].rows[0].cells[1].textContent === 'amy'`);
  await browser.value(`${$('list')}.tBodies[0].rows[0].querySelector('button').focus()`);
  await browser.press('Enter', '\r');
  await shows('facts', 'amy');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  await picture('session-light');
  await picture('session-dark', 'dark');
  await click('kick');
  await shows('ask-title', 'Kick session');
  await browser.press('Escape');
  await browser.until('nothing was done', `!${$('ask')}.open && ${$('session-end')}.hidden`);
  await click('kick');
  await browser.type('out');
  await picture('kick-light');
  await browser.press('Enter', '\r');
  await shows('session-end', 'has ended: kicked');
  await browser.value(`${$('session')}.close()`);
  await shows('talk', 'You were kicked: out');
  await browser.value(`${$('search')}.value = ''`);

  // A drain is told to balancers, and called off.
  await click('drain');
  await shows('ask-title', 'Drain this connector?');
  await click('ask-yes');
  await shows('badge', 'Draining');
  assert.equal((await fetch(`${admin}readyz`)).status, 503);
  await shows('drain', 'Call the drain off');
  await click('drain');
  await shows('badge', 'Ready');
  assert.equal((await fetch(`${admin}readyz`)).status, 200);

  // The other views, and Chinese.
  for (const view of ['backends', 'limits']) {
    await click(`tab-${view}`);
    await picture(`${view}-light`);
  }
  await click('language');
  assert.equal(await text('tab-sessions'), '会话');
  await shows('badge', '就绪');
  assert.equal(await browser.value('document.documentElement.lang'), 'zh-CN');
  await click('tab-overview');
  await picture('chinese-light');
  await click('tab-play');
  await picture('chinese-dark', 'dark');

  // Narrow, as on a telephone: nothing is wider than the screen.
  await browser.send('Emulation.setDeviceMetricsOverride', { width: 390, height: 800, deviceScaleFactor: 1, mobile: false });
  for (const view of ['overview', 'sessions', 'backends', 'limits', 'play']) {
    await click(`tab-${view}`);
    assert.ok(await browser.value('document.documentElement.scrollWidth') <= 390, view);
  }
  await picture('narrow-light');
  // That the session is gone is what the page has asked for.
  const isGone = (it) => it.includes('404') && /\/sessions\/[\d.]+ *$/.test(it);
  assert.deepEqual(browser.complaints.filter((it) => !isGone(it)), []);
}

try {
  await run();
  console.log('the page is as it should be');
} catch (error) {
  writeFileSync(`${pictures}/failed.png`, await browser.screenshot().catch(() => ''));
  console.error(error);
  console.error(browser.complaints);
  process.exitCode = 1;
} finally {
  load?.kill();
  await browser.close();
}
