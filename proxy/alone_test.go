package proxy_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alone runs the test that asks once more, in a process of its own with these variables, and says whether this is that
// process.
func alone(t *testing.T, variables ...string) bool {
	t.Helper()
	const variable = "DPOPGATE_TEST_ALONE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(append(os.Environ(), variable+"="+t.Name()), variables...)
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS: "+t.Name())
	return false
}
