// The official MCP client's way to a protected server, which it finds by itself from the challenge on. All that is told to it
// is the URL, a client id and that it shall use DPoP. Environment: API, CLIENT, REDIRECT_URI, USER. Prints what it saw as JSON.
import { Client, DpopSession, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client'
import { browse } from './browser.mjs'

const { API, CLIENT, REDIRECT_URI } = process.env
const kept = { dpop: DpopSession.create() }
let page

const authProvider = {
  redirectUrl: REDIRECT_URI,
  clientMetadata: { redirect_uris: [REDIRECT_URI], scope: 'orders:read' },
  clientInformation: () => ({ client_id: CLIENT }),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
  saveDiscoveryState: (state) => void (kept.discovery = state),
  discoveryState: () => kept.discovery,
  redirectToAuthorization: (url) => void (page = url),
  dpop: () => kept.dpop,
}

const connect = async () => {
  const transport = new StreamableHTTPClientTransport(new URL(API), { authProvider })
  const client = new Client({ name: 'dpopgate-test', version: '1.0.0' })
  try {
    await client.connect(transport)
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error
    const back = await browse(page, process.env)
    await transport.finishAuth(back.searchParams)
    return null
  }
  return client
}

const first = await connect()
const client = first ?? (await connect())
const tools = (await client.listTools()).tools.map((tool) => tool.name)
const said = await client.callTool({ name: 'whoami', arguments: {} })
console.log(JSON.stringify({ asked: first === null, type: kept.tokens.token_type, tools, said: said.content[0].text }))
await client.close()
