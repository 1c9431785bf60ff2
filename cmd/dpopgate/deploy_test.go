package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/dpopgate/dpopgate/config"
)

// deployment writes what init --for writes into a folder of its own.
func deployment(t *testing.T, what string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	_, err := writeFront(what, filepath.Join(folder, filepath.Base(fronts[what][0])))
	require.NoError(t, err)
	return folder
}

func TestDeploymentsHaveAGoodConfig(t *testing.T) {
	t.Parallel()
	for what, find := range map[string]func(folder string) ([]byte, error){
		"systemd": func(folder string) ([]byte, error) { return os.ReadFile(filepath.Join(folder, "dpopgate.yaml")) },
		"compose": func(folder string) ([]byte, error) {
			return os.ReadFile(filepath.Join(folder, "gateway", "dpopgate.yaml"))
		},
		"kubernetes": func(folder string) ([]byte, error) {
			text, err := os.ReadFile(filepath.Join(folder, "kubernetes.yaml"))
			if err != nil {
				return nil, err
			}
			var configMap struct{ Data map[string]string }
			err = yaml.Unmarshal([]byte(strings.SplitN(string(text), "\n---\n", 2)[0]), &configMap)
			return []byte(configMap.Data["dpopgate.yaml"]), err
		},
	} {
		text, err := find(deployment(t, what))
		require.NoError(t, err)
		secret := filepath.Join(t.TempDir(), "secret")
		value := "postgres://localhost/tokens"
		if what == "compose" {
			value = "password"
		}
		require.NoError(t, os.WriteFile(secret, []byte(value+"\n"), 0o600))
		named := regexp.MustCompile(`\$\{file:[^}]*\}`)
		require.Len(t, named.FindAll(text, -1), 1, "%s keeps its secret in a file", what)
		c, err := config.Parse(what, named.ReplaceAll(text, []byte("$${file:"+secret+"}")), func(string) (string, bool) { return "", false })
		require.NoError(t, err)
		assert.NotEmpty(t, c.Routes)
	}
}

// The judge of units is systemd itself: they have no mistake in them, and leave little to whoever gets into the gateway.
func TestUnitsAreGoodAndTight(t *testing.T) {
	t.Parallel()
	analyze := program(t, "DPOPGATE_TEST_SYSTEMD_ANALYZE")
	folder := deployment(t, "systemd")
	unit := filepath.Join(folder, "dpopgate.service")
	text, err := os.ReadFile(unit)
	require.NoError(t, err)
	require.Contains(t, string(text), "ExecStart=/usr/local/bin/dpopgate serve")
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(unit, []byte(strings.Replace(string(text), "ExecStart=/usr/local/bin/dpopgate", "ExecStart="+self, 1)), 0o600))

	verify := exec.Command(analyze, "verify", "--man=no", unit, filepath.Join(folder, "dpopgate.socket"))
	said, err := verify.CombinedOutput()
	assert.NoError(t, err, "%s", said)
	assert.NotContains(t, string(said), "dpopgate.s", "nothing is said about these units")

	security := exec.Command(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", unit) // of 100: 2.0
	said, err = security.CombinedOutput()
	assert.NoError(t, err, "%s", said)
}

// The judges are the loader of Docker Compose and the types of Kubernetes, decoded strictly. Each finds a key that is
// misspelled.
func TestContainerFilesAreGood(t *testing.T) {
	t.Parallel()
	deploy := program(t, "DPOPGATE_TEST_DEPLOY")
	for what, c := range map[string]struct{ file, key, has string }{
		"compose":    {"compose.yaml", "read_only", "service gateway\nservice migrate\nservice postgres\n"},
		"kubernetes": {"kubernetes.yaml", "readOnlyRootFilesystem", "ConfigMap\nDeployment\nService\nPodDisruptionBudget\nNetworkPolicy\n"},
	} {
		path := filepath.Join(deployment(t, what), c.file)
		said, err := exec.Command(deploy, what, path).CombinedOutput()
		assert.NoError(t, err, "%s", said)
		assert.Equal(t, c.has, string(said))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(text), c.key)
		require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(text), c.key, c.key+"y")), 0o600))
		said, err = exec.Command(deploy, what, path).CombinedOutput()
		assert.Error(t, err, what)
		assert.Contains(t, string(said), c.key+"y")
	}
}
