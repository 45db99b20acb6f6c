// One client of one connector that has all three kinds of backends: the demo's chat in its own
// process, the area on the real Pomelo, the room in a Pitaya cluster. Started by
// .ci/pomelo-cluster, which copies it beside the oracle's clients; each step prints a line.
import fs from 'node:fs';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { Raw, MSG, PKG, request } from './clients/raw.mjs';
import { PATIENCE, eventually, finish, opt, same, step } from './cluster-steps.mjs';

const timeout = Number(opt('timeout'));
const pids = {};
for (const id of ['nats', 'room', 'area']) pids[id] = Number(opt(id));

const ECHO = {
  local: 'connector.entryHandler.echo',
  chat: 'chat.chatHandler.echo',
  area: 'area.chatHandler.echo',
  room: 'room.room.echo',
};
const FORWARDED = ['chat', 'area', 'room'];

async function player(uid, room = 'all') {
  const [host, port] = opt('addr').split(':');
  const client = new Raw(host, Number(port));
  await client.open();
  client.next = 1;
  client.request = (route, body, ms = PATIENCE) => client.askJson(client.next++, route, body, ms);
  if (uid) {
    same(await client.request('connector.entryHandler.entry', { uid, room }), { code: 200, uid, room });
  }
  return client;
}
const pushed = async (client, route) => {
  await client.until(() => client.push(route), PATIENCE);
  const push = client.push(route);
  if (!push) throw new Error(`no ${route} has come`);
  client.packages.splice(client.packages.indexOf(push), 1);
  return JSON.parse(push.msg.body);
};
const serves = async (client, kinds) => {
  for (const kind of kinds) same(await client.request(ECHO[kind], { kind }), { kind });
};

// Starts a process again as it was started before.
const started = {};
for (const [id, pid] of Object.entries(pids)) {
  started[id] = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
}
function restart(id) {
  const [program, ...args] = started[id];
  const cwd = id === 'area' ? path.dirname(opt('app')) : undefined;
  pids[id] = spawn(program, args, { cwd, stdio: 'ignore' }).pid;
}
const isAlive = (pid) => {
  try {
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};
async function end(id) {
  process.kill(pids[id], 'SIGKILL');
  await eventually(`${id} has ended`, () => !isAlive(pids[id]));
}

const amy = await player('amy');
const bob = await player('bob');

await step('all three are found', async () => {
  for (const kind of Object.keys(ECHO)) {
    await eventually(`${kind} answers`, async () =>
      (await amy.request(ECHO[kind], { a: 1 })).a === 1);
  }
  const where = { uid: 'amy', frontendId: 'connector-3', room: 'all' };
  same(await amy.request('chat.chatHandler.where', {}), { server: 'chat-1', ...where });
  same(await amy.request('area.chatHandler.where', {}), { server: 'area-1', ...where });
  const { uid, data } = await amy.request('room.room.session', {});
  same([uid, data.room], ['amy', 'all']);
});

await step('2,000 requests to each of the three, pipelined on one session', async () => {
  const count = 6000;
  const first = amy.next;
  amy.next += count;
  const from = amy.packages.length;
  const all = Array.from({ length: count }, (_, at) =>
    request(first + at, ECHO[FORWARDED[at % 3]], { at }));
  amy.send(...all);
  const answers = () => amy.packages.slice(from).filter((p) => p.msg?.type === MSG.RESPONSE);
  await amy.until(() => answers().length >= count, 60000);
  for (const [place, kind] of FORWARDED.entries()) {
    const got = answers().filter((p) => (p.msg.id - first) % 3 === place);
    same(got.length, count / 3);
    for (const [n, p] of got.entries()) {
      const at = n * 3 + place;
      same([kind, p.msg.id, JSON.parse(p.msg.body)], [kind, first + at, { at }]);
    }
  }
  amy.packages.length = 0;
});

await step('pushes from all three', async () => {
  for (const type of ['chat', 'area']) {
    for (const client of [amy, bob]) {
      same((await client.request(`${type}.chatHandler.join`, {})).code, 200);
    }
    same(await bob.request(`${type}.chatHandler.send`, { msg: `by ${type}` }), { code: 200 });
    same(await pushed(amy, 'onChat'), { from: 'bob', msg: `by ${type}` });
  }
  await bob.request('room.room.push', { uid: 'amy', route: 'onRoom', data: { n: 1 } });
  same(await pushed(amy, 'onRoom'), { n: 1 });
});

await step('a setting of one is seen by the others', async () => {
  for (const [type, room] of [['area', 'cave'], ['chat', 'hall']]) {
    same(await amy.request(`${type}.chatHandler.setting`, { room }), { code: 200 });
    for (const other of ['chat', 'area']) {
      same((await amy.request(`${other}.chatHandler.where`, {})).room, room);
    }
    same((await amy.request('room.room.session', {})).data.room, room);
  }
});

await step('a uid that Pitaya has bound is known to the others', async () => {
  const eve = await player();
  eve.send(request(eve.next++, 'room.room.bind', 'eve'));
  same(await pushed(eve, 'onBound'), { bound: true });
  for (const type of ['chat', 'area']) {
    same((await eve.request(`${type}.chatHandler.where`, {})).uid, 'eve');
  }
  bob.send(request(bob.next++, 'room.room.kick', 'eve'));
  await eve.until(() => false, PATIENCE);
  same(JSON.parse(eve.first(PKG.KICK).body), { reason: 'kick' });
});

// What 99 of 100 local requests take at most, one after the other for a while, in milliseconds.
async function p99(client, ms) {
  const all = [];
  for (const end = performance.now() + ms; performance.now() < end;) {
    const before = performance.now();
    same(await client.request(ECHO.local, { a: 1 }), { a: 1 });
    all.push(performance.now() - before);
  }
  return all.sort((a, b) => a - b)[Math.floor(all.length * 0.99)];
}

for (const [kind, code] of [['area', 500], ['room', 'PIT-408']]) {
  await step(`a stopped server (${kind}) with 1,000 requests pending`, async () => {
    const count = 1000;
    await p99(bob, 300);
    const before = await p99(bob, timeout / 2);
    process.kill(pids[kind], 'SIGSTOP');
    const start = performance.now();
    const first = amy.next;
    amy.next += count;
    amy.packages.length = 0;
    amy.send(...Array.from({ length: count }, (_, at) => request(first + at, ECHO[kind], {})));
    const then = await p99(bob, timeout / 2);
    const others = ['local', 'chat', 'area', 'room'].filter((other) => other !== kind);
    while (performance.now() - start < timeout * 0.8) await serves(amy, others);
    const isPending = (p) => p.msg?.type === MSG.RESPONSE && p.msg.id < first + count;
    const answers = () => amy.packages.filter(isPending);
    same(answers().length, 0);
    await amy.until(() => answers().length >= count, PATIENCE);
    const ms = performance.now() - start;
    same(answers().filter((p) => JSON.parse(p.msg.body).code === code).length, count);
    if (ms < timeout * 0.9 || ms > timeout + 2000) throw new Error(`answered after ${ms} ms`);
    process.kill(pids[kind], 'SIGCONT');
    await eventually('it is used again', async () =>
      (await amy.request(ECHO[kind], { a: 1 })).a === 1);
    const figures = `p99 of local requests ${before.toFixed(2)} ms, then ${then.toFixed(2)} ms`;
    if (then > Math.max(before * 2, before + 5)) throw new Error(figures);
    return `answered after ${ms | 0} ms; ${figures}`;
  });
}

await step('a restarted server of Pomelo', async () => {
  await end('area');
  await eventually('it is missed', async () => (await amy.request(ECHO.area, {})).code === 500);
  await serves(amy, ['local', 'chat', 'room']);
  restart('area');
  await eventually('it is used again', async () => (await amy.request(ECHO.area, { a: 1 })).a === 1);
});

await step('a restarted NATS', async () => {
  await end('nats');
  await eventually('it is missed', async () =>
    (await amy.request(ECHO.room, {})).code === 'PIT-500');
  const before = performance.now();
  same((await amy.request(ECHO.room, {})).code, 'PIT-500');
  await serves(amy, ['local', 'chat', 'area']);
  if (performance.now() - before > timeout / 2) throw new Error('somebody has waited');
  restart('nats');
  await eventually('it is used again', async () => (await amy.request(ECHO.room, { a: 1 })).a === 1);
  // Who was logged in before is pushed to again.
  await eventually('a push arrives', async () => {
    await bob.request('room.room.push', { uid: 'amy', route: 'onRoom', data: { n: 2 } });
    await amy.until(() => amy.push('onRoom'), 200);
    return amy.push('onRoom') !== undefined;
  });
});

await step('a killed server of Pitaya', async () => {
  await end('room');
  await eventually('it is missed', async () =>
    String((await amy.request(ECHO.room, {})).code).startsWith('PIT-'));
  await serves(amy, ['local', 'chat', 'area']);
  restart('room');
  await eventually('it is used again', async () => (await amy.request(ECHO.room, { a: 1 })).a === 1);
});

await step('the session has stayed the same', async () => {
  await serves(amy, Object.keys(ECHO));
  same((await amy.request('area.chatHandler.where', {})).uid, 'amy');
});

// The area's process belongs to the Pomelo cluster, which goes on.
for (const id of ['nats', 'room']) process.kill(pids[id], 'SIGKILL');
finish();
