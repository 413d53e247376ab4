'use strict';
// Names become text, never HTML.
const WINDOW_S = 60, SHORTEST_S = 1;
const COLORS = ['#1f77b4', '#ff7f0e', '#2ca02c', '#d62728', '#9467bd', '#8c564b',
  '#e377c2', '#7f7f7f', '#bcbd22', '#17becf'];  // as of timeline.py
const colors = new Map();  // by action
const keyframes = [];  // events of the window, in order of time
const since = new Map();  // when the persons of these were first seen, by id
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

  remember(now);
  drawTimeline(now.time_s);
}

// The timeline: a row for each person, a bar for each stretch of an action.
function remember(now) {
  const last = keyframes.at(-1);
  if (last && now.time_s < last.time_s) {  // the server was started anew
    keyframes.length = 0;
    since.clear();
  }
  if (last?.time_s === now.time_s && !last.is_connected) return;  // still of before
  if (last?.time_s === now.time_s) keyframes.pop();
  keyframes.push(now);
  while (keyframes[0].time_s < now.time_s - WINDOW_S) keyframes.shift();
  const ids = new Set(keyframes.flatMap(({ persons }) => persons.map(({ id }) => id)));
  for (const id of since.keys()) if (!ids.has(id)) since.delete(id);
  for (const id of ids) if (!since.has(id)) since.set(id, now.time_s);
}

function drawTimeline(end) {
  const people = [...since].map(([id, start]) => ({ id, start, ...stretches(id) }));
  const long = people.filter(({ start, seen }) => seen.at(-1)[1] - start >= SHORTEST_S);
  const actions = [...new Set(long.flatMap(({ done }) => [...done.keys()]))];
  for (const name of actions) if (!colors.has(name))
    colors.set(name, COLORS[colors.size % COLORS.length]);

  $('timeline').replaceChildren(...long.map(({ id, color, seen, done }) => {
    const row = element('div', '');
    row.className = 'row';
    element('span', `person ${id}`, row).style.color = color;
    const bars = element('div', '', row);
    bars.className = 'bars';
    const draw = (spans, fill, top, height) => spans.forEach(([first, last]) => {
      const { style } = element('i', '', bars);
      const left = 100 * (1 - (end - first) / WINDOW_S);
      Object.assign(style, { background: fill, left: `${left}%`, top: `${top}%`,
        width: `${100 * (last - first) / WINDOW_S}%`, height: `${height}%` });
    });
    draw(seen, '#4a4d51', 0, 100);
    [...done.keys()].sort().forEach((name, place) => draw(
      done.get(name), colors.get(name), 100 * place / done.size, 90 / done.size));
    return row;
  }));
  $('actions').replaceChildren(...actions.sort().map(name => {
    const item = element('span', name);
    item.style.borderColor = colors.get(name);
    return item;
  }));
  const folded = people.length - long.length;
  $('folded').textContent = folded &&
    `not drawn: ${folded} seen for less than ${SHORTEST_S} s` || '';
}

// Spans in which a person was seen, and did each action: a keyframe stands for the time
// up to the next one, unless the stream broke.
function stretches(id) {
  const found = { seen: [], done: new Map() };
  const extend = (spans, start, end) => {
    if (spans.at(-1)?.[1] === start) spans.at(-1)[1] = end;
    else spans.push([start, end]);
  };
  keyframes.forEach(({ time_s, persons }, place) => {
    const person = persons.find(one => one.id === id);
    if (!person) return;
    const end = keyframes[place + 1]?.time_s ?? time_s;
    found.color = person.color;
    extend(found.seen, time_s, end);
    for (const { action } of person.actions) {
      if (!found.done.has(action)) found.done.set(action, []);
      extend(found.done.get(action), time_s, end);
    }
  });
  return found;
}

new EventSource('events').onmessage = event => show(JSON.parse(event.data));

$('picture').onerror = () => setTimeout(  // the server was restarted
  () => { $('picture').src = `picture?${Date.now()}`; }, 2000);

$('threshold').oninput = () =>
  fetch(`threshold?value=${$('threshold').value}`, { method: 'POST' });
