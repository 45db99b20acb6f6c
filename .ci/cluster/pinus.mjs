// A backend on pinus behind a connector of ours: all that a backend may ask of a frontend. Started
// by .ci/pomelo-cluster, which copies it beside the oracle's clients; each step prints a line.
import { Raw } from './clients/raw.mjs';
import { PATIENCE, finish, opt, same, step } from './cluster-steps.mjs';

const C = 'chat.chatHandler.';
const [host, port] = opt('addr').split(':');

async function player(uid) {
  const client = new Raw(host, Number(port), 'tcp', { autoBeat: 1000 });
  await client.open();
  client.next = 1;
  client.request = (route, body) => client.askJson(client.next++, route, body, PATIENCE);
  if (uid) {
    const answer = await client.request(C + 'login', { uid, room: 'r' });
    same(answer, { code: 200, frontend: 'connector-1' });
  }
  return client;
}
async function pushed(client, route, body) {
  await client.until(() => client.push(route), PATIENCE);
  same(JSON.parse(client.push(route).msg.body), body);
}

await step('pinus: forward', async () => {
  const client = await player();
  for (const body of [{}, { a: [1, '中'] }]) same(await client.request(C + 'echo', body), body);
  same((await client.request(C + 'none', {})).code, 500);
});

const [amy, bob, guest] = [await player('amy'), await player('bob'), await player()];
await step('pinus: bind and settings', async () => {
  same(await amy.request(C + 'room', {}), { uid: 'amy', room: 'r' });
});
await step('pinus: push to a channel', async () => {
  same(await amy.request(C + 'send', { msg: 'hi' }), { code: 200 });
  for (const client of [amy, bob]) await pushed(client, 'onChat', { from: 'amy', msg: 'hi' });
});
await step('pinus: broadcast', async () => {
  same(await bob.request(C + 'shout', { msg: 'all' }), { code: 200 });
  for (const client of [amy, bob, guest]) await pushed(client, 'onShout', { msg: 'all' });
});
await step('pinus: kick', async () => {
  await amy.request(C + 'kick', { uid: 'bob' });
  await bob.until(() => bob.packages.some((p) => p.type === 5), PATIENCE);
});
finish();
