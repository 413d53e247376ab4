'use strict';
// Names become text, never HTML.
const WINDOW_S = 60, rows = new Map();
let open = new Set();  // rows whose last span continues
const $ = id => document.getElementById(id);

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent?.append(made);
  return made;
}

function show(now) {
  $('source').textContent = now.source;
  $('state').textContent = now.is_connected ? 'live' : 'no picture: waiting for it';
  $('state').className = now.is_connected ? '' : 'broken';
  if (document.activeElement !== $('threshold')) $('threshold').value = now.threshold;
  $('shown').textContent = now.threshold.toFixed(2);

  $('persons').replaceChildren(...now.persons.map(person => {
    const item = element('li', person.actions.map(
      ({ action, score }) => `${action} ${score.toFixed(2)}`).join(', ') || 'no action');
    item.style.borderColor = person.color;
    return item;
  }));
  if (!now.persons.length) element('li', 'no person', $('persons'));

  $('figures').replaceChildren(...Object.entries(now.figures).map(([name, value]) => {
    const row = document.createElement('tr');
    element('td', name, row);
    element('td', value, row);
    return row;
  }));

  extend(now);
  const percent = time_s => 100 * (1 - (now.time_s - time_s) / WINDOW_S);
  $('timeline').replaceChildren(...[...rows.values()].slice(-100).map(line => {
    const row = document.createElement('div');
    row.className = 'row';
    element('span', line.name, row).style.color = line.color;
    const bars = element('div', '', row);
    bars.className = 'bars';
    for (const [first, last] of line.spans) {
      const bar = element('i', '', bars), left = Math.max(percent(first), 0);
      bar.style.left = `${left}%`;
      bar.style.width = `${percent(last) - left}%`;
      bar.style.background = line.color;
    }
    return row;
  }));
}

// The timeline: an action lasts until the next keyframe, unless the stream broke.
function extend(now) {
  const done = new Map();
  for (const { id, color, actions } of now.is_connected ? now.persons : [])
    for (const { action } of actions) done.set(`${id}: ${action}`, color);
  for (const [name, color] of done) {
    const row = rows.get(name) ?? { name, color, spans: [] };
    if (!open.has(name)) row.spans.push([now.time_s, now.time_s]);
    rows.set(name, row);
  }
  for (const [name, row] of rows) {
    if (now.is_connected && open.has(name)) row.spans.at(-1)[1] = now.time_s;
    row.spans = row.spans.filter(([, last]) => last > now.time_s - WINDOW_S);
    if (!row.spans.length && !done.has(name)) rows.delete(name);
  }
  open = new Set(done.keys());
}

new EventSource('events').onmessage = event => show(JSON.parse(event.data));

$('picture').onerror = () => setTimeout(  // the server was restarted
  () => { $('picture').src = `picture?${Date.now()}`; }, 2000);

$('threshold').oninput = () =>
  fetch(`threshold?value=${$('threshold').value}`, { method: 'POST' });
