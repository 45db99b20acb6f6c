// The page of the admin server: figures come each second by /events, all else is asked for.

import { $, ask, change, confirm, element, facts, fill, mayChange, notice } from './base.js';
import { Plot } from './plot.js';
import { openPlay } from './play.js';
import { showSessions } from './sessions.js';
import * as words from './words.js';

const { word } = words;
const VIEWS = ['overview', 'sessions', 'backends', 'limits', 'play'].filter((it) => it !== 'play' || facts.game);
/** The time between two looks at what `/events` does not tell. */
const STATUS_EVERY_MS = 10_000;

// Figures.

const ofTraffic = (at) => word(['received', 'sent'][at]);
const plots = {
  messages: new Plot($('plot-messages'), { show: words.number, name: ofTraffic, least: 10 }),
  latency: new Plot($('plot-latency'), { show: words.micros, name: (at) => word(['p50_short', 'p99_short'][at]), least: 100 }),
  load: new Plot($('plot-load'), { show: words.percent, name: (at) => word('shard_n', at), least: 1, most: 1 }),
  bytes: new Plot($('plot-bytes'), { show: words.bytes, name: ofTraffic, least: 1024, isBytes: true }),
};
let status = null;
let figures = null;
let isConnected = false;
const lastMet = new Map();

function take(next) {
  figures = next;
  const { latency, shards } = next;
  plots.messages.add([next.messages_in_per_s, next.messages_out_per_s]);
  plots.latency.add([latency.p50_us, latency.p99_us]);
  plots.load.add(shards.map((it) => it.cpu ?? it.busy));
  plots.bytes.add([next.bytes_in_per_s, next.bytes_out_per_s]);
  show();
}

function show() {
  if (!figures) return;
  const { latency, shards } = figures;
  const tiles = {
    connections: words.number(figures.connections), uids: words.number(figures.uids),
    received: words.number(figures.messages_in_per_s), sent: words.number(figures.messages_out_per_s),
    p50: words.micros(latency.p50_us), p99: words.micros(latency.p99_us),
  };
  for (const [id, text] of Object.entries(tiles)) $(id).textContent = text;
  const shard = [['shard', 'text'], ['cpu', 'text'], ['connections'], ['turns'], ['turn_p99'], ['outbox'], ['held'], ['kept']];
  fill($('shards'), shard, shards.map((it) => [
    String(it.shard), load(it.cpu ?? it.busy), words.number(it.connections), words.number(it.turns_per_s),
    it.turns_per_s > 0 ? words.micros(it.turn_p99_us) : '–', words.bytes(it.outbox_bytes), words.bytes(it.held_bytes), words.bytes(it.kept_bytes),
  ]), 'nothing');
  showBackends(figures.server_types, figures.clusters);
  showLimits();
}

function load(share) {
  const meter = element('meter', { min: 0, max: 1, low: 0.6, high: 0.85, optimum: 0, value: Math.min(share, 1), 'aria-hidden': 'true' });
  return element('span', {}, meter, words.percent(share));
}

function showBackends(types, clusters) {
  const columns = [['server_type', 'text'], ['target', 'text'], ['up'], ['down'], ['in_flight'], ['answered'], ['failed'], ['timed_out'], ['gone'], ['rejected'], ['p50_short'], ['p99_short']];
  const bad = (count) => (count > 0 ? element('strong', {}, words.number(count)) : '0');
  fill($('types'), columns, types.map((it) => [
    it.server_type, word(it.target), words.number(it.up), bad(it.down), words.number(it.in_flight), words.number(it.answered),
    bad(it.failed), bad(it.timed_out), bad(it.lost), bad(it.rejected), ...[it.p50_us, it.p99_us].map((time) => words.micros(time > 0 ? time : null)),
  ]), 'no_types');
  const lanes = types.flatMap((it) => Object.entries(it.lanes));
  fill($('lanes'), [['lane', 'text'], ['depth']], lanes.map(([lane, depth]) => [lane, words.number(depth)]), 'no_lanes');
  const yes = (is) => word(is ? 'yes' : 'no');
  fill($('clusters'), [['cluster', 'text'], ['joined', 'text'], ['coordinators', 'text']], clusters.map((it) => [
    word(it.kind), yes(it.joined), Object.entries(it.coordinators).map(([kind, up]) => `${kind}: ${word(up ? 'up' : 'down')}`).join(', '),
  ]), 'no_clusters');
}

function showLimits() {
  const counts = (counted) => Object.entries(counted).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const time = (at) => at?.toLocaleTimeString(words.language === 'zh' ? 'zh-CN' : 'en-GB') ?? '–';
  fill($('met'), [['limit', 'text'], ['times'], ['last_met']], counts(figures.limits_met).map(([limit, count]) => [limit, words.number(count), time(lastMet.get(limit))]), 'no_limits');
  for (const name of ['closed', 'refused']) {
    fill($(name), [['reason', 'text'], ['times']], counts(figures[name]).map(([reason, count]) => [reason.replaceAll('_', ' '), words.number(count)]), 'nothing');
  }
}

// The state of the server.

function showState() {
  const badge = $('badge');
  const [kind, text] = !isConnected ? ['warn', 'lost'] : !status ? ['', 'lost'] : status.draining ? ['warn', 'draining'] : status.ready ? ['good', 'ready'] : ['warn', 'not_ready'];
  badge.className = `badge ${kind}`;
  if (badge.textContent !== word(text)) badge.textContent = word(text);
  if (!status) return;
  badge.title = status.unready.join('\n');
  $('server').textContent = `${status.server_id} · ${status.version}`;
  $('uptime').textContent = word('up_for', words.seconds(Math.max(0, Date.now() / 1000 - status.started_unix)));
  $('drain').hidden = !mayChange;
  $('drain').textContent = word(status.draining ? 'undrain' : 'drain');
  document.title = `${status.server_id} – Shaddock`;
}

async function askStatus() {
  try {
    status = await ask('/status');
    if (!figures) take(status);
  } catch { /* The stream of events tells that there is nobody. */ }
  showState();
}

let events = null;
function listen() {
  events?.close();
  events = new EventSource('/events');
  events.onopen = () => {
    if (!isConnected) notice('');
    isConnected = true;
    askStatus();
  };
  events.onerror = () => {
    isConnected = false;
    notice(word('retrying'), 0);
    showState();
    // After some answers a browser gives up.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2_000);
  };
  events.addEventListener('figures', (event) => take(JSON.parse(event.data)));
  events.addEventListener('draining', askStatus);
  events.addEventListener('warning', (event) => lastMet.set(JSON.parse(event.data).limit, new Date()));
}

$('drain').addEventListener('click', async () => {
  if (status?.draining) {
    if (await change('/undrain')) notice('');
  } else if (await confirm({ title: word('ask_drain'), text: word('ask_drain_text'), yes: word('drain_yes') }) !== null) {
    const drain = await change('/drain');
    const stops = drain?.stops_in_s;
    if (drain) notice(stops === null ? word('drain_stays') : word('drain_stops', Math.ceil(stops)));
  }
  askStatus();
});

// Views.

function open(view, isChosen) {
  for (const name of VIEWS) {
    const [tab, panel] = [$(`tab-${name}`), $(name)];
    const isOpen = name === view;
    tab.setAttribute('aria-selected', isOpen);
    tab.tabIndex = isOpen ? 0 : -1;
    panel.hidden = !isOpen;
    if (isOpen && isChosen) tab.focus();
  }
  if (location.hash !== `#${view}`) history.replaceState(null, '', `#${view}`);
  showSessions(view === 'sessions');
  Object.values(plots).forEach((plot) => plot.draw());
}
VIEWS.forEach((name, at) => {
  $(`tab-${name}`).hidden = false;
  $(`tab-${name}`).addEventListener('click', () => open(name));
  $(`tab-${name}`).addEventListener('keydown', ({ key }) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: VIEWS.length - 1 }[key];
    if (to !== undefined) open(VIEWS[(to + VIEWS.length) % VIEWS.length], true);
  });
});
const viewOfHash = () => VIEWS.find((it) => location.hash === `#${it}`) ?? 'overview';
addEventListener('hashchange', () => open(viewOfHash()));

$('language').addEventListener('click', () => {
  words.switchLanguage();
  document.dispatchEvent(new Event('language'));
  if (isConnected) notice('');
  Object.values(plots).forEach((plot) => plot.draw());
  show();
  showState();
});

// A page that nobody sees takes no place among the server's streams.
document.addEventListener('visibilitychange', () => (document.hidden ? events?.close() : listen()));

words.translate();
if (facts.game) openPlay(facts.game);
open(viewOfHash());
listen();
setInterval(() => !document.hidden && askStatus(), STATUS_EVERY_MS);
setInterval(showState, 1_000);
if (!mayChange) $('drain').title = word('read_only');
