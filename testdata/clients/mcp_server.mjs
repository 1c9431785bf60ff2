// An MCP server over streamable HTTP that knows nothing of OAuth: whom it serves, a header says. Prints its URL once it
// serves, and ends with its standard input.
import { createServer } from 'node:http'
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
import { McpServer } from '@modelcontextprotocol/server'

const http = createServer(async (request, response) => {
  const server = new McpServer({ name: 'orders', version: '1.0.0' })
  server.registerTool('whoami', { description: 'Says who calls' }, async () => ({
    content: [{ type: 'text', text: request.headers['x-auth-subject'] ?? 'nobody' }],
  }))
  const transport = new NodeStreamableHTTPServerTransport({ sessionIdGenerator: undefined })
  response.on('close', () => server.close())
  await server.connect(transport)
  await transport.handleRequest(request, response)
})
await new Promise((listening) => http.listen(0, '127.0.0.1', listening))
console.log(`http://127.0.0.1:${http.address().port}`)
process.stdin.on('end', () => process.exit()).resume()
