package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startChromium starts the browser of DPOPGATE_TEST_CHROMIUM, which ends with the test.
func startChromium(t *testing.T) context.Context {
	t.Helper()
	program := os.Getenv("DPOPGATE_TEST_CHROMIUM")
	if program == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("DPOPGATE_TEST_CHROMIUM is not set")
		}
		t.Skip("DPOPGATE_TEST_CHROMIUM is not set: ./test sets it")
	}
	folder, err := os.MkdirTemp("", "dpopgate-chromium-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) }) // not t.TempDir: children of the browser may outlive it by a moment
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.UserDataDir(folder), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-sandbox", os.Getuid() == 0), // root has no other choice
	)
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	require.NoError(t, chromedp.Do(ctx), "starting %s", program)
	return ctx
}

// tab is a page of the browser, and what it complains about.
type tab struct {
	ctx              context.Context
	close            func()
	ignoreViolations bool

	mu         sync.Mutex
	complaints []string
	violations []string
	done       sync.WaitGroup
}

func openTab(t *testing.T, browser context.Context) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	tab := &tab{ctx: ctx}
	tab.close = sync.OnceFunc(func() {
		cancel()
		tab.done.Wait()
	})
	t.Cleanup(tab.close)
	messages, issues := chromedp.Console(ctx), chromedp.Events(ctx, audits.IssueAdded)
	tab.done.Go(func() {
		for m, err := range messages {
			// A refused fetch is an entry of the browser's own, which no page can prevent.
			if err != nil || m.Source == "network" && strings.Contains(m.Text, "responded with a status of 40") {
				continue
			}
			tab.note(&tab.complaints, m.String())
		}
	})
	tab.done.Go(func() {
		for issue, err := range issues {
			if err == nil && issue.Issue.Details.ContentSecurityPolicyIssueDetails != nil {
				tab.note(&tab.violations, issue.Issue.Details.ContentSecurityPolicyIssueDetails.ViolatedDirective)
			}
		}
	})
	_, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{})
	require.NoError(t, err)
	return tab
}

func (tab *tab) note(list *[]string, what string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	*list = append(*list, what)
}

// assertQuiet closes the tab and asserts that nothing in it went wrong.
func (tab *tab) assertQuiet(t *testing.T) {
	t.Helper()
	evaluate[bool](t, tab, `new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true))))`)
	tab.close()
	if !tab.ignoreViolations {
		assert.Empty(t, tab.violations, "violations of the page's Content-Security-Policy")
		assert.Empty(t, tab.complaints, "messages on the console")
	}
}

func (tab *tab) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(tab.ctx, steps...))
}

func (tab *tab) visit(t *testing.T, url string) {
	t.Helper()
	tab.do(t, chromedp.Navigate(url))
}

// press presses the button of a try, and waits until the page shows what came of it. It does so by the keyboard, as a
// page that scrolls moves its buttons away from under a pointer.
func (tab *tab) press(t *testing.T, name string) {
	t.Helper()
	tab.do(t, chromedp.SendKeys(chromedp.CSS(`button[data-try="`+name+`"]`), kb.Enter))
	tab.await(t, name)
}

func (tab *tab) await(t *testing.T, name string) {
	t.Helper()
	poll[bool](t, tab, `!busy && $('result').dataset.try === '`+name+`'`)
}

// evaluate is the value of an expression in the page; promises are waited for.
func evaluate[T any](t *testing.T, tab *tab, expression string) T {
	t.Helper()
	value, err := chromedp.Run(tab.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t, err, expression)
	return value
}

// poll waits until an expression in the page is true.
func poll[T any](t *testing.T, tab *tab, expression string) T {
	t.Helper()
	value, err := chromedp.Run(tab.ctx, chromedp.Poll[T](expression, chromedp.WithPollingTimeout(10*time.Second)))
	require.NoError(t, err, expression)
	return value
}
