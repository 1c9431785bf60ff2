package config

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
)

// fileReference is ${file:PATH}, wherever it stands.
var fileReference = regexp.MustCompile(`\$\{file:([^}]*)\}`)

// Fingerprint is a digest of the config file at path and of every file that it names by ${file:}. It differs when what
// Load would read does, whatever has been done to the files and whether or not they can be read.
func Fingerprint(path string) [sha256.Size]byte {
	h := sha256.New()
	data, err := readBounded(path, maxFile)
	fmt.Fprintf(h, "%t %d\n%s", err == nil, len(data), data)
	x := expander{folder: filepath.Dir(path)}
	named := map[string]bool{}
	for _, m := range fileReference.FindAllSubmatch(data, -1) {
		if name := string(m[1]); !named[name] {
			named[name] = true
			text, problem := x.readFile(name)
			fmt.Fprintf(h, "%t %d\n%s", problem == nil, len(text), text)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
