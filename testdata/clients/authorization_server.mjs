// An authorization server for tests: oidc-provider, with its access tokens in the table of the gateway.
// Environment: DATABASE_URL, CLIENT (a UUID), REDIRECT_URI. It prints its issuer once it serves, and ends with its standard input.
import { createServer } from 'node:http'
import pg from 'pg'
import { Provider } from 'oidc-provider'
import { tokenTable } from './adapter.mjs'

const { DATABASE_URL, CLIENT, REDIRECT_URI } = process.env

/** Grants, codes and sessions, as long as this process lives. */
class Memory {
  static #all = new Map()
  constructor(model) {
    this.model = model
  }
  #key = (id) => `${this.model}:${id}`
  async upsert(id, payload) {
    Memory.#all.set(this.#key(id), payload)
  }
  async find(id) {
    return Memory.#all.get(this.#key(id))
  }
  async findByUid(uid) {
    return [...Memory.#all.entries()].find(([key, p]) => key.startsWith(`${this.model}:`) && p.uid === uid)?.[1]
  }
  async consume(id) {
    Memory.#all.get(this.#key(id)).consumed = Math.floor(Date.now() / 1000)
  }
  async destroy(id) {
    Memory.#all.delete(this.#key(id))
  }
  async revokeByGrantId(grantId) {
    for (const [key, p] of Memory.#all) if (p.grantId === grantId) Memory.#all.delete(key)
  }
}

const server = createServer((request, response) => provider.callback()(request, response))
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `http://127.0.0.1:${server.address().port}`

const provider = new Provider(issuer, {
  adapter: tokenTable(new pg.Pool({ connectionString: DATABASE_URL, max: 2 }), (model) => new Memory(model)),
  clients: [
    {
      client_id: CLIENT,
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: [REDIRECT_URI],
      grant_types: ['authorization_code'],
      dpop_bound_access_tokens: true,
    },
  ],
  scopes: ['orders:read', 'orders:write'],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  cookies: { keys: ['of this test'] },
  features: {
    dPoP: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        audience: resource,
        scope: 'orders:read orders:write',
        accessTokenFormat: 'opaque',
        accessTokenTTL: 600,
      }),
    },
  },
})

console.log(issuer)
process.stdin.on('end', () => process.exit()).resume()
