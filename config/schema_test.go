package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

var update = flag.Bool("update", false, "write dpopgate.schema.json anew")

func TestSchemaIsWhatTheTypesSay(t *testing.T) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	require.NoError(t, enc.Encode(newSchema(t)))
	if *update {
		require.NoError(t, os.WriteFile("dpopgate.schema.json", want.Bytes(), 0o644))
		return
	}
	assert.Equal(t, want.String(), string(config.SchemaJSON), "the schema is stale: go test ./config -run Schema -update")
}

// object is a JSON object; encoding/json sorts its members.
type object = map[string]any

func newSchema(t *testing.T) object {
	g := &generator{t: t, comments: fieldComments(t)}
	s := g.value(reflect.TypeFor[config.Config](), "")
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	s["title"] = "dpopgate.yaml"
	s["description"] = "The config file of dpopgate."
	s["required"] = []string{"public_urls", "store", "routes"}
	return s
}

type generator struct {
	t        *testing.T
	comments map[string]string // "Type.Field" → comment
}

// reference is the form of a value that is known only after expansion, which is good wherever a scalar is.
var reference = object{"type": "string", "pattern": `\$\{`}

func orReference(forms ...object) object { return object{"anyOf": append(forms, reference)} }

// value is the schema of a type of config.go.
func (g *generator) value(typ reflect.Type, enum string) object {
	switch typ {
	case reflect.TypeFor[config.Duration]():
		return orReference(
			object{"type": "string", "pattern": `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$`},
			object{"type": "integer", "const": 0},
		)
	case reflect.TypeFor[config.Size]():
		return orReference(
			object{"type": "string", "pattern": `^[0-9]+([KMGT]iB|kB|MB|GB|TB)?$`},
			object{"type": "integer", "minimum": 0},
		)
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return g.value(typ.Elem(), enum)
	case reflect.Struct:
		return g.fields(typ)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.value(typ.Elem(), "")}
	case reflect.Slice:
		return object{"type": "array", "items": g.value(typ.Elem(), enum)}
	case reflect.Bool:
		return orReference(object{"type": "boolean"})
	case reflect.Int:
		return orReference(object{"type": "integer", "minimum": 0})
	case reflect.String:
		if enum != "" {
			return orReference(object{"enum": strings.Split(enum, ",")})
		}
		return object{"type": "string"}
	}
	require.FailNow(g.t, "no schema", "for %s", typ)
	return nil
}

// fields is the schema of a struct. Every key must have a comment.
func (g *generator) fields(typ reflect.Type) object {
	properties := object{}
	for i := range typ.NumField() {
		field := typ.Field(i)
		key := field.Tag.Get("yaml")
		require.NotEmpty(g.t, key, "%s.%s has no yaml tag", typ.Name(), field.Name)
		comment := g.comments[typ.Name()+"."+field.Name]
		assert.NotEmpty(g.t, comment, "%s.%s has no comment, and it is the manual", typ.Name(), field.Name)
		s := g.value(field.Type, field.Tag.Get("enum"))
		s["description"] = comment
		if text := field.Tag.Get("default"); text != "" {
			s["default"] = typedDefault(g.t, field.Type, text)
		}
		properties[key] = s
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}
}

func typedDefault(t *testing.T, typ reflect.Type, text string) any {
	switch typ.Kind() {
	case reflect.Bool:
		return text == "true"
	case reflect.Int:
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return n
	case reflect.Slice:
		return strings.Split(text, ",")
	}
	return text
}

// fieldComments reads the comments of all struct fields in config.go.
func fieldComments(t *testing.T) map[string]string {
	tree, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	require.NoError(t, err)
	comments := map[string]string{}
	ast.Inspect(tree, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, field := range structure.Fields.List {
			for _, name := range field.Names {
				comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
			}
		}
		return false
	})
	require.NotEmpty(t, comments)
	return comments
}

// schemaKeys is every key of the file format, as the schema has them.
func schemaKeys(t *testing.T) []string {
	var schema object
	require.NoError(t, json.Unmarshal(config.SchemaJSON, &schema))
	var keys []string
	var walk func(s object)
	walk = func(s object) {
		for _, inner := range []string{"items", "additionalProperties"} {
			if o, ok := s[inner].(object); ok {
				walk(o)
			}
		}
		properties, _ := s["properties"].(object)
		for key, value := range properties {
			keys = append(keys, key)
			walk(value.(object))
		}
	}
	walk(schema)
	require.NotEmpty(t, keys)
	return keys
}
