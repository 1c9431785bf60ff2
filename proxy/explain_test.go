package proxy_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExplainTellsWhichCheckFailsAndUsesNothingUp(t *testing.T) {
	g := newRig(t, "base")
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	proof, err := key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/v1/other", Token: "T1", IssuedAt: start})
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "https://api.example.test/v1/items", nil)
	r.Header.Set("Authorization", "DPoP T1")
	r.Header.Set("DPoP", proof)
	e := g.gateway.Explain(context.Background(), r, start)
	require.False(t, e.Allowed)
	states := map[proxy.Outcome]int{}
	for _, c := range e.Checks {
		states[c.Outcome]++
		if c.Outcome == proxy.CheckFailed {
			assert.Equal(t, "htu", c.Name)
			assert.Equal(t, dpop.HTUMismatch, c.Reason)
			assert.Equal(t, "https://api.example.test/v1/items", c.Expected)
			assert.Equal(t, "https://api.example.test/v1/other", c.Found)
		}
	}
	assert.Equal(t, map[proxy.Outcome]int{proxy.CheckPassed: 13, proxy.CheckFailed: 1, proxy.CheckNotReached: 15}, states)

	proof, err = key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/v1/items", Token: "T1", IssuedAt: start})
	require.NoError(t, err)
	r.Header.Set("DPoP", proof)
	for range 2 {
		assert.True(t, g.gateway.Explain(context.Background(), r, start).Allowed)
	}
	assert.Zero(t, g.proofs.Stats().Entries)
	assert.Zero(t, g.count())
}

// Each word that a refusal can have is either a check that explain shows, or is about what happens after them.
func TestEveryReasonBelongsToOneCheck(t *testing.T) {
	after := map[dpop.Reason]bool{
		proxy.UpstreamDown: true, proxy.UpstreamBroke: true, proxy.UpstreamLate: true, proxy.ClientGone: true,
		proxy.DescriptionMissing: true, proxy.DescriptionRepeated: true, proxy.PreflightElsewhere: true,
		proxy.ResponseCut: true, proxy.RequestBodyFailed: true, proxy.RequestBodyLate: true,
	}
	seen := map[dpop.Reason]int{}
	for _, reasons := range proxy.CheckReasons() {
		for _, r := range reasons {
			seen[r]++
		}
	}
	n := 0
	for _, file := range []string{"../dpop/reason.go", "refuse.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(f, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			switch typ := spec.Type.(type) {
			case *ast.Ident:
				ok = typ.Name == "Reason"
			case *ast.SelectorExpr:
				ok = typ.Sel.Name == "Reason"
			default:
				ok = false
			}
			if ok {
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				n++
				if !after[dpop.Reason(text)] {
					assert.Equal(t, 1, seen[dpop.Reason(text)], text)
				}
			}
			return true
		})
	}
	require.Greater(t, n, 40)
}
