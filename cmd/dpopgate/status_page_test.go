package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// anHour lets an hour of traffic pass: a client that does well, one that migrates, one with a slow clock, and strangers.
func (r *statusRig) anHour() {
	reader, mover := tallied, uuid.MustParse("0b9f6f5e-02c3-4d5e-9a4f-9d3c53c1a7d2")
	for minute := range minuteSlots {
		wave := 60 + int(40*math.Sin(float64(minute)/7)) + minute*7%13
		observed(r.tally, wave, proxy.Event{Route: "GET /orders/", Verdict: proxy.Passed, ClientID: reader, Scheme: dpop.SchemeDPoP, Thumbprint: "x", Offset: -600 * time.Millisecond})
		observed(r.tally, wave/9, proxy.Event{Route: "/legacy/", Verdict: proxy.Passed, ClientID: mover, Scheme: dpop.SchemeDPoP, Thumbprint: "x", Offset: 3 * time.Second})
		observed(r.tally, wave/20, proxy.Event{Route: "/legacy/", Verdict: proxy.Passed, ClientID: mover, Scheme: dpop.SchemeBearer, Would: dpop.SchemeUnsupported})
		if minute%9 == 4 {
			observed(r.tally, 14, proxy.Event{Route: "GET /orders/", Verdict: proxy.Refused, Reason: dpop.HTUMismatch, Scheme: dpop.SchemeDPoP, Thumbprint: "x", Offset: -time.Second})
		}
		observed(r.tally, minute%3, proxy.Event{Route: "GET /orders/", Verdict: proxy.Refused, Reason: dpop.IATPast, Scheme: dpop.SchemeDPoP, Thumbprint: "x", Offset: -3 * time.Minute})
		observed(r.tally, minute%2, proxy.Event{Verdict: proxy.Refused, Reason: proxy.RouteMissing})
		if minute == 41 || minute == 42 {
			observed(r.tally, 25, proxy.Event{Route: "GET /orders/", Verdict: proxy.Failed, Reason: proxy.UpstreamLate, ClientID: reader, Scheme: dpop.SchemeDPoP, Thumbprint: "x"})
		}
		if minute < minuteSlots-1 {
			r.clock.Time = r.clock.Add(time.Minute)
		}
	}
}

// colours has the browser say that its user wants this scheme.
func colours(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// TestStatusPageInABrowser is one test, so that the browser starts once.
func TestStatusPageInABrowser(t *testing.T) {
	browser := startChromium(t)
	t.Run("an hour", func(t *testing.T) {
		r := newStatusRig(t, "")
		r.anHour()
		tab := openTab(t, browser)
		tab.visit(t, r.url+"/")
		tab.drawn(t)
		showsTheHour(t, tab)
		isLive(t, tab, r)
		isForEverybody(t, tab)
		assert.Empty(t, tab.complaints(t), "neither errors nor violations of the page's policy")
		fits(t, tab)
		tab.close()
	})
	t.Run("nothing yet", func(t *testing.T) {
		r := newStatusRig(t, "")
		tab := openTab(t, browser)
		tab.visit(t, r.url+"/")
		tab.drawn(t)
		for id, words := range map[string]string{
			"peak": "No request in the last hour.", "reasons": "Nothing in the last hour.", "offsets-words": "No proof in the last hour.",
			"report-verdict": "Nothing to say yet: no known client has called a route in mode report in the last 24h.",
			"under":          "not asked yet",
		} {
			assert.Contains(t, tab.text(t, id), words, id)
		}
		assert.Empty(t, tab.complaints(t))
		tab.close()
	})
	t.Run("trouble", func(t *testing.T) {
		r := newStatusRig(t, "")
		observed(r.tally, 30, proxy.Event{Route: "GET /orders/", Verdict: proxy.Refused, Reason: dpop.HTUMismatch})
		observed(r.tally, 2, proxy.Event{Route: "GET /orders/", Verdict: proxy.Failed, Reason: proxy.UpstreamDown})
		r.reloaded.Store(&reloadOutcome{At: r.clock.Time, Mistakes: []string{"line 3, column 1"}})
		r.ready.draining.Store(true)
		r.tally.misused(proxy.OtherKey, misuseRevoked)
		r.tally.misused(proxy.ShownAsBearer, misuseUnexamined)
		tab := openTab(t, browser)
		tab.visit(t, r.url+"/")
		tab.drawn(t)
		assert.Equal(t, "Not ready.", tab.text(t, "headline"))
		assert.Equal(t, "serving failed\nthe config file was not reloaded; what was in force stays: line 3, column 1\n"+
			"2 of 32 requests in the last five minutes failed upstream\n30 of 32 requests in the last five minutes were refused\n"+
			"A live bound token was shown with a proof by another key, as by somebody who stole it, 1 time in the last 24 hours (revoked): the log and the audit stream say which token",
			tab.text(t, "attention"))
		tab.close()
	})
	t.Run("no room to be told", func(t *testing.T) {
		r := newStatusRig(t, "")
		for range maxSubscribers {
			fetch(t, r.url+"/events")
		}
		tab := openTab(t, browser)
		tab.visit(t, r.url+"/")
		poll[bool](t, tab, `$('live').dataset.state === 'asked' && document.body.dataset.drawn !== undefined`)
		tab.close()
	})
}

func (tab *tab) drawn(t *testing.T) {
	t.Helper()
	poll[bool](t, tab, `document.body.dataset.drawn !== undefined && $('live').dataset.state === 'live'`)
}

func (tab *tab) text(t *testing.T, id string) string {
	t.Helper()
	return evaluate[string](t, tab, `document.getElementById('`+id+`').innerText`)
}

func showsTheHour(t *testing.T, tab *tab) {
	assert.Regexp(t, `^Serving, `, tab.text(t, "headline"))
	assert.Equal(t, minuteSlots, evaluate[int](t, tab, `document.querySelectorAll('#chart g').length`))
	assert.Regexp(t, `^Requests by minute: [\d,]+ passed, [\d,]+ would be refused, [\d,]+ refused, 50 failed upstream, at most \d+ requests in a minute$`,
		evaluate[string](t, tab, `$('chart').getAttribute('aria-label')`))
	first := tab.text(t, "reasons")
	l, _ := lessonOf(dpop.HTUMismatch)
	for _, words := range []string{"htu_mismatch", l.Cause, l.Fix, "let through, mode report"} {
		assert.Contains(t, first, words)
	}
	assert.Contains(t, tab.text(t, "report-verdict"), "Not yet: enforcing would refuse requests of 1 of 1 client")
	assert.Contains(t, tab.text(t, "routes"), "POST /orders/{id}/refund")
	assert.Contains(t, tab.text(t, "routes"), "a user, nonce required")
	assert.Contains(t, tab.text(t, "targets"), "orders: http://127.0.0.1:10")
	assert.Contains(t, tab.text(t, "under"), "Used proofs")
}

func isLive(t *testing.T, tab *tab, r *statusRig) {
	observed(r.tally, 1, proxy.Event{Route: "GET /orders/", Verdict: proxy.Refused, Reason: dpop.KeyPrivate})
	assert.True(t, poll[bool](t, tab, `document.querySelector('[data-reason=key_private]') !== null`), "without a reload")
}

// isForEverybody looks at what somebody needs who does not see the page, or uses no mouse.
func isForEverybody(t *testing.T, tab *tab) {
	tab.do(t, chromedp.KeyEvent(kb.Tab))
	assert.Equal(t, "#main", evaluate[string](t, tab, `document.activeElement.getAttribute('href')`), "the first key leads past the head")
	assert.Equal(t, 1, evaluate[int](t, tab, `document.querySelectorAll('h1').length`))
	assert.Zero(t, evaluate[int](t, tab, `[...document.querySelectorAll('section')].filter(s => !document.getElementById(s.getAttribute('aria-labelledby'))?.innerText && !s.hidden).length`),
		"each section has a name")
	assert.Zero(t, evaluate[int](t, tab, `[...document.querySelectorAll('img')].filter(i => i.getAttribute('alt') === null).length`))
	assert.Zero(t, evaluate[int](t, tab, `[...document.querySelectorAll('th')].filter(h => h.scope !== 'col').length`))
	assert.Equal(t, "status", evaluate[string](t, tab, `$('live').getAttribute('role')`))
	assert.True(t, evaluate[bool](t, tab, `document.querySelector('.scroll').tabIndex === 0`), "what scrolls can be scrolled by keys")
}

// fits looks at the page on a desk and on a phone, by day and by night.
func fits(t *testing.T, tab *tab) {
	papers := map[string]string{}
	for _, width := range []int64{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			tab.do(t, chromedp.EmulateViewport(width, 844), colours(scheme))
			assert.LessOrEqual(t, evaluate[int64](t, tab, `document.documentElement.scrollWidth`), width, "nothing is cut off at %d px", width)
			assert.Zero(t, evaluate[int](t, tab, `[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('.scroll, svg')).length`), "%d px", width)
			papers[scheme] = evaluate[string](t, tab, `getComputedStyle(document.body).backgroundColor`)
			faint := evaluate[[]string](t, tab, contrastBelow)
			assert.Empty(t, faint, "text that is too faint, %s at %d px", scheme, width)
			if folder := os.Getenv("SCREENSHOTS"); folder != "" {
				picture, err := chromedp.Run(tab.ctx, chromedp.FullScreenshot(100))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(folder, scheme+"-"+map[int64]string{1280: "desk", 390: "phone"}[width]+".png"), picture, 0o600))
			}
		}
	}
	assert.NotEqual(t, papers["light"], papers["dark"])
}

// contrastBelow are the elements with text whose contrast is below 4.5 to 1 (WCAG 2.2, 1.4.3).
const contrastBelow = `(() => {
	const rgb = s => s.match(/[\d.]+/g).map(Number);
	const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
	const under = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
	return [...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length).filter(e => {
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(under(e))].sort((x, y) => y - x);
		return (a + .05) / (b + .05) < 4.5;
	}).map(e => e.tagName + ' ' + e.textContent.slice(0, 40));
})()`
