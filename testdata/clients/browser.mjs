/** The user's browser: it keeps cookies, follows redirects, fills in the forms on its way, and ends at the client's own URL. */
export async function browse(url, { REDIRECT_URI, USER }) {
  const cookies = new Map()
  const go = async (to, body) => {
    const cookie = [...cookies].map((pair) => pair.join('=')).join('; ')
    const page = await fetch(to, { method: body ? 'POST' : 'GET', body, headers: { cookie }, redirect: 'manual' })
    for (const set of page.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set)
      cookies.set(name, value)
    }
    return page
  }
  let page = await go(url)
  for (let i = 0; i < 20; i++) {
    if (page.status >= 300 && page.status < 400) {
      const next = new URL(page.headers.get('location'), url)
      if (next.href.startsWith(REDIRECT_URI)) return next
      page = await go(next)
      continue
    }
    const html = await page.text()
    const action = /<form[^>]*action="([^"]+)"/.exec(html)
    if (!action) throw new Error(`no form on this page: ${html}`)
    const form = new URLSearchParams()
    for (const [, name, value] of html.matchAll(/<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"/g)) form.set(name, value)
    if (html.includes('name="login"')) {
      form.set('login', USER)
      form.set('password', 'any will do')
    }
    page = await go(new URL(action[1], url), form)
  }
  throw new Error('the browser did not come back')
}
