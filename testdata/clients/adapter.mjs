// An adapter that has oidc-provider keep its access tokens in the table that the gateway reads: the digest of a token,
// never the token, whom it is for, and the key that it is bound to. A token that is destroyed is gone for the gateway,
// too. Everything else that an authorization server remembers stays as it was.
import { createHash } from 'node:crypto'

const digest = (token) => createHash('sha256').update(token).digest()
const list = (value) => (value === undefined ? null : [value].flat())

/** What oidc-provider takes as `adapter`. rest makes the adapters of all other models; pool is a pg.Pool. */
export function tokenTable(pool, rest) {
  return (model) => (model === 'AccessToken' || model === 'ClientCredentials' ? new Tokens(pool) : rest(model))
}

class Tokens {
  constructor(pool) {
    this.pool = pool
  }

  async upsert(token, { jti: _theTokenItself, ...payload }, expiresIn) {
    await this.pool.query(
      `INSERT INTO oauth_access_tokens
         (digest, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata, expires_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
       ON CONFLICT (digest) DO UPDATE SET metadata = excluded.metadata, expires_at = excluded.expires_at`,
      [
        digest(token),
        payload.clientId,
        payload.accountId ?? null,
        payload.jkt ? 'DPoP' : 'Bearer',
        payload.jkt ?? null,
        payload.scope?.split(' ').filter(Boolean) ?? [],
        list(payload.aud),
        payload,
        expiresIn,
      ],
    )
  }

  async find(token) {
    const found = await this.pool.query('SELECT metadata FROM oauth_access_tokens WHERE digest = $1', [digest(token)])
    return found.rows[0] && { ...found.rows[0].metadata, jti: token }
  }

  async destroy(token) {
    await this.pool.query('DELETE FROM oauth_access_tokens WHERE digest = $1', [digest(token)])
  }

  async revokeByGrantId(grantId) {
    await this.pool.query(`DELETE FROM oauth_access_tokens WHERE metadata->>'grantId' = $1`, [grantId])
  }
}
