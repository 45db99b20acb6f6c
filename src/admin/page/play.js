// A chat and an echo against the demo, by a client of Pomelo's protocol. A package is its type, the
// length of its body in three bytes, and the body; a message is a flag, for requests and responses an
// id in groups of seven bits, for all but responses a route, and a body of JSON.

import { $, element } from './base.js';
import * as words from './words.js';

const { word } = words;
const [HANDSHAKE, HANDSHAKE_ACK, HEARTBEAT, DATA, KICK] = [1, 2, 3, 4, 5];
const [REQUEST, , RESPONSE, PUSH] = [0, 1, 2, 3];
const IS_COMPRESSED = 1;
const text = { encode: (it) => new TextEncoder().encode(it), decode: (it) => new TextDecoder().decode(it) };

function packed(type, body = new Uint8Array()) {
  const { length } = body;
  return Uint8Array.of(type, length >> 16, (length >> 8) & 255, length & 255, ...body);
}

/** A client. `onPush(route, body)` and `onEnd(reason)` are called. */
class Client {
  constructor(address, onPush, onEnd) {
    Object.assign(this, { onPush, onEnd, waiting: new Map(), id: 0, routes: new Map(), reason: null });
    this.socket = new WebSocket(address);
    this.socket.binaryType = 'arraybuffer';
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.socket.onopen = () => this.write(HANDSHAKE, text.encode(JSON.stringify({ sys: { type: 'page', version: '1.0' }, user: {} })));
    this.socket.onmessage = ({ data }) => this.read(new Uint8Array(data));
    this.socket.onclose = () => this.end();
  }

  write(type, body) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(packed(type, body));
  }

  end() {
    clearInterval(this.beat);
    const error = new Error(this.reason ?? word('ended'));
    this.reject(error);
    this.waiting.forEach(({ reject }) => reject(error));
    this.waiting.clear();
    this.onEnd(this.reason);
  }

  read(bytes) {
    for (let at = 0; at + 4 <= bytes.length;) {
      const length = (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
      this.take(bytes[at], bytes.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
  }

  take(type, body) {
    if (type === HANDSHAKE) {
      const { sys = {} } = JSON.parse(text.decode(body));
      for (const [route, code] of Object.entries(sys.dict ?? {})) this.routes.set(code, route);
      this.write(HANDSHAKE_ACK);
      if (sys.heartbeat) this.beat = setInterval(() => this.write(HEARTBEAT), sys.heartbeat * 1000);
      this.resolve();
    } else if (type === DATA) {
      this.takeMessage(body);
    } else if (type === KICK) {
      this.reason = word('was_kicked', body.length > 0 ? (JSON.parse(text.decode(body)).reason ?? '') : '');
    }
  }

  takeMessage(body) {
    const type = (body[0] >> 1) & 7;
    let at = 1;
    if (type === RESPONSE) {
      let id = 0;
      for (let shift = 0; ; shift += 7) {
        id += (body[at] & 127) * 2 ** shift;
        if (body[at++] < 128) break;
      }
      const { resolve } = this.waiting.get(id) ?? {};
      this.waiting.delete(id);
      resolve?.(this.json(body.subarray(at)));
    } else if (type === PUSH) {
      let route;
      if (body[0] & IS_COMPRESSED) {
        route = this.routes.get((body[at] << 8) | body[at + 1]);
        at += 2;
      } else {
        route = text.decode(body.subarray(at + 1, at + 1 + body[at]));
        at += 1 + body[at];
      }
      this.onPush(route, this.json(body.subarray(at)));
    }
  }

  json(body) {
    try {
      return JSON.parse(text.decode(body));
    } catch {
      return {};
    }
  }

  request(route, body) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error(word('ended')));
    const id = (this.id = (this.id % 100_000) + 1);
    const groups = [];
    for (let rest = id; ; rest = Math.floor(rest / 128)) {
      groups.push((rest % 128) | (rest >= 128 ? 128 : 0));
      if (rest < 128) break;
    }
    const name = text.encode(route);
    this.write(DATA, Uint8Array.of(REQUEST << 1, ...groups, name.length, ...name, ...text.encode(JSON.stringify(body))));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  close() {
    this.socket.close();
  }
}

const LINES_MAX = 200;
const ECHO = 'connector.entryHandler.echo';

/** Opens the view, for a game's port. */
export function openPlay(address) {
  openChat(address);
  openEcho(address);
  $('wire').textContent = `${address}\nconnector.entryHandler.entry  {"uid": "amy"}\nchat.chatHandler.join         {}\nchat.chatHandler.send         {"msg": "hi"}`;
}

function openChat(address) {
  let client = null;
  const tell = (from, said) => {
    const line = from === null ? [element('span', { class: 'quiet' }, said)] : [element('b', {}, String(from)), said];
    const talk = $('talk');
    talk.append(element('li', {}, ...line));
    while (talk.children.length > LINES_MAX) talk.firstChild.remove();
    talk.scrollTop = talk.scrollHeight;
  };
  const showIn = (isIn) => {
    for (const id of ['words', 'send']) $(id).disabled = !isIn;
    for (const id of ['uid', 'room']) $(id).disabled = isIn;
    $('join').dataset.word = isIn ? 'leave' : 'join';
    $('join').textContent = word($('join').dataset.word);
  };
  const hear = (route, body) => {
    if (route === 'onChat') tell(body.from, String(body.msg));
    if (route === 'onJoin') tell(null, word('came', body.user));
    if (route === 'onLeave') tell(null, word('went', body.user));
  };
  $('uid').value = ['amy', 'bob', 'carol', 'dan', 'eve', 'finn'][Math.floor(Math.random() * 6)];
  $('enter').addEventListener('submit', async (event) => {
    event.preventDefault();
    if (client) return client.close();
    let isIn = false;
    const mine = (client = new Client(address, hear, (reason) => {
      tell(null, reason ?? word(isIn ? 'ended' : 'no_game'));
      client = null;
      showIn(false);
    }));
    try {
      await mine.ready;
      await mine.request('connector.entryHandler.entry', { uid: $('uid').value, room: $('room').value });
      const { room, users = [] } = await mine.request('chat.chatHandler.join', {});
      isIn = true;
      const others = users.filter((it) => it !== $('uid').value);
      tell(null, word('joined_room', room, others.join(', ') || word('alone')));
      showIn(true);
      $('words').focus();
    } catch { /* Its end is told. */ }
  });
  $('say').addEventListener('submit', (event) => {
    event.preventDefault();
    const msg = $('words').value.trim();
    if (!msg || !client) return;
    client.request('chat.chatHandler.send', { msg }).catch(() => {});
    $('words').value = '';
  });
}

function openEcho(address) {
  let client = null;
  let sent = 0;
  let times = [];
  const RATES = [0, 10, 100, 1_000, 3_000, 10_000];
  const rate = () => RATES[$('rate').value];
  const opened = async () => {
    client ??= new Client(address, () => {}, (reason) => {
      client = null;
      $('answer').textContent = reason ?? word('ended');
      $('rate').value = 0;
      showRate();
    });
    await client.ready;
    return client;
  };
  const showRate = () => ($('rate-shown').textContent = rate() ? word('per_s', words.number(rate())) : word('off'));
  $('shout').addEventListener('submit', async (event) => {
    event.preventDefault();
    try {
      const mine = await opened();
      const began = performance.now();
      const answer = await mine.request(ECHO, { text: $('text').value });
      $('answer').textContent = `${JSON.stringify(answer)}  ${words.micros((performance.now() - began) * 1000)}`;
    } catch { /* Its end is told. */ }
  });
  $('rate').addEventListener('input', () => {
    showRate();
    sent = 0;
    if (rate()) opened().catch(() => {});
  });
  let last = performance.now();
  let owed = 0;
  // Some at a time, and never more under way than a client may have.
  setInterval(() => {
    const now = performance.now();
    owed = rate() ? Math.min(owed + (rate() * (now - last)) / 1000, 400) : 0;
    last = now;
    if (!client || client.socket.readyState !== WebSocket.OPEN || client.waiting.size > 400) return;
    for (; owed >= 1; owed -= 1) {
      const began = performance.now();
      client.request(ECHO, { n: (sent += 1) }).then(() => times.push(performance.now() - began), () => {});
    }
  }, 20);
  setInterval(() => {
    $('echoes').textContent = words.number(times.length);
    times.sort((a, b) => a - b);
    $('trip').textContent = times.length ? words.micros(times[times.length >> 1] * 1000) : '–';
    times = [];
  }, 1_000);
  showRate();
  document.addEventListener('language', showRate);
}
