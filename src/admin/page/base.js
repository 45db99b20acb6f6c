// What all parts of the page use: elements, questions to the server and to people.

import * as words from './words.js';

const { word } = words;
export const $ = (id) => document.getElementById(id);
/** What the server has written into the page. */
export const facts = JSON.parse(document.querySelector('meta[name=shaddock]').content);

/** An element with texts or other elements in it; never markup, as clients choose some texts. */
export function element(name, properties = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === 'class') made.className = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, '');
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

/** Fills a table: columns of [word, class], rows of cells. */
export function fill(table, columns, rows, whenEmpty) {
  const head = element('tr', {}, ...columns.map(([key, kind = '']) => element('th', { scope: 'col', class: kind.replace('long', '') }, word(key))));
  const cell = (value, at) => element('td', { class: columns[at][1] ?? '' }, value);
  const lines = rows.map((cells) => element('tr', {}, ...cells.map(cell)));
  if (rows.length === 0) lines.push(element('tr', {}, element('td', { class: 'none', colspan: columns.length }, word(whenEmpty))));
  table.replaceChildren(element('thead', {}, head), element('tbody', {}, ...lines));
}

/** Asks the server for JSON. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: 'application/json' } });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error), { status: answer.status });
  return body;
}

/** Asks a person; null if it is not to be done. Enter in the field means yes. */
export function confirm({ title, text, yes, field, secret = false, isDangerous = true }) {
  const dialog = $('ask');
  endQuestion();
  $('ask-title').textContent = title;
  $('ask-text').textContent = text;
  $('ask-yes').textContent = yes;
  $('ask-yes').className = isDangerous ? 'danger' : 'main';
  $('ask-field').hidden = !field;
  $('ask-label').textContent = field ?? '';
  Object.assign($('ask-input'), { value: '', type: secret ? 'password' : 'text' });
  dialog.returnValue = '';
  dialog.showModal();
  $(field ? 'ask-input' : 'ask-yes').focus();
  return new Promise((resolve) => {
    endQuestion = () => {
      endQuestion = () => {};
      resolve(!dialog.open && dialog.returnValue === 'yes' ? $('ask-input').value : null);
    };
  });
}
/** Answers the question that is asked, if there is one. The event that tells of its close may come
 * when the next one is open already. */
let endQuestion = () => {};
$('ask').addEventListener('close', () => {
  if (!$('ask').open) endQuestion();
});
$('ask-no').addEventListener('click', () => $('ask').close(''));

const TOKEN = 'shaddock-token';
/** Has the server change something. */
export async function change(path) {
  let token = facts.token ?? words.stored(sessionStorage, TOKEN);
  for (;;) {
    if (!token) {
      token = await confirm({ title: word('ask_token'), text: word('ask_token_text'), yes: word('go_on'), field: word('token'), secret: true, isDangerous: false });
      if (!token) return null;
      words.stored(sessionStorage, TOKEN, token);
    }
    const answer = await fetch(path, { method: 'POST', headers: { Authorization: `Bearer ${token}` } });
    const body = await answer.json();
    if (answer.ok) return body;
    if (answer.status !== 401 || facts.token) {
      notice(word('failed_with', body.error));
      return null;
    }
    token = null;
  }
}
export const mayChange = facts.changes !== 'no';

let noticeTimer;
/** Tells something above all else, for a while. */
export function notice(text, ms = 8_000) {
  clearTimeout(noticeTimer);
  $('notice').textContent = text;
  $('notice').hidden = !text;
  if (text && ms) noticeTimer = setTimeout(() => ($('notice').hidden = true), ms);
}
