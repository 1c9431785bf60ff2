package config

import _ "embed"

// SchemaJSON is the JSON Schema (draft-07) of the config file, for editors. It is generated from the types and their
// comments by go test -update.
//
//go:embed dpopgate.schema.json
var SchemaJSON []byte
