// Plays clients against the gateway, one after the other, and prints what came of each as a line of JSON.
// Arguments: SKEW_SECONDS CLIENT:ALG…. Environment: GATEWAY (its URL), ISSUER (binds a token to a thumbprint).
// Each client is used as its documentation says, with no special case for the gateway.
import { createHash, randomUUID } from 'node:crypto'
import * as jose from 'jose'

const [skew, ...plays] = process.argv.slice(2)
const { GATEWAY, ISSUER } = process.env

// A client's wrong clock.
const now = Date.now
Date.now = () => now() + Number(skew) * 1000

/** The authorization server of the test: a token bound to that key. */
async function token(jkt) {
  const res = await fetch(`${ISSUER}?jkt=${jkt}`)
  return await res.text()
}

async function thumbprint(publicKey) {
  return jose.calculateJwkThumbprint(await jose.exportJWK(publicKey))
}

// The requests that every client makes: a read with a query, a write with a body, a read again.
const requests = [
  { method: 'GET', url: `${GATEWAY}/v1/items?page=2&q=a%20b` },
  { method: 'POST', url: `${GATEWAY}/v1/items`, body: JSON.stringify({ name: 'tea' }) },
  { method: 'GET', url: `${GATEWAY}/v1/items/caf%C3%A9` },
]
const jsonHeaders = (r) => (r.body ? { 'content-type': 'application/json' } : {})

/** An oauth4webapi of either version. */
function webapi(name) {
  return async (alg) => {
    const oauth = await import(name)
    const pair = await oauth.generateKeyPair(alg)
    const access = await token(await thumbprint(pair.publicKey))
    const handle = oauth.DPoP({ client_id: 'c', [oauth.clockSkew]: 0 }, pair)
    return async (r) => {
      const call = () =>
        oauth.protectedResourceRequest(access, r.method, new URL(r.url), new Headers(jsonHeaders(r)), r.body, {
          DPoP: handle,
          [oauth.allowInsecureRequests]: true,
        })
      try {
        return await call()
      } catch (err) {
        if (!oauth.isDPoPNonceError(err)) throw err
        return await call()
      }
    }
  }
}

/** A client that only signs, used with fetch and one retry. */
function signer(make) {
  return async (alg) => {
    const { access, prove } = await make(alg)
    let nonce
    return async (r) => {
      const call = async () =>
        fetch(r.url, {
          method: r.method,
          body: r.body,
          headers: { ...jsonHeaders(r), authorization: `DPoP ${access}`, dpop: await prove(r, nonce) },
        })
      let res = await call()
      const next = res.headers.get('dpop-nonce')
      if (next) nonce = next
      if (res.status === 401 && next && res.headers.get('www-authenticate').includes('use_dpop_nonce')) res = await call()
      return res
    }
  }
}

const clients = {
  dpop: signer(async (alg) => {
    const DPoP = await import('dpop')
    const pair = await DPoP.generateKeyPair(alg)
    const access = await token(await thumbprint(pair.publicKey))
    return { access, prove: (r, nonce) => DPoP.generateProof(pair, r.url.split('?')[0], r.method, nonce, access) }
  }),

  oauth4webapi: webapi('oauth4webapi'),
  'oauth4webapi-before': webapi('oauth4webapi-before'),

  'openid-client': async (alg) => {
    const openid = await import('openid-client')
    const config = new openid.Configuration({ issuer: 'https://as.example.test' }, 'c')
    openid.allowInsecureRequests(config)
    const pair = await openid.randomDPoPKeyPair(alg)
    const access = await token(await thumbprint(pair.publicKey))
    const handle = openid.getDPoPHandle(config, pair)
    return (r) =>
      openid.fetchProtectedResource(config, access, new URL(r.url), r.method, r.body, new Headers(jsonHeaders(r)), {
        DPoP: handle,
      })
  },

  mcp: async (alg) => {
    const mcp = await import('@modelcontextprotocol/client')
    const session = await mcp.DpopSession.create({ alg })
    const access = await token(session.thumbprint)
    const signed = mcp.withDpop(session, () => access)(fetch)
    return (r) => signed(r.url, { method: r.method, body: r.body, headers: jsonHeaders(r) })
  },

  atproto: async (alg) => {
    const { Key } = await import('@atproto/jwk')
    const { dpopFetchWrapper } = await import('./node_modules/@atproto/oauth-client/dist/fetch-dpop.js')
    const pair = await jose.generateKeyPair(alg, { extractable: true })
    class SigningKey extends Key {
      async createJwt(header, payload) {
        return new jose.SignJWT(payload).setProtectedHeader({ ...header, alg }).sign(pair.privateKey)
      }
    }
    const key = new SigningKey({ ...(await jose.exportJWK(pair.privateKey)), alg, kid: randomUUID(), use: 'sig' })
    const access = await token(await thumbprint(pair.publicKey))
    const nonces = new Map()
    const wrapped = dpopFetchWrapper({
      key,
      nonces,
      isAuthServer: false,
      supportedAlgs: [alg],
      sha256: async (text) => createHash('sha256').update(text).digest('base64url'),
      fetch: globalThis.fetch,
    })
    return (r) =>
      wrapped(r.url, { method: r.method, body: r.body, headers: { ...jsonHeaders(r), authorization: `DPoP ${access}` } })
  },

  okta: signer(async () => {
    const { generateDPoPProof } = await import('./node_modules/@okta/okta-auth-js/esm/node/oidc/dpop.js')
    const keyPair = await crypto.subtle.generateKey(
      { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) },
      false,
      ['sign', 'verify'],
    )
    const access = await token(await thumbprint(keyPair.publicKey))
    return {
      access,
      prove: (r, nonce) => generateDPoPProof({ keyPair, url: r.url, method: r.method, nonce, accessToken: access }),
    }
  }),

  'oidc-client-ts': signer(async () => {
    globalThis.window = globalThis // which it expects, being made for browsers
    const { UserManager, User, WebStorageStateStore, InMemoryWebStorage } = await import('oidc-client-ts')
    const kept = new WebStorageStateStore({ store: new InMemoryWebStorage() })
    const states = new Map()
    const store = {
      set: async (k, v) => void states.set(k, v),
      get: async (k) => states.get(k),
      remove: async (k) => states.delete(k),
      getAllKeys: async () => [...states.keys()],
    }
    const manager = new UserManager({
      authority: 'https://as.example.test',
      client_id: 'c',
      redirect_uri: 'https://app.example.test/',
      stateStore: kept,
      userStore: kept,
      dpop: { store },
    })
    const jkt = await manager.generateDPoPJkt({ store })
    const access = await token(jkt)
    const user = new User({ access_token: access, token_type: 'DPoP', profile: {} })
    return { access, prove: (r, nonce) => manager.dpopProof(r.url, user, r.method, nonce) }
  }),
}

for (const play of plays) {
  const [client, alg] = play.split(':')
  const result = { client, alg, statuses: [], bodies: [] }
  try {
    const call = await clients[client](alg)
    for (const r of requests) {
      const res = await call(r)
      result.statuses.push(res.status)
      result.bodies.push(await res.text())
    }
  } catch (err) {
    result.error = `${err.name}: ${err.message} ${err.cause ?? ''}`
  }
  console.log(JSON.stringify(result))
}
