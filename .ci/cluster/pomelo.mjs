// What happens to a running Pomelo cluster behind our connectors: two of them with one player on
// both, long pipelines, a stopped backend, a restarted one, a restarted master, the admin console.
// Started by .ci/pomelo-cluster, which copies it beside the oracle's clients; each step prints a
// line.
import fs from 'node:fs';
import path from 'node:path';
import { spawn, spawnSync } from 'node:child_process';
import { Raw, MSG, request } from './clients/raw.mjs';
import { PATIENCE, eventually, finish, opt, same, sleep, step } from './cluster-steps.mjs';

const app = opt('app');
const timeout = Number(opt('timeout'));
const pids = {};
for (const id of ['chat-1', 'chat-2', 'master']) pids[id] = Number(opt(id));

const E = 'connector.entryHandler.';
const C = 'chat.chatHandler.';

// A client that is logged in; `where` tells which backend its messages go to.
async function player(uid, server = opt('one'), room = 'cluster') {
  const [host, port] = server.split(':');
  const client = new Raw(host, Number(port), 'tcp', { autoBeat: 1000 });
  await client.open();
  client.next = 1;
  client.request = (route, body, ms) => client.askJson(client.next++, route, body, ms);
  client.where = async () => (await client.request(C + 'where', {}, PATIENCE)).server;
  same((await client.request(E + 'entry', { uid, room })).code, 200);
  return client;
}

// Players whose messages go to each of the backends, by the hash of the app's own route function.
const hash = (text) => [...text].reduce((h, c) => (h * 31 + c.charCodeAt(0)) >>> 0, 0);
const uidOn = (place, not = '') => {
  for (let n = 0; ; n++) if (hash(`p${n}`) % 2 === place && `p${n}` !== not) return `p${n}`;
};

// Starts a process of the app again as it was started before.
const args = {};
for (const id of Object.keys(pids)) {
  args[id] = fs.readFileSync(`/proc/${pids[id]}/cmdline`, 'utf8').split('\0').slice(1, -1);
}
function restart(id, ...more) {
  const child = spawn(process.execPath, [...args[id], ...more], {
    cwd: path.dirname(app), detached: true, stdio: 'ignore',
  });
  child.unref();
  pids[id] = child.pid;
}
const isAlive = (pid) => { try { process.kill(pid, 0); return true; } catch { return false; } };
async function end(id) {
  process.kill(pids[id], 'SIGKILL');
  await eventually(`${id} has ended`, () => !isAlive(pids[id]));
}

// Sends many requests at once and waits for the answers, in order.
async function pipeline(client, route, count, body, ms) {
  const first = client.next;
  client.next += count;
  const from = client.packages.length;
  for (let n = 0; n < count; n++) client.send(request(first + n, route, body(n)));
  const answers = () => client.packages.slice(from).filter((p) => p.msg?.type === MSG.RESPONSE);
  await client.until(() => answers().length >= count, ms);
  same(answers().map((p) => p.msg.id), Array.from({ length: count }, (_, n) => first + n));
  return answers().map((p) => JSON.parse(p.msg.body));
}

const carol = await player(uidOn(1));
const dave = await player(uidOn(0));

await step('one player on two connectors', async () => {
  const uid = uidOn(0, uidOn(0));
  const [one, two] = [await player(uid), await player(uid, opt('two'))];
  for (const client of [one, two]) same((await client.request(C + 'join', {})).code, 200);
  same((await one.request(C + 'send', { msg: 'to both' })).code, 200);
  for (const client of [one, two]) {
    await client.until(() => client.push('onChat'), PATIENCE);
    same(JSON.parse(client.push('onChat').msg.body), { from: uid, msg: 'to both' });
  }
  // The backend is told of the end of one of them, and of one only.
  two.close();
  await eventually('the second has left the channel', async () => {
    one.packages.length = 0;
    const { users } = await one.request(C + 'join', {});
    return users.filter((user) => user === uid).length === 1;
  });
  one.close();
});

await step('2,000 pipelined requests on each of 8 sessions', async () => {
  const players = [];
  for (let n = 0; n < 8; n++) players.push(await player(`pipeline-${n}`));
  const all = await Promise.all(players.map((client, n) =>
    pipeline(client, C + 'echo', 2000, (at) => ({ n, at }), 60000)));
  all.forEach((answers, n) => answers.forEach((answer, at) => same(answer, { n, at })));
  players.forEach((client) => client.close());
});

await step('a stopped backend with 1,000 requests pending', async () => {
  same([await carol.where(), await dave.where()], ['chat-2', 'chat-1']);
  process.kill(pids['chat-2'], 'SIGSTOP');
  const start = performance.now();
  const pending = pipeline(carol, C + 'echo', 1000, () => ({}), PATIENCE);
  const took = { local: [], other: [] };
  while (performance.now() - start < timeout * 0.8) {
    for (const [kind, route] of [['local', E + 'echo'], ['other', C + 'echo']]) {
      const before = performance.now();
      same(await dave.request(route, { a: 1 }), { a: 1 });
      took[kind].push(performance.now() - before);
    }
  }
  const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
  const medians = [median(took.local), median(took.other)];
  if (medians.some((ms) => ms > 50)) throw new Error(`others wait ${medians} ms`);
  const answers = await pending;
  const ms = performance.now() - start;
  if (answers.some((answer) => answer.code !== 500)) throw new Error('some were answered');
  if (ms < timeout * 0.9 || ms > timeout + 2000) throw new Error(`answered after ${ms} ms`);
  process.kill(pids['chat-2'], 'SIGCONT');
  await eventually('it is used again', async () => {
    const answer = await carol.request(C + 'where', {}, PATIENCE);
    return answer.server === 'chat-2';
  });
  const [local, other] = medians.map((ms) => ms.toFixed(2));
  return `answered after ${ms | 0} ms; meanwhile medians of ${local} ms local, ${other} ms forwarded`;
});

await step('a restarted backend', async () => {
  const pending = carol.request(C + 'slow', { ms: 60000 }, PATIENCE);
  await sleep(200);
  const start = performance.now();
  await end('chat-2');
  same(await pending, { code: 500 });
  const ms = performance.now() - start;
  if (ms > timeout / 2) throw new Error(`its calls failed after ${ms} ms only`);
  await eventually('the other one stands in', async () => (await carol.where()) === 'chat-1');
  restart('chat-2');
  await eventually('it is used again', async () => (await carol.where()) === 'chat-2');
});

await step('a restarted master', async () => {
  await end('master');
  for (let n = 0; n < 20; n++) {
    same([await carol.where(), await dave.where()], ['chat-2', 'chat-1']);
    await sleep(50);
  }
  // Alone, as the servers run on.
  restart('master', 'mode=stand-alone');
  // It is back when what happens to the servers is heard of again.
  await sleep(8000);
  same([await carol.where(), await dave.where()], ['chat-2', 'chat-1']);
  await end('chat-2');
  await eventually('a server has gone', async () => (await carol.where()) === 'chat-1');
  restart('chat-2');
  await eventually('a server has come', async () => (await carol.where()) === 'chat-2');
});

// Last, as it ends the second connector.
await step("pomelo's own admin console", async () => {
  const [host, port] = opt('master-addr').split(':');
  const pomelo = (...words) => {
    const tool = ['node_modules/pomelo/bin/pomelo', ...words, '-h', host, '-P', port];
    const ran = spawnSync(process.execPath, [...tool, '-u', 'admin', '-p', 'admin'], { timeout: PATIENCE });
    return String(ran.stdout);
  };
  const isListed = (id) => pomelo('list').includes(id);
  same([isListed('connector-1'), isListed('connector-2'), isListed('chat-1')], [true, true, true]);
  pomelo('stop', 'connector-2');
  await eventually('the connector has stopped', () => !isListed('connector-2'));
  same(isListed('connector-1'), true);
});

finish();
