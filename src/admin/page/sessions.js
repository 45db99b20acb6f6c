// The list of sessions, and the life of one of them.

import { $, ask, change, confirm, element, mayChange, notice } from './base.js';
import { Plot } from './plot.js';
import * as words from './words.js';

const { word } = words;
const PAGE = 25;
const LIST_EVERY_MS = 2_000;
const ONE_EVERY_MS = 1_000;
// A connection that is closed is cut after five seconds at the latest.
const END_LOOKS = 8;

const ORDERS = {
  number: 'by_number', age_s: 'by_age', outbox_bytes: 'by_outbox', outbox_ms: 'by_outbox_ms',
  in_flight: 'by_flight', kept_bytes: 'by_kept', silent_ms: 'by_silent', messages: 'by_messages', received_bytes: 'by_received', sent_bytes: 'by_sent',
};
/** A column's word, its kind, its text, and the order that a press on its head asks for. */
const COLUMNS = [
  ['id', 'text', (it) => it.id, 'number'],
  ['uid', 'text long', (it) => it.uid ?? '–'],
  ['peer', 'text long', (it) => it.peer],
  ['transport', 'text', (it) => word(it.transport) + (it.tls ? ' + TLS' : '')],
  ['state', 'text', (it) => word(it.state)],
  ['age', '', (it) => words.seconds(it.age_s), 'age_s'],
  ['silent', '', (it) => words.seconds(it.silent_ms / 1000), 'silent_ms'],
  ['outbox', '', (it) => words.bytes(it.outbox_bytes), 'outbox_bytes'],
  ['in_flight', '', (it) => words.number(it.in_flight), 'in_flight'],
  ['kept', '', (it) => words.bytes(it.kept_bytes), 'kept_bytes'],
  ['messages', '', (it) => words.number(it.received_messages + it.sent_messages), 'messages'],
  ['sent', '', (it) => words.bytes(it.sent_bytes), 'sent_bytes'],
];

let timer = null;
let isShown = false;
let offset = 0;
/** The number of the last question; older answers are not shown. */
let asked = 0;

function showHead() {
  const sort = $('sort').value;
  $('sort').replaceChildren(...Object.entries(ORDERS).map(([name, key]) => element('option', { value: name }, word(key))));
  $('sort').value = sort || 'number';
  const head = COLUMNS.map(([key, kind, , order]) => {
    const isSorted = order && $('sort').value === order;
    const by = () => {
      $('sort').value = order;
      restart();
    };
    const inside = order ? element('button', { type: 'button', class: 'link', onclick: by }, word(key) + (!isSorted ? '' : order === 'number' ? ' ↑' : ' ↓')) : word(key);
    return element('th', { scope: 'col', class: kind.replace('long', ''), 'aria-sort': isSorted ? (order === 'number' ? 'ascending' : 'descending') : undefined }, inside);
  });
  const row = element('tr', {}, ...head);
  const table = $('list');
  if (!table.tHead) table.append(element('thead'), element('tbody'));
  table.tHead.replaceChildren(row);
}

async function list() {
  clearTimeout(timer);
  if (!isShown) return;
  const question = ++asked;
  const query = new URLSearchParams({ sort: $('sort').value, limit: PAGE, offset });
  for (const [name, id] of [['search', 'search'], ['state', 'state']]) {
    const value = $(id).value.trim();
    if (value) query.set(name, value);
  }
  try {
    const answer = await ask(`/sessions?${query}`);
    if (question !== asked) return;
    // Those on the last page may have gone.
    if (answer.sessions.length === 0 && offset > 0) {
      offset = Math.max(0, Math.ceil(answer.matching / PAGE) * PAGE - PAGE);
      return list();
    }
    show(answer);
  } catch (error) {
    if (error.status) notice(word('failed_with', error.message));
  }
  if (question === asked) timer = setTimeout(list, LIST_EVERY_MS);
}

/** Shows the sessions. Rows stay, so that whoever is on one with the keyboard stays there. */
function show({ sessions, matching, all, missing_shards }) {
  const body = $('list').tBodies[0];
  const rows = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  sessions.forEach((session, at) => {
    const row = rows.get(session.id) ?? newRow(session.id);
    rows.delete(session.id);
    COLUMNS.forEach(([, , text], column) => {
      const cell = column === 0 ? row.cells[0].firstChild : row.cells[column];
      const shown = text(session);
      if (cell.textContent !== shown) cell.textContent = shown;
      if (column === 1 || column === 2) cell.title = shown;
    });
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
  });
  rows.forEach((row) => row.remove());
  if (sessions.length === 0) body.append(element('tr', {}, element('td', { class: 'none', colspan: COLUMNS.length }, word('no_session'))));
  $('shown').textContent = sessions.length === 0 ? word('none_shown', words.number(all)) : word('shown', offset + 1, offset + sessions.length, words.number(matching), words.number(all));
  if (missing_shards.length > 0) $('shown').textContent += word('missing', missing_shards.join(', '));
  $('previous').disabled = offset === 0;
  $('next').disabled = offset + PAGE >= matching || offset + PAGE > 10_000;
}

function newRow(id) {
  const open = element('button', { type: 'button', class: 'link', onclick: () => openSession(id) });
  const cells = COLUMNS.map(([, kind], at) => element('td', { class: kind }, ...(at === 0 ? [open] : [])));
  return element('tr', { 'data-id': id }, ...cells);
}

function restart() {
  offset = 0;
  showHead();
  list();
}

/** Begins and ends to ask for sessions. */
export function showSessions(isOpen) {
  isShown = isOpen;
  list();
}

let typing;
$('find').addEventListener('submit', (event) => event.preventDefault());
$('search').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(restart, 250);
});
for (const id of ['state', 'sort']) $(id).addEventListener('change', restart);
for (const [id, step] of [['previous', -PAGE], ['next', PAGE]]) {
  $(id).addEventListener('click', () => {
    offset = Math.max(0, offset + step);
    list();
  });
}
document.addEventListener('language', () => {
  showHead();
  list();
});

// One session.

const plots = [
  new Plot($('plot-outbox'), { show: words.bytes, least: 1024, isBytes: true }),
  new Plot($('plot-flight'), { show: words.number, least: 4 }),
];
let opened = null;
let one = null;

function openSession(id) {
  opened = id;
  plots.forEach((plot) => plot.clear());
  $('session-title').textContent = word('session', id);
  $('session-end').hidden = true;
  $('facts').replaceChildren();
  $('kick').hidden = !mayChange;
  $('kick').disabled = false;
  $('session').showModal();
  look(id);
}

async function look(id) {
  clearTimeout(one);
  if (opened !== id) return;
  try {
    const session = await ask(`/sessions/${encodeURIComponent(id)}`);
    if (opened !== id) return;
    one = setTimeout(look, ONE_EVERY_MS, id);
    showFacts(session);
    plots[0].add([session.outbox_bytes]);
    plots[1].add([session.in_flight]);
  } catch (error) {
    if (error.status !== 404) return void (one = setTimeout(look, ONE_EVERY_MS, id));
    $('session-end').textContent = word('has_ended');
    $('session-end').hidden = false;
    $('kick').disabled = true;
    tellEnd(id);
  }
}

/** Tells why a session has ended, where that is still known, or will be once its connection is closed. */
async function tellEnd(id, looks = END_LOOKS) {
  try {
    const { closed: [ended] } = await ask(`/closed?id=${encodeURIComponent(id)}`);
    if (opened !== id) return;
    if (!ended) return void (looks > 1 && setTimeout(tellEnd, ONE_EVERY_MS, id, looks - 1));
    $('session-end').textContent = word('has_ended_by', word(`end_${ended.reason}`), new Date(ended.closed_unix_ms).toLocaleTimeString(), words.seconds(ended.age_ms / 1000));
  } catch { /* That it has ended is told already. */ }
}

function showFacts(it) {
  const yes = (is) => word(is ? 'yes' : 'no');
  const shown = {
    uid: it.uid ?? '–', peer: it.peer, number: String(it.number), state: word(it.state),
    age: words.seconds(it.age_s), silent: words.seconds(it.silent_ms / 1000),
    transport: word(it.transport), tls: yes(it.tls), dialect: word(it.dialect), listener: String(it.listener),
    outbox_bytes: words.bytes(it.outbox_bytes), outbox_ms: words.micros(it.outbox_ms * 1000),
    in_flight: words.number(it.in_flight), in_flight_bytes: words.bytes(it.in_flight_bytes),
    kept_bytes: words.bytes(it.kept_bytes), is_held: yes(it.held),
    messages_in: words.number(it.received_messages), messages_out: words.number(it.sent_messages),
    received_bytes: words.bytes(it.received_bytes), sent_bytes: words.bytes(it.sent_bytes), last_route: it.last_route ?? '–',
  };
  $('facts').replaceChildren(...Object.entries(shown).map(([key, text]) => element('div', {}, element('dt', {}, word(key)), element('dd', {}, text))));
}

$('session').addEventListener('close', () => {
  opened = null;
  clearTimeout(one);
});
$('kick').addEventListener('click', async () => {
  const id = opened;
  const reason = await confirm({ title: word('ask_kick', id), text: word('ask_kick_text', $('facts').querySelector('dd')?.textContent ?? id), yes: word('kick_yes'), field: word('kick_reason') });
  if (reason === null) return;
  const query = reason ? `?reason=${encodeURIComponent(reason)}` : '';
  if (await change(`/sessions/${encodeURIComponent(id)}/kick${query}`)) {
    notice(word('kicked', id));
    look(id);
    list();
  }
});

showHead();
