// A gateway as one would write it for Node.js first, to measure ours beside: jose for the proof, maps for tokens and used
// proofs, node:http towards the upstream. Usage: node gateway.mjs HOST:PORT UPSTREAM TOKENS.json

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { EmbeddedJWK, calculateJwkThumbprint, jwtVerify } from 'jose'

const [listen, upstream, file] = process.argv.slice(2)
const tokens = new Map(Object.entries(JSON.parse(readFileSync(file, 'utf8'))))
const used = new Map() // key and jti, until when in seconds
const agent = new http.Agent({ keepAlive: true, maxSockets: 1024 })
const algorithms = ['ES256', 'EdDSA', 'Ed25519', 'PS256', 'RS256']

setInterval(() => {
  const now = Date.now() / 1000
  for (const [proof, until] of used) if (until < now) used.delete(proof)
}, 10_000).unref()

async function check(request) {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ')
  const known = tokens.get(token)
  const now = Math.floor(Date.now() / 1000)
  if (!known || scheme.toLowerCase() !== 'dpop' || known.expires <= now) throw new Error('token unknown or expired')
  const { payload, protectedHeader } = await jwtVerify(request.headers.dpop ?? '', EmbeddedJWK, { typ: 'dpop+jwt', algorithms })
  const jkt = await calculateJwkThumbprint(protectedHeader.jwk)
  if (jkt !== known.jkt) throw new Error('the token is bound to another key')
  const { jti, htm, htu, iat, ath } = payload
  const target = `http://${request.headers.host}${request.url.split('?')[0]}`
  const digest = createHash('sha256').update(token).digest('base64url')
  if (htm !== request.method || htu !== target || ath !== digest || !jti || !(iat <= now + 10 && iat >= now - 60)) {
    throw new Error('the proof is for another request')
  }
  const proof = `${jkt} ${jti}`
  if (used.has(proof)) throw new Error('the proof was used')
  used.set(proof, iat + 71)
  return known
}

const server = http.createServer(async (request, response) => {
  let known
  try {
    known = await check(request)
  } catch (error) {
    response.writeHead(401, { 'WWW-Authenticate': 'DPoP error="invalid_token"' }).end(error.message)
    return
  }
  const { authorization, dpop, connection, ...headers } = request.headers
  headers['x-auth-subject'] = known.subject
  headers['x-auth-client'] = known.client
  headers['x-auth-scope'] = known.scope
  headers['x-auth-expires'] = known.expires
  const [host, port] = upstream.split(':')
  const forwarded = http.request({ host, port, agent, method: request.method, path: request.url, headers }, (answer) => {
    const { connection, 'keep-alive': keepAlive, ...kept } = answer.headers
    response.writeHead(answer.statusCode, kept)
    answer.pipe(response)
  })
  forwarded.on('error', () => response.writeHead(502).end())
  request.pipe(forwarded)
})
server.keepAliveTimeout = 60_000
const [host, port] = listen.split(':')
server.listen(port, host)
