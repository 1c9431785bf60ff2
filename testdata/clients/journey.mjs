// A client's whole way, with openid-client and nothing that it knows beforehand but the URL of the API and its own client id:
// from the challenge to the metadata, to the authorization server, through the user's browser, to the token and the API; then it
// gives the token back. Environment: API, CLIENT, REDIRECT_URI, USER. Prints what it saw as JSON.
import * as openid from 'openid-client'
import { browse } from './browser.mjs'

const { API, CLIENT, REDIRECT_URI } = process.env
const seen = {}

// 1. The API says where to begin (RFC 9728).
const challenge = (await fetch(API)).headers.get('www-authenticate')
const metadata = await (await fetch(/resource_metadata="([^"]+)"/.exec(challenge)[1])).json()
const [issuer] = metadata.authorization_servers
const scope = metadata.scopes_supported.join(' ')

// 2. The authorization server, a key, and the user.
const config = await openid.discovery(new URL(issuer), CLIENT, undefined, openid.None(), {
  execute: [openid.allowInsecureRequests], // http:// on loopback
})
const DPoP = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair('ES256'))
const pkceCodeVerifier = openid.randomPKCECodeVerifier()
const back = await browse(
  openid.buildAuthorizationUrl(config, {
    redirect_uri: REDIRECT_URI,
    scope,
    resource: metadata.resource,
    code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  }),
  process.env,
)

// 3. The token, bound to the key, and the API.
const grant = await openid.authorizationCodeGrant(config, back, { pkceCodeVerifier }, { resource: metadata.resource }, { DPoP })
seen.type = grant.token_type
const call = (token) => openid.fetchProtectedResource(config, token, new URL(API), 'GET', undefined, undefined, { DPoP })
const answer = await call(grant.access_token)
seen.status = answer.status
seen.body = await answer.text()

// 4. The same token in other hands, and after it was given back.
const thief = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair('ES256'))
seen.stolen = await refusal(
  openid.fetchProtectedResource(config, grant.access_token, new URL(API), 'GET', undefined, undefined, { DPoP: thief }),
)
await openid.tokenRevocation(config, grant.access_token)
for (seen.late = 0; seen.late < 100; seen.late++) {
  seen.revoked = await refusal(call(grant.access_token))
  if (seen.revoked) break
}
console.log(JSON.stringify(seen))

/** The error code of a challenge; undefined for an answer that is none. */
async function refusal(answer) {
  try {
    await answer
  } catch (error) {
    if (!(error instanceof openid.WWWAuthenticateChallengeError)) throw error
    return error.cause[0].parameters.error
  }
}
