package config

import _ "embed"

//go:embed starter.yaml
var starter []byte

// Starter is the commented config file that `dpopgate init` writes. It is valid as it is.
func Starter() []byte { return append([]byte(nil), starter...) }
