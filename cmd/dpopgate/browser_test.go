package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// startChromium starts the browser of DPOPGATE_TEST_CHROMIUM, which ends with the test.
func startChromium(t *testing.T, more ...chromedp.ExecAllocatorOption) context.Context {
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
		chromedp.ExecPath(program), chromedp.UserDataDir(folder), chromedp.Env("HOME="+folder), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-sandbox", os.Getuid() == 0), // root has no other choice
	)
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewExecAllocator(ctx, append(options, more...)...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	require.NoError(t, chromedp.Do(ctx), "starting %s", program)
	return ctx
}

// tab is a page of the browser, and what is said on its console.
type tab struct {
	ctx   context.Context
	close func()
	said  chan string
}

func openTab(t *testing.T, browser context.Context) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	tab := &tab{ctx: ctx, said: make(chan string, 1000)}
	messages := chromedp.Console(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(tab.said)
		for m, err := range messages {
			if err != nil {
				return
			}
			tab.said <- m.String()
		}
	})
	tab.close = sync.OnceFunc(func() {
		cancel()
		reading.Wait()
	})
	t.Cleanup(tab.close)
	return tab
}

// complaints are what the console has said so far: errors, warnings, and violations of the page's policy. That a fetch
// was answered with 401 or 403 is no complaint: browsers log that themselves.
func (tab *tab) complaints(t *testing.T) []string {
	t.Helper()
	const end = "debug: that is all"
	evaluate[bool](t, tab, `console.debug('that is all') ?? true`)
	var all []string
	for said := range tab.said {
		if said == end {
			return all
		}
		if !strings.Contains(said, "the server responded with a status of 401") && !strings.Contains(said, "the server responded with a status of 403") {
			all = append(all, said)
		}
	}
	require.Fail(t, "the tab was closed")
	return nil
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
	value, err := chromedp.Run(tab.ctx, chromedp.Poll[T](expression, chromedp.WithPollingTimeout(30*time.Second)))
	require.NoError(t, err, expression)
	return value
}
