package config_test

import (
	"encoding"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/dpopgate/dpopgate/config"
)

// FuzzParse states the laws of reading a config file:
//   - it never panics;
//   - what is refused has errors, each with a position in the file and a message, and none shows what a reference
//     stands for;
//   - what is accepted, written out in full and read again, is accepted and the same.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"good", "bad"} {
		for _, path := range corpus(f, folder, 6) {
			data, err := os.ReadFile(path)
			require.NoError(f, err)
			f.Add(data)
		}
	}
	f.Add(config.Starter())
	// Long enough for a key, and in no file by chance.
	const secret = "zq7xk2vj9wp4hunter"
	lookup := func(name string) (string, bool) {
		if name == "DATABASE_URL" {
			return "postgres://gate:" + secret + "@db/tokens", true
		}
		return secret, !strings.HasPrefix(name, "UN")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "file:") {
			return // no business with the files of this machine
		}
		c, err := config.Parse("fuzz.yaml", data, lookup)
		if err != nil {
			assertGoodErrors(t, data, err)
			assert.NotContains(t, strings.ToLower(err.Error()), secret)
			return
		}
		assertReadsBack(t, c)
	})
}

func assertGoodErrors(t *testing.T, data []byte, err error) {
	var errs config.Errors
	require.True(t, errors.As(err, &errs))
	require.NotEmpty(t, errs)
	lines := strings.Count(string(data), "\n") + 1
	for _, e := range errs {
		assert.NotEmpty(t, e.Message)
		assert.GreaterOrEqual(t, e.Line, 1)
		assert.LessOrEqual(t, e.Line, lines)
		assert.GreaterOrEqual(t, e.Column, 1)
		assert.True(t, utf8.ValidString(e.Error()))
	}
}

// assertReadsBack writes a config out, secrets and all, and reads it again.
func assertReadsBack(t *testing.T, c *config.Config) {
	text := dump(t, c)
	again, err := config.Parse("again.yaml", text, func(string) (string, bool) { return "", false })
	require.NoError(t, err, "%s", text)
	assert.Equal(t, string(text), string(dump(t, again)))
}

func TestAcceptedFilesReadBackTheSame(t *testing.T) {
	for _, path := range corpus(t, "good", 6) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		c, err := config.Parse(path, data, env)
		require.NoError(t, err)
		assertReadsBack(t, c)
	}
}

func dump(t *testing.T, c *config.Config) []byte {
	text, err := yaml.Dump(tree(reflect.ValueOf(*c)))
	require.NoError(t, err)
	return text
}

// tree is a config value as plain maps, lists and strings. Fields that are as if never set are left out.
func tree(v reflect.Value) any {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && v.Type() != reflect.TypeFor[config.Secret]() {
		text, _ := m.MarshalText()
		return string(text)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return tree(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			tag := v.Type().Field(i).Tag
			field := v.Field(i)
			list, isList := field.Interface().([]string)
			isDefault := field.IsZero() && tag.Get("default") == "" && field.Kind() != reflect.Struct ||
				isList && strings.Join(list, ",") == tag.Get("default")
			if !isDefault {
				m[tag.Get("yaml")] = tree(field)
			}
		}
		return m
	case reflect.Map:
		m := map[string]any{}
		for _, key := range v.MapKeys() {
			m[key.String()] = tree(v.MapIndex(key))
		}
		return m
	case reflect.Slice:
		list := []any{}
		for i := range v.Len() {
			list = append(list, tree(v.Index(i)))
		}
		return list
	case reflect.String:
		return strings.ReplaceAll(v.String(), "$", "$$")
	}
	return v.Interface()
}
