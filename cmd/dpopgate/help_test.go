package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEachHelpPageIsFoundByItsName(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	list := shell{}.run(t, "help")
	require.Equal(t, exitOK, list.code, list.stderr)
	root := newRootCommand(shell{}.env(nil, nil, nil))
	require.NotEmpty(t, topics())
	for _, page := range topics() {
		assert.Contains(t, string(readme), "(cmd/dpopgate/help/"+page.name+".md)", "README links each page")
		assert.True(t, strings.HasPrefix(page.text, "# "+page.title+"\n"), "%s begins with its title", page.name)
		assert.Contains(t, list.stdout, "\n  "+page.name+" ", "dpopgate help lists it")
		assert.Contains(t, list.stdout, page.title)
		got := shell{}.run(t, "help", page.name)
		assert.Equal(t, exitOK, got.code, got.stderr)
		assert.True(t, strings.HasPrefix(got.stdout, plainText(page.title)+"\n"), page.name)
		for _, c := range root.Commands() {
			assert.NotEqual(t, c.Name(), page.name, "a command has that name: call the page otherwise, such as migration for migrate")
		}
		for line := range strings.Lines(got.stdout) {
			if assert.NotContains(t, line, "**", page.name) && !strings.HasPrefix(line, "    ") {
				assert.LessOrEqual(t, len([]rune(line)), pageWidth+40, "%s: %s", page.name, line) // a long URL has no place to break
			}
		}
	}
}

func TestHelpKnowsCommandsAndSaysWhatItDoesNotKnow(t *testing.T) {
	got := shell{}.run(t, "help", "token", "issue")
	assert.Equal(t, exitOK, got.code, got.stderr)
	assert.Contains(t, got.stdout, "Examples:\n  dpopgate key new -o client.jwk")
	for _, args := range [][]string{{"help", "cooking"}, {"help", "token", "cook"}} {
		got = shell{}.run(t, args...)
		assert.Equal(t, exitUsage, got.code)
		assert.Contains(t, got.stderr, "neither a command nor one of the topics")
		assert.Empty(t, got.stdout)
	}
	got = shell{}.run(t, "__complete", "help", "")
	assert.Contains(t, got.stdout, "reasons\n")
	assert.Contains(t, got.stdout, "validate\n")
	got = shell{}.run(t, "__complete", "help", "token", "")
	assert.Contains(t, got.stdout, "revoke\n")
}

func TestHelpPagesArePlainInATerminal(t *testing.T) {
	const markdown = "# A `page`\n\nSome **bold** words with a [link](other.md#x) and\nanother [one](https://example.com/x).\n\n" +
		"- an item\n  that goes on\n- `two`\n\n| name | meaning | unit |\n| --- | --- | --- |\n| `a\\|b` | first | s |\n\n```yaml\nkey:   value\n```\nEnd.\n"
	const plain = "A page\n\nSome bold words with a link and another one (https://example.com/x).\n\n" +
		"- an item that goes on\n- two\n\n  a|b\n      meaning: first\n      unit: s\n\n    key:   value\nEnd.\n"
	assert.Equal(t, plain, plainPage(markdown, false))
	assert.Equal(t, "\x1b[1mA page\x1b[0m\n"+strings.TrimPrefix(plain, "A page\n"), plainPage(markdown, true))
}
