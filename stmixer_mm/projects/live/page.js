'use strict';
// Names and messages come from strangers: they become text, never HTML.
let maxUpload = 0;
const $ = id => document.getElementById(id);

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent?.append(made);
  return made;
}

function show(now) {
  $('source').textContent = now.source;
  $('state').textContent = now.state;
  $('state').className = now.is_connected ? '' : 'broken';
  if (document.activeElement !== $('threshold')) $('threshold').value = now.threshold;
  maxUpload = now.max_upload;
  $('shown').textContent = now.threshold.toFixed(2);

  $('persons').replaceChildren(...now.persons.map(person => {
    const item = element('li', person.actions.map(
      ({ action, score }) => `${action} ${score.toFixed(2)}`).join(', ') || 'no action');
    item.style.borderColor = person.color;
    return item;
  }));
  if (!now.persons.length) element('li', 'nobody', $('persons'));

  $('figures').replaceChildren(...now.figures.map(([name, value]) => {
    const row = document.createElement('tr');
    element('td', name, row);
    element('td', value, row);
    return row;
  }));

  const percent = time_s => 100 * (1 - (now.time_s - time_s) / now.window_s);
  $('timeline').replaceChildren(...now.timeline.map(line => {
    const row = document.createElement('div');
    row.className = 'row';
    element('span', line.action, row).style.color = line.color;
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

new EventSource('events').onmessage = event => show(JSON.parse(event.data));

$('picture').onerror = () => setTimeout(  // the server was started anew
  () => { $('picture').src = `picture?${Date.now()}`; }, 2000);

$('threshold').oninput = () =>
  fetch('threshold', { method: 'POST', body: $('threshold').value });

$('file').onchange = async () => {
  const [file] = $('file').files;
  if (!file) return;
  $('upload').textContent = `${file.name}: is being detected …`;
  try {
    if (file.size > maxUpload) throw new Error(`is larger than ${maxUpload} bytes.`);
    const name = encodeURIComponent(file.name);
    const answer = await fetch(`detect?name=${name}`, { method: 'POST', body: file });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    const link = element('a', `${file.name}.json`);
    link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    link.download = `${file.name}.json`;
    $('upload').replaceChildren(link);
  } catch (error) {
    $('upload').textContent = `${file.name}: ${error.message}`;
  }
  $('file').value = '';
};
