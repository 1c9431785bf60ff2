'use strict';

// The status page: draws what /events tells it, and asks /status where it is told nothing.

const $ = id => document.getElementById(id);

// make is an element with attributes and children; text is text, never markup.
function make(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

function makeSVG(name, attributes = {}, ...children) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// --- words ---

const number = n => n.toLocaleString('en');
const plural = (n, one, many = one + 's') => `${number(n)} ${n === 1 ? one : many}`;
const sum = list => list.reduce((a, b) => a + b, 0);
const clock = time => time.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
const bytes = n => n < 2 ** 20 ? `${number(Math.round(n / 2 ** 10))} KiB` : `${number(Math.round(n / 2 ** 20))} MiB`;

// share is a part in percent that never hides a part.
function share(part, whole) {
  const percent = 100 * part / whole;
  if (!part || part === whole) return part ? '100%' : '0%';
  return percent < 0.1 ? '<0.1%' : percent > 99.9 ? '>99.9%' : percent.toFixed(1) + '%';
}

// briefly is a time in its largest units.
function briefly(ms) {
  const minutes = Math.floor(Math.abs(ms) / 60e3);
  if (minutes < 1) return 'less than a minute';
  if (minutes < 60) return plural(minutes, 'minute');
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return plural(Math.floor(minutes / 1440), 'day');
}

// --- sections ---

const shades = [['passed', 'passed'], ['would', 'would be refused'], ['refused', 'refused'], ['failed', 'failed upstream']];

function drawHealth(s) {
  const bad = s.checks.filter(c => c.state === 'bad');
  const warn = s.checks.filter(c => c.state === 'warn' && !c.text.startsWith('config file ')); // which is told of below
  if (s.reload && !s.reload.ok) {
    warn.push({ text: 'the config file was not reloaded; what was in force stays' + (s.reload.mistakes ? ': ' + s.reload.mistakes.join(', ') : ''), state: 'warn' });
  }
  if (s.reload?.need_restart) warn.push({ text: `the config file has changes that need a restart: ${s.reload.need_restart.join(', ')}`, state: 'warn' });
  warn.push(...trouble(s));
  for (const m of (s.misuse ?? []).filter(m => m.result !== 'unconfirmed')) {
    warn.push({ text: `${misuses[m.kind] ?? m.kind}, ${plural(m.count, 'time')} in the last 24 hours (${m.result}): the log and the audit stream say which token`, state: 'warn' });
  }
  const state = bad.length ? 'bad' : warn.length ? 'warn' : 'ok';
  $('health').dataset.state = state;
  $('headline').textContent = { ok: 'Serving, all well.', warn: `Serving, and ${plural(warn.length, 'thing')} to look at.`, bad: 'Not ready.' }[state];
  const up = briefly(new Date(s.at) - new Date(s.started));
  $('subline').textContent = `${s.checks.length - bad.length - warn.filter(w => s.checks.includes(w)).length} of ${plural(s.checks.length, 'check')} fine. Up for ${up}.`;
  $('attention').replaceChildren(...[...bad, ...warn].map(c => make('li', { 'data-state': c.state }, c.text)));
}

const misuses = {
  bearer: 'A live bound token was shown without a proof, as by somebody who stole it',
  other_key: 'A live bound token was shown with a proof by another key, as by somebody who stole it',
  replay: 'A proof was used again, as by somebody who overheard it',
};

// trouble is what the last five minutes say: requests that fail upstream, and refusals that are more than the usual few.
function trouble(s) {
  const [passed, would, refused, failed] = shades.map(([key]) => sum(s.minutes[key].slice(-5)));
  const all = passed + would + refused + failed;
  const found = [];
  if (failed > all / 50) found.push({ text: `${number(failed)} of ${plural(all, 'request')} in the last five minutes failed upstream`, state: 'warn' });
  if (refused >= 20 && refused > all / 2) found.push({ text: `${number(refused)} of ${plural(all, 'request')} in the last five minutes were refused`, state: 'warn' });
  return found;
}

function drawTraffic(s) {
  const columns = shades.map(([key]) => s.minutes[key]);
  const totals = columns.map(sum);
  const all = sum(totals);
  $('tiles').replaceChildren(...shades.flatMap(([key, name], i) => key === 'would' && !totals[i] ? [] : [
    make('div', { 'data-shade': key }, make('dt', {}, name),
      make('dd', {}, number(totals[i]), ...(all && totals[i] ? [make('small', {}, share(totals[i], all))] : []))),
  ]));
  const heights = columns[0].map((_, minute) => sum(columns.map(c => c[minute])));
  const peak = Math.max(...heights);
  const at = new Date(s.at);
  const minutes = heights.length;
  const groups = heights.map((height, minute) => {
    let y = 140;
    const when = clock(new Date(at - (minutes - 1 - minute) * 60e3));
    const parts = shades.map(([key, name], i) => [key, name, columns[i][minute]]).filter(p => p[2]);
    const rects = parts.map(([key, , count]) => {
      const h = Math.max(count / peak * 132, 1.5);
      y -= h;
      return makeSVG('rect', { 'data-shade': key, x: minute * 600 / minutes + 1, y, width: 600 / minutes - 2, height: h });
    });
    const title = makeSVG('title', {}, `${when}: ${parts.map(([, name, count]) => `${number(count)} ${name}`).join(', ') || 'no request'}`);
    return makeSVG('g', {}, title, makeSVG('rect', { class: 'hit', x: minute * 600 / minutes, y: 0, width: 600 / minutes, height: 140 }), ...rects);
  });
  $('chart').replaceChildren(...groups);
  $('chart').setAttribute('aria-label', all
    ? `Requests by minute: ${shades.map(([, name], i) => `${number(totals[i])} ${name}`).join(', ')}, at most ${plural(peak, 'request')} in a minute`
    : 'No request in the last hour');
  $('peak').textContent = all ? `at most ${number(peak)} in a minute` : 'No request in the last hour.';
  $('axis-start').textContent = clock(new Date(at - (minutes - 1) * 60e3));
  $('axis-end').textContent = clock(at);
}

function drawReasons(s) {
  const list = s.reasons ?? [];
  const most = 8;
  const items = list.slice(0, most).map(r => {
    const where = [r.answer];
    if (r.routes?.length) where.push(r.routes.length > 3 ? plural(r.routes.length, 'route') : r.routes.join(', '));
    if (r.clients) where.push(plural(r.clients, 'known client'));
    const badge = r.would ? [' ', make('span', { class: 'badge' }, r.would === r.count ? 'let through, mode report' : `${number(r.would)} let through, mode report`)] : [];
    return make('li', { 'data-reason': r.reason },
      make('span', { class: 'count' }, number(r.count)),
      make('div', {},
        make('h3', { class: 'name' }, make('code', {}, r.reason), make('small', {}, where.join(' · ')), ...badge),
        make('p', {}, r.cause), make('p', { class: 'fix' }, make('b', {}, 'What to do: '), r.fix)));
  });
  if (list.length > most) {
    items.push(make('li', { class: 'empty' }, make('span'), `And ${plural(list.length - most, 'rarer reason')}: ${list.slice(most).map(r => `${r.reason} ${number(r.count)}`).join(', ')}`));
  }
  $('reasons').className = items.length ? 'card reasons' : 'reasons';
  $('reasons').replaceChildren(...items.length ? items : [make('li', { class: 'empty' }, 'Nothing in the last hour.')]);
}

function drawReport(s) {
  const inReport = s.routes.some(r => r.mode === 'report');
  $('report').hidden = !inReport;
  if (!inReport) return;
  $('report-verdict').textContent = s.report.verdict;
  const clients = s.report.clients.map(c => make('li', { 'data-ready': c.ready }, c.words, make('code', {}, 'client ' + c.client_id)));
  if (s.report.without_known_token) {
    clients.push(make('li', { 'data-ready': false }, `${plural(s.report.without_known_token, 'request')} without a known token would be refused: strangers, or clients whose tokens are not in the store`));
  }
  $('report-clients').replaceChildren(...clients);
}

function drawRoutes(s) {
  $('routes').replaceChildren(...s.routes.map(r => {
    const count = (label, n, alarming) => make('td', { class: alarming && n ? 'n some' : 'n', 'data-label': label }, number(n));
    const match = make('td', {}, make('code', {}, r.match));
    if (r.mode !== 'enforce') match.append(' ', make('span', { class: 'badge' }, r.mode));
    return make('tr', {}, match, make('td', {}, r.nonce && r.nonce !== 'auto' ? `${r.access}, nonce ${r.nonce}` : r.access), make('td', {}, r.upstream),
      count('passed', r.passed + r.would), count(r.mode === 'report' ? 'would be refused' : 'refused', r.refused + r.would, true), count('failed', r.failed, true));
  }));
}

function drawTargets(s) {
  $('targets').replaceChildren(...(s.targets ?? []).map(t => make('li', {},
    make('span', {}, t.upstream === t.target ? t.target : `${t.upstream}: ${t.target}`),
    make('span', { class: 'state', 'data-up': t.up }, t.up ? (t.running ? `up, ${number(t.running)} under way` : 'up') : 'down'))));
}

const offsetNames = ['over 60 s slow', '10 to 60 s slow', '2 to 10 s slow', 'within 2 s', '2 to 10 s fast', '10 to 60 s fast', 'over 60 s fast'];

function drawOffsets(s) {
  const all = sum(s.offsets);
  $('offsets').replaceChildren(...all ? s.offsets.flatMap((n, i) => {
    const bar = make('i');
    bar.style.width = `${100 * n / all}%`;
    return [make('dt', {}, offsetNames[i]), make('dd', { class: 'bar', 'data-off': i !== 3, 'aria-hidden': 'true' }, bar), make('dd', {}, n ? share(n, all) : '–')];
  }) : []);
  $('offsets-words').textContent = all
    ? `iat minus our clock, of ${plural(all, 'proof')} of the last hour, refused ones too. If all are off to one side, it is this machine’s clock.`
    : 'No proof in the last hour.';
}

function drawUnder(s) {
  const rows = [];
  const row = (name, words, state = 'ok') => rows.push(make('dt', {}, name), make('dd', { 'data-state': state }, words));
  const check = name => s.checks.find(c => c.text.startsWith(name + ' '))?.state ?? 'ok';
  row('Token store', `${s.store}${check('store') === 'ok' ? ', answers' : ', does not answer'}`, check('store'));
  if (s.revocation) {
    row('Revocations', s.revocation.listening ? `seen at once; ${plural(s.revocation.heard, 'notice')} heard` : `not listening: seen within ${s.revocation.ttl} (cache.ttl)`, s.revocation.listening ? 'ok' : 'warn');
  }
  const lookups = s.cache.hits + s.cache.negative_hits + s.cache.misses;
  row('Token cache', (lookups ? `${share(s.cache.hits + s.cache.negative_hits, lookups)} of ${plural(lookups, 'lookup')} answered` : 'not asked yet') + `, ${bytes(s.cache.bytes)} of ${bytes(s.cache.max_bytes)}`);
  const full = s.replay.capacity ? s.replay.entries / s.replay.capacity : 0;
  row('Used proofs', s.replay.capacity ? `in memory, ${number(s.replay.entries)} of room for ${number(s.replay.capacity)}` : `in ${s.replay.kind}${check('replay store') === 'ok' ? ', answers' : ', does not answer'}`,
    full > 0.8 ? 'warn' : check('replay store'));
  for (const c of s.certificates ?? []) {
    const left = c.not_after && new Date(c.not_after) - new Date(s.at);
    row(`Certificate of ${c.host}`, !c.not_after ? 'there is none yet' : left < 0 ? `has expired ${briefly(left)} ago` : `good for ${briefly(left)}`,
      !c.not_after || left < 0 ? 'bad' : check(`certificate ${c.host}`));
  }
  if (!s.certificates) row('Certificates', 'none: cleartext on listen.http');
  const unclear = sum((s.misuse ?? []).filter(m => m.result === 'unconfirmed').map(m => m.count));
  const misused = sum((s.misuse ?? []).map(m => m.count)) - unclear;
  row('Stolen tokens', misused ? `${plural(misused, 'sign')} of one in the last 24 hours` : 'no sign of one in the last 24 hours' + (unclear ? `; ${number(unclear)} not looked into` : ''), misused ? 'warn' : 'ok');
  row('Config file', !s.reload ? 'as at the start' : s.reload.ok ? `reloaded ${briefly(new Date(s.at) - new Date(s.reload.at))} ago` : `not reloaded ${briefly(new Date(s.at) - new Date(s.reload.at))} ago, see the log`, s.reload && !s.reload.ok ? 'warn' : 'ok');
  $('under').replaceChildren(...rows);
}

function draw(s) {
  $('where').textContent = s.public_urls.join(' ');
  $('version').textContent = s.build.version + (s.build.commit ? ` · ${s.build.commit.slice(0, 8)}` : '');
  for (const section of [drawHealth, drawTraffic, drawReasons, drawReport, drawRoutes, drawTargets, drawOffsets, drawUnder]) section(s);
  document.title = `${$('headline').textContent.replace(/\.$/, '')} · dpopgate status`;
  document.body.dataset.drawn = s.at;
}

// --- news ---

function say(state, words) {
  if ($('live').dataset.state === state) return; // it is read out when it changes
  $('live').dataset.state = state;
  $('live').textContent = words;
}

function listen() {
  const events = new EventSource('/events');
  events.onmessage = e => {
    draw(JSON.parse(e.data));
    say('live', 'live');
  };
  events.onerror = () => {
    if (events.readyState !== EventSource.CLOSED) { // the browser tries again by itself
      say('lost', 'lost the gateway, trying again');
      return;
    }
    ask();
  };
}

// ask is for when there is no room to be told: it asks once, and tries to be told again.
async function ask() {
  try {
    const answer = await fetch('/status');
    if (!answer.ok) throw new Error(answer.statusText);
    draw(await answer.json());
    say('asked', 'every ten seconds');
  } catch {
    say('lost', 'lost the gateway, trying again');
  }
  setTimeout(listen, 10e3);
}

listen();
