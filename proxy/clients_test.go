package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// folderOfClients is where package-lock.json pins other people's clients, and run.mjs plays them.
const folderOfClients = "../testdata/clients"

// needClients fails in CI without Node or the packages, and skips elsewhere.
func needClients(t *testing.T) {
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(folderOfClients + "/node_modules")
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		require.NoError(t, err, "the clients are not installed")
	}
	t.Skipf("the clients are not installed (run npm ci in testdata/clients): %v", err)
}

// issuer binds a token to whatever thumbprint it is asked for, as an authorization server would after a DPoP request.
func issuer(t *testing.T, g *rig) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := "tok-" + uuid.NewString()
		rec := bound(dpop.Thumbprint(r.URL.Query().Get("jkt")), "items:read")
		rec.ExpiresAt = time.Now().Add(10 * time.Minute)
		g.rows.put(token, rec)
		io.WriteString(w, token)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Other people's clients, unmodified, with each nonce mode and with clocks that are wrong by up to an hour: all of
// their requests must pass. A clock outside the window is no reason to fail where a nonce can be asked for.
func TestOtherPeoplesClientsPass(t *testing.T) {
	needClients(t)
	plays := []string{
		"dpop:ES256", "dpop:Ed25519", "dpop:PS256", "dpop:RS256",
		"oauth4webapi:ES256", "oauth4webapi:ES384", "oauth4webapi:Ed25519", "oauth4webapi:PS256",
		"oauth4webapi-before:ES256",
		"openid-client:ES256", "openid-client:ES384", "openid-client:Ed25519", "openid-client:PS256",
		"mcp:ES256", "mcp:PS256",
		"atproto:ES256",
		"okta:RS256",
		"oidc-client-ts:ES256",
	}
	for _, mode := range []struct {
		nonce string
		skews []int
	}{
		{"off", []int{0}},
		{"auto", []int{0, -3600}},
		{"required", []int{0, 3600}},
	} {
		yaml, err := os.ReadFile("../testdata/vectors/rigs/clients.yaml")
		require.NoError(t, err)
		g := newRigFrom(t, "clients", bytes.ReplaceAll(yaml, []byte("${NONCE}"), []byte(mode.nonce)))
		g.live.Store(true)
		as := issuer(t, g)
		for _, skew := range mode.skews {
			name := fmt.Sprintf("npm nonce=%s clock=%ds", mode.nonce, skew)
			t.Run(name, func(t *testing.T) {
				args := append([]string{"run.mjs", strconv.Itoa(skew)}, plays...)
				pass(t, g, len(plays), exec.CommandContext(t.Context(), "node", args...), folderOfClients, as)
			})
		}
		t.Run("indigo nonce="+mode.nonce, func(t *testing.T) {
			pass(t, g, 1, exec.CommandContext(t.Context(), "go", "run", "."), folderOfClients+"/indigo", as)
		})
	}
}

// pass runs clients, and all of their requests must pass.
func pass(t *testing.T, g *rig, clients int, cmd *exec.Cmd, folder, as string) {
	before := g.count()
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GATEWAY="+g.server.URL, "ISSUER="+as, "NODE_NO_WARNINGS=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	played := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); played++ {
		var got struct {
			Client, Alg string
			Statuses    []int
			Bodies      []string
			Error       string
		}
		require.NoError(t, dec.Decode(&got), "%s%s", out, stderr.String())
		assert.Empty(t, got.Error, "%s %s", got.Client, got.Alg)
		assert.Equal(t, []int{200, 200, 200}, got.Statuses, "%s %s: %q", got.Client, got.Alg, got.Bodies)
	}
	assert.Equal(t, clients, played)
	assert.Equal(t, 3*clients, g.count()-before, "what the upstream saw")
}
