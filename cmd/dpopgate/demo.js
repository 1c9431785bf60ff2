'use strict';

// The playground of `dpopgate demo`: a DPoP client (RFC 9449) in a browser, and what a thief of its token can try.

// --- signing ---

const utf8 = text => new TextEncoder().encode(text);
const base64url = bytes =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const sha256 = async text => base64url(await crypto.subtle.digest('SHA-256', utf8(text)));

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

// newKey makes a key that signs and that nobody can read, this page included.
async function newKey() {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(ecdsa, false, ['sign', 'verify']);
  const { crv, kty, x, y } = await crypto.subtle.exportKey('jwk', publicKey);
  const jwk = { crv, kty, x, y }; // these members in this order are what RFC 7638 hashes
  return { privateKey, jwk, thumbprint: await sha256(JSON.stringify(jwk)) };
}

async function signProof(key, claims) {
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: key.jwk };
  const input = [header, claims].map(part => base64url(utf8(JSON.stringify(part)))).join('.');
  const signature = base64url(await crypto.subtle.sign(ecdsa, key.privateKey, utf8(input)));
  return { header, claims, signature, compact: `${input}.${signature}` };
}

// --- the client ---

const client = { key: null, token: '' };

async function start() {
  client.key = await newKey();
  const response = await fetch(`/demo/token?jkt=${client.key.thumbprint}`, { method: 'POST', credentials: 'omit' });
  const granted = await response.json();
  if (!response.ok) throw new Error(granted.error_description);
  client.token = granted.access_token;
}

const orders = '/orders/1001';
const refund = '/orders/1001/refund';

// signed is a request with a proof. changes are what its claims say instead of what is right.
async function signed({ method = 'GET', path = orders, key = client.key, changes = {}, wrong = {} } = {}) {
  const url = location.origin + path;
  const claims = {
    jti: base64url(crypto.getRandomValues(new Uint8Array(16))), htm: method, htu: url, iat: Math.floor(Date.now() / 1000), ath: await sha256(client.token),
    ...changes,
  };
  return { method, url, scheme: 'DPoP', proof: await signProof(key, claims), wrong };
}

const unsigned = (scheme, wrong) => ({ method: 'GET', url: location.origin + orders, scheme, proof: null, wrong });

async function send({ method, url, scheme, proof }) {
  const headers = { Authorization: `${scheme} ${client.token}`, ...(proof && { DPoP: proof.compact }) };
  try {
    const response = await fetch(url, { method, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' });
    return {
      status: response.status,
      statusText: response.statusText,
      challenges: readChallenges(response.headers.get('WWW-Authenticate') ?? ''),
      nonce: response.headers.get('DPoP-Nonce'),
      body: await response.text(),
    };
  } catch {
    return { status: 0, statusText: 'no answer', challenges: [], nonce: null, body: '' };
  }
}

// readChallenges splits a WWW-Authenticate field as this gateway writes it: all parameters are quoted.
function readChallenges(field) {
  const challenges = [];
  for (const [, scheme, name, value] of field.matchAll(/([A-Za-z]+) (?=[a-z_]+=")|([a-z_]+)="([^"]*)"/g)) {
    if (scheme) challenges.push({ scheme, parameters: [] });
    else challenges.at(-1)?.parameters.push([name, value]);
  }
  return challenges;
}

const errorOf = answer => answer.challenges.flatMap(c => c.parameters).find(([name]) => name === 'error')?.[1];

// --- what to try ---

const anHour = 3600;
const elsewhere = 'https://elsewhere.example' + orders;
const call = (rest = orders) => `${document.body.dataset.command} call ${rest}`;
const here = location.origin + orders;

// Each try: how it is made, what has to come out, and why, in one sentence.
const tries = {
  pass: {
    title: 'Send it as it should be', hint: 'the token, and a fresh proof', sender: 'the client', want: 'passed',
    make: () => signed(),
    says: 'The token is live, and the proof was made just now, for this request, by the key that the token is bound to: so the legacy API was asked, and was told who calls, but shown neither token nor proof.',
    command: call(here),
  },
  bearer: {
    title: 'Send it as Bearer', hint: 'as any HTTP library would', want: 'refused',
    make: () => unsigned('Bearer', { scheme: 'this token is no bearer token' }),
    says: 'Whoever has only the token gets nowhere, as this route takes no bearer tokens; and one that does would still refuse this token, which is bound to a key.',
    command: call(`--attack bearer ${here}`),
  },
  replay: {
    title: 'Replay the proof', hint: 'overheard, and sent once more', want: 'refused',
    make: async () => {
      const overheard = await attempt('pass');
      return { ...overheard.request, wrong: { jti: 'used a moment ago, by the client' } };
    },
    says: 'Byte for byte what the client sent a moment ago, but a proof is good once and the gateway remembers its jti.',
    command: call(`--attack replay ${here}`),
  },
  'other-key': {
    title: 'Sign with another key', hint: 'the thief’s own, just made', want: 'refused',
    make: async () => signed({ key: await newKey(), wrong: { jwk: 'the thief’s key, not the one the token is bound to' } }),
    says: 'The proof is flawless, but it shows that the sender holds some other key, and the token’s own key cannot be taken out of the client’s browser.',
    command: call(`--attack stolen-token ${here}`),
  },
  'wrong-url': {
    title: 'Proof for the wrong URL', hint: 'made for another server', want: 'refused',
    make: () => signed({ changes: { htu: elsewhere }, wrong: { htu: 'another server than this one' } }),
    says: 'The client did sign this, but for another server: one that it trusted and that now tries to use here what it was sent.',
    command: call(`--attack wrong-url ${here}`),
  },
  scope: {
    title: 'Missing scope', hint: 'a refund, with a token to read', sender: 'the client', want: 'refused',
    make: () => signed({ method: 'POST', path: refund, wrong: { method: 'a refund wants orders:write' } }),
    says: 'Token and proof are good, so this is 403 and not 401: it is the client, but its token may only read orders and a refund wants orders:write.',
    command: call(`-X POST ${location.origin}${refund}`),
  },
  clock: {
    title: 'Clock an hour off', hint: 'a proof from an hour ago', sender: 'thief or client?', want: 'nonce',
    make: () => signed({ changes: { iat: Math.floor(Date.now() / 1000) - anHour }, wrong: { iat: 'an hour ago' } }),
    says: 'This may be a thief with a proof put by an hour ago, or an honest client whose clock is wrong, so the gateway lets nothing through and asks for a proof over a nonce of its own.',
    command: call(`--attack clock ${here}`),
  },
  'no-proof': {
    title: 'No proof at all', hint: 'the stolen token, alone', want: 'refused',
    make: () => unsigned('DPoP', { proof: 'not sent' }),
    says: 'It says DPoP and brings no proof: the token alone says nothing about who sends it.',
    command: call(`--attack no-proof ${here}`),
  },
  nonce: {
    title: 'Answered with the nonce', label: '… and answer with the nonce', sender: 'the client', want: 'passed', follows: true,
    make: ({ request, answer }) => signed({
      method: request.method, path: new URL(request.url).pathname,
      changes: { iat: request.proof.claims.iat, nonce: answer.nonce },
      wrong: { nonce: 'just given' },
    }),
    says: 'The clock is as wrong as before, but a proof over a fresh nonce cannot have been made earlier: honest clients answer like this by themselves, and a thief without the key cannot.',
  },
};

const verdicts = { passed: 'Let through', refused: 'Refused', nonce: 'Asked for a nonce', failed: 'Went wrong' };

function judge(answer) {
  if (answer.status >= 200 && answer.status < 300) return 'passed';
  const error = errorOf(answer);
  if (error === 'use_dpop_nonce') return 'nonce';
  return [400, 401, 403].includes(answer.status) && answer.challenges.length ? 'refused' : 'failed';
}

function explain({ name, verdict, answer }) {
  if (verdict === tries[name].want) return tries[name].says;
  if (answer.status === 0) return 'Nobody answered: does the demo still run?';
  if (errorOf(answer) === 'invalid_token') return 'The demo does not know this page’s token any more, as when it was started again: reload the page.';
  return `This should have come out otherwise (“${verdicts[tries[name].want]}”): ${answer.status} ${answer.statusText}.`;
}

const log = [];

// attempt makes and sends one request, and keeps what became of it.
async function attempt(name) {
  const request = await tries[name].make(log.at(-1));
  const time = new Date();
  const answer = await send(request);
  const entry = { name, time, request, answer, verdict: judge(answer), seen: await countSeen() };
  log.push(entry);
  showLogged(entry);
  return entry;
}

async function countSeen() {
  try {
    return (await (await fetch('/demo/seen', { cache: 'no-store', credentials: 'omit' })).json()).requests;
  } catch {
    return null;
  }
}

// --- showing ---

const $ = id => document.getElementById(id);

// element makes an element; attributes that are functions are listeners, children may be text.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(name, value);
    else if (value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

const span = (kind, ...children) => element('span', { class: kind }, ...children);

// flag marks what is wrong (or, in a request that is let through, what made it right) and says why.
const flag = (note, ...children) => note === undefined
  ? span('', ...children)
  : span('', element('mark', {}, ...children), note ? span('note', note) : null);

// jsonBlock pretty-prints an object, a line for each member, with notes on some of them by name.
function jsonBlock(label, value, notes = {}) {
  const block = element('pre', { class: 'json' }, span('label', label));
  writeJSON(block, '', value, '', notes, 0);
  return block;
}

// writeJSON writes a member, or with an empty key an element or the whole. All that is in a marked member is marked.
function writeJSON(into, key, value, after, notes, depth, within = false) {
  const note = notes[key] ?? (within ? '' : undefined);
  const line = (note, ...children) => into.append(element('span', { class: `line in${depth}` }, flag(note, ...children)));
  const name = key === '' ? [] : [span('key', JSON.stringify(key)), ': '];
  if (value === null || typeof value !== 'object') {
    line(note, ...name, scalar(key, value), after);
    return;
  }
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const members = Object.entries(value);
  if (members.length === 0) {
    line(note, ...name, open + close + after);
    return;
  }
  line(note, ...name, open);
  members.forEach(([member, inner], i) => writeJSON(into, Array.isArray(value) ? '' : member, inner,
    i < members.length - 1 ? ',' : '', notes, depth + 1, note !== undefined));
  line(note === undefined ? undefined : '', close + after);
}

// scalar shortens what is long and random; the whole of it is its tooltip.
const scalar = (key, value) => ['x', 'y', 'ath'].includes(key)
  ? element('span', { title: value }, `"${value.slice(0, 16)}…"`)
  : span('', JSON.stringify(value));

const field = (name, ...value) => element('p', { class: 'field' }, span('name', name), ' ', ...value);
const masked = token => span('masked', `${token.slice(0, 4)}••••••••••••`);

function showRequest({ method, url, scheme, proof, wrong }) {
  const { origin, pathname } = new URL(url);
  const parts = [
    element('p', { class: 'first' }, flag(wrong.method, element('strong', {}, `${method} ${pathname}`)), ' ', span('dim', origin)),
    field('Authorization:', flag(wrong.scheme, scheme, ' ', masked(client.token))),
  ];
  if (proof) {
    parts.push(
      field('DPoP:', span('dim', 'the proof, a JWT')),
      jsonBlock('header', proof.header, wrong),
      jsonBlock('claims', proof.claims, wrong),
      element('p', { class: 'signature' }, span('dim', 'signature '), `${proof.signature.slice(0, 22)}…`),
    );
  } else {
    parts.push(field('DPoP:', wrong.proof ? flag(wrong.proof, '—') : span('dim', 'not sent')));
  }
  $('request').replaceChildren(...parts);
}

function showAnswer({ status, statusText, challenges, nonce, body }) {
  const parts = [element('p', { class: 'first' }, element('strong', { class: 'status' }, `${status || ''} ${statusText}`))];
  for (const { scheme, parameters } of challenges) {
    parts.push(field('WWW-Authenticate:', scheme), element('dl', { class: 'parameters' },
      ...parameters.flatMap(([name, value]) => [
        element('dt', {}, name),
        element('dd', {}, name === 'error' ? element('strong', { class: 'status' }, value) : flag(name === 'error_description' ? '' : undefined, value)),
      ])));
  }
  if (nonce) parts.push(field('DPoP-Nonce:', nonce));
  if (body) {
    try {
      parts.push(jsonBlock('body', JSON.parse(body), { identity_headers: 'told by the gateway' }));
    } catch {
      parts.push(element('pre', { class: 'json' }, body));
    }
  }
  $('answer').replaceChildren(...parts);
}

// show puts a try on the stage.
function show(entry) {
  const { name, request, answer, verdict, seen } = entry;
  const what = tries[name];
  $('title').replaceChildren(span('verdict', verdicts[verdict]), ' ', span('what', what.title));
  $('sentence').textContent = explain(entry);
  $('sender').textContent = what.sender ?? 'the thief';
  $('seen').textContent = seen === null ? 'unknown' : `${seen} request${seen === 1 ? '' : 's'} so far`;
  $('next').replaceChildren(...(verdict === 'nonce' && entry === log.at(-1) ? [tryButton('nonce')] : []));
  showRequest(request);
  showAnswer(answer);
  $('paste').hidden = !what.command;
  $('command').textContent = what.command ?? '';
  for (const button of document.querySelectorAll('.tries button')) {
    button.setAttribute('aria-pressed', button.dataset.try === name);
  }
  Object.assign($('result').dataset, { try: name, verdict });
}

function showLogged(entry) {
  const { name, time, answer, verdict } = entry;
  const again = element('button', { type: 'button', class: 'link', click: () => { show(entry); reveal(); } }, tries[name].title);
  $('log').prepend(element('tr', { 'data-verdict': verdict },
    element('td', { class: 'time' }, time.toLocaleTimeString([], { hour12: false })), element('td', {}, again),
    element('td', {}, String(answer.status || '—')), element('td', {}, span('verdict', verdicts[verdict]))));
}

// reveal brings the stage into sight where it is not, or what is marked in the request is not.
function reveal() {
  const stage = $('result').getBoundingClientRect();
  const marked = document.querySelector('#request mark')?.getBoundingClientRect() ?? stage;
  if (stage.top < 0 || stage.top > innerHeight / 2 || marked.top > innerHeight - 40) {
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    $('result').scrollIntoView({ behavior: calm ? 'auto' : 'smooth', block: 'start' });
  }
}

let busy = false;

async function run(name) {
  if (busy) return; // one at a time: not disabled, as a disabled button loses the focus
  busy = true;
  $('result').setAttribute('aria-busy', 'true');
  try {
    show(await attempt(name));
  } finally {
    busy = false;
    $('result').setAttribute('aria-busy', 'false');
  }
}

function tryButton(name) {
  const { title, label, hint } = tries[name];
  return element('button', { type: 'button', 'data-try': name, click: async () => { await run(name); reveal(); } },
    label ?? title, hint ? element('small', {}, hint) : null);
}

async function tryToExport() {
  try {
    await crypto.subtle.exportKey('jwk', client.key.privateKey);
    $('exported').textContent = 'The browser gave it away. It must not: please report this.';
  } catch (refusal) {
    $('exported').textContent = `The browser refuses: ${refusal.name}. It signs with the key, and shows it to nobody.`;
  }
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText($('command').textContent);
    $('copy').textContent = 'Copied';
  } catch { // not allowed here: then it is marked, to copy by hand
    getSelection().selectAllChildren($('command'));
    $('copy').textContent = 'Marked';
  }
  setTimeout(() => { $('copy').textContent = 'Copy'; }, 1500);
}

// --- the beginning ---

async function main() {
  for (const name in tries) {
    if (!tries[name].follows) (name === 'pass' ? $('honest') : $('attacks')).append(tryButton(name));
  }
  for (const part of document.querySelectorAll('[hidden].live')) part.hidden = false;
  $('export').addEventListener('click', tryToExport);
  $('copy').addEventListener('click', copyCommand);
  busy = true;
  try {
    await start();
  } catch (failure) {
    $('title').textContent = 'This cannot start';
    $('sentence').textContent = `No key or no token: ${failure.message}`;
    return;
  }
  $('thumbprint').textContent = client.key.thumbprint;
  $('token').replaceChildren(masked(client.token));
  $('export').disabled = false;
  busy = false;
  await run('pass');
}

main();
