package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hangingStore answers when its caller has no more patience, and says so.
type hangingStore struct{}

func (hangingStore) Lookup(ctx context.Context, _ tokenstore.Digest) (*tokenstore.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// conformance: DOS-09
func TestAHangingStoreIs503ForEachOfACrowdAndLeavesNothingBehind(t *testing.T) {
	tokens, err := cache.NewTokens(hangingStore{}, cache.TokensOptions{
		MaxSize: cache.MinTokensSize, TTL: time.Minute, NegativeTTL: time.Second, Timeout: 50 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(tokens.Close)
	quick := newRig(t, "base")
	g := quick.sibling(0, func(o *proxy.Options) { o.Tokens = tokens })
	key := vectorKeys(t)["K1"]

	before := runtime.NumGoroutine()
	answers := make(chan *http.Response, 200)
	var crowd sync.WaitGroup
	for i := range cap(answers) {
		token := fmt.Sprintf("T%d", i)
		text := requestText("GET", "/v1/items", "Authorization: DPoP "+token, "DPoP: "+g.proof(key, "GET", "/v1/items", token))
		crowd.Go(func() { answers <- g.raw("GET", text) })
	}
	crowd.Wait()
	close(answers)
	for res := range answers {
		require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
		assert.NotEmpty(t, res.Header.Get("Retry-After"))
		assert.Empty(t, res.Header["Www-Authenticate"], "the credentials may well be good")
	}
	assert.Zero(t, quick.count())
	assert.Eventually(t, func() bool { return runtime.NumGoroutine() < before+20 }, 10*time.Second, 10*time.Millisecond)
}
