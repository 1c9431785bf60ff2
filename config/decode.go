package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

// decode reads a node into v, which is one of the types that config.go is made of. It takes only what it knows, adds
// an error for everything else, and goes on.
func (f *file) decode(n *yaml.Node, p path, v reflect.Value, enum string) {
	if f.full() {
		f.source.hideRest(n)
		return
	}
	if !f.plain(n, p) {
		f.source.hide(n)
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.decode(n, p, v.Elem(), enum)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		f.addAt(n, p.key, "no value", noValueHint(v.Kind()))
	case !f.isWanted(n, p, v.Type()):
	case v.Kind() == reflect.Struct:
		f.decodeStruct(n, p, v)
	case v.Kind() == reflect.Map:
		f.decodeMap(n, p, v)
	case v.Kind() == reflect.Slice:
		f.decodeList(n, p, v, enum)
	default:
		f.decodeScalar(n, p, v, enum)
	}
}

// plain refuses what YAML has beyond plain data. Without aliases a small file cannot unfold into a large one.
func (f *file) plain(n *yaml.Node, p path) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		f.addAt(n, p.key, "aliases are not taken", "write the value out; quote a value that begins with *")
	case n.Anchor != "":
		f.addAt(n, p.key, "anchors are not taken", "write the value out where it is wanted; quote a value that begins with &")
	case n.Style&yaml.TaggedStyle != 0:
		f.addAt(n, p.key, "tags are not taken", "leave the tag out; quote a value that begins with !")
	default:
		return true
	}
	return false
}

// isWanted refuses a node of another kind than the type is written as.
func (f *file) isWanted(n *yaml.Node, p path, t reflect.Type) bool {
	want, wantText := yaml.ScalarNode, scalarName(t)
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		want, wantText = yaml.MappingNode, "a mapping, such as {key: value}"
	case reflect.Slice:
		want, wantText = yaml.SequenceNode, "a list, such as [a, b]"
	}
	if n.Kind == want {
		return true
	}
	f.hideMisplaced(n, t)
	names := map[yaml.Kind]string{
		yaml.ScalarNode:   "a single value",
		yaml.MappingNode:  "a mapping",
		yaml.SequenceNode: "a list",
	}
	f.addAt(n, p.key, "found "+names[n.Kind], "want "+wantText)
	return false
}

// hideMisplaced hides a node that is not decoded, if a secret may be meant to stand where it is.
func (f *file) hideMisplaced(n *yaml.Node, t reflect.Type) {
	if holdsSecret(t) {
		f.source.hide(n)
		return
	}
	f.hideCredentials(n)
}

// hideCredentials hides the URLs with a password inside a node.
func (f *file) hideCredentials(n *yaml.Node) {
	if hasCredentials(n.Value) {
		f.source.hide(n)
	}
	for _, c := range n.Content {
		f.hideCredentials(c)
	}
}

// holdsSecret says whether a Secret is somewhere in a type.
func holdsSecret(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsSecret(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if holdsSecret(t.Field(i).Type) {
				return true
			}
		}
	}
	return t == secretType
}

// noValueHint says how to write nothing. A key with nothing behind it is refused, for it may be a list whose items
// were lost, such as the scopes of a route.
func noValueHint(k reflect.Kind) string {
	switch k {
	case reflect.Slice:
		return "write [] for none, or leave the key out"
	case reflect.Map, reflect.Struct:
		return "write {} for none, or leave the key out"
	case reflect.String:
		return `write "" for none, or leave the key out`
	}
	return "give a value, or leave the key out"
}

// decodeStruct reads a mapping whose keys are the fields' yaml tags. Keys that are absent get their defaults.
func (f *file) decodeStruct(n *yaml.Node, p path, v reflect.Value) {
	setDefaults(v)
	if p.key == "" {
		f.remember(&place{node: n})
	}
	fields := map[string]int{}
	var names []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		fields[name] = i
		names = append(names, name)
	}
	f.eachEntry(n, p, v.Type(), func(key, value *yaml.Node) {
		i, known := fields[key.Value]
		if !known {
			f.hideMisplaced(value, v.Type())
			f.addAt(key, p.entry(key.Value).key, "unknown key", unknownKeyHint(key.Value, names))
			f.broken[p.field(nearest(key.Value, names)).key] = true // probably meant, so do not call it missing as well
			return
		}
		at := p.field(key.Value)
		f.remember(&place{path: at, name: key, node: value})
		f.decode(value, at, v.Field(i), v.Type().Field(i).Tag.Get("enum"))
	})
}

func unknownKeyHint(key string, names []string) string {
	if hint := didYouMean(key, names); hint != "" {
		return hint
	}
	return "the keys here are " + strings.Join(names, ", ")
}

// decodeMap reads a mapping whose keys are names of the user's choice.
func (f *file) decodeMap(n *yaml.Node, p path, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	f.eachEntry(n, p, v.Type(), func(key, value *yaml.Node) {
		at := p.entry(key.Value)
		element := reflect.New(v.Type().Elem()).Elem()
		f.remember(&place{path: at, name: key, node: value})
		f.decode(value, at, element, "")
		v.SetMapIndex(reflect.ValueOf(key.Value), element)
	})
}

// eachEntry calls do for each key of a mapping that is a name and the first of its kind. What is no name is not shown:
// without the space after its colon, a secret is part of the key. The mapping is of type t.
func (f *file) eachEntry(n *yaml.Node, p path, t reflect.Type, do func(key, value *yaml.Node)) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case f.full():
			f.source.hideRest(key)
			return
		case !f.plain(key, p):
		case key.Kind == yaml.ScalarNode && key.Tag == "!!merge":
			f.addAt(key, p.key, "merge keys are not taken", "write the keys out")
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			f.addAt(key, p.key, "a key that is not a string", "want a name")
			f.source.hide(key)
		case !isToken(key.Value) || len(key.Value) > longestName:
			f.addAt(key, p.key, "a key that is not a name", "names have no spaces, colons or references; after the colon comes a space")
			f.source.hide(key)
		case first[key.Value] != nil:
			f.addAt(key, p.entry(key.Value).key, "duplicate key",
				fmt.Sprintf("the first is at %d:%d", first[key.Value].Line, first[key.Value].Column))
			f.hideMisplaced(value, t)
			continue
		default:
			first[key.Value] = key
			do(key, value)
			continue
		}
		f.source.hide(value)
	}
}

// longestName bounds the names of keys, upstreams and headers, in bytes.
const longestName = 128

// isToken is the token rule of RFC 9110 §5.6.2, which header names follow; so do all other names here.
func isToken(s string) bool {
	letter := func(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' }
	bad := func(r rune) bool { return !letter(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) }
	return s != "" && !strings.ContainsFunc(s, bad)
}

// decodeList reads a list. Enum applies to each element.
func (f *file) decodeList(n *yaml.Node, p path, v reflect.Value, enum string) {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		at := p.index(i)
		f.remember(&place{path: at, node: c})
		f.decode(c, at, v.Index(i), enum)
	}
}

func (f *file) remember(pl *place) {
	f.places[pl.key] = pl
}

// decodeScalar expands a scalar and reads it as v's type.
func (f *file) decodeScalar(n *yaml.Node, p path, v reflect.Value, enum string) {
	if v.Type() == secretType && !onlyReferences(n.Value) || hasCredentials(n.Value) {
		f.source.hide(n)
	}
	text, ok := f.expand(n, p)
	if !ok {
		return
	}
	message, hint := "", ""
	switch v.Type() {
	case durationType, sizeType:
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			message = fmt.Sprintf("%s is %s", f.quote(n, text), err)
			if !f.expanded[n] {
				hint = durationHint(v.Type(), text)
			}
		}
	default:
		message, hint = f.setBasic(n, v, text, enum)
	}
	if message != "" {
		f.addAt(n, p.key, message, hint)
	}
}

func durationHint(t reflect.Type, text string) string {
	if _, err := strconv.Atoi(text); err == nil && t == durationType {
		return "give a unit, such as " + text + "s"
	}
	return ""
}

// setBasic sets v, a string, bool or int, to the text of a scalar. A message says why it did not.
func (f *file) setBasic(n *yaml.Node, v reflect.Value, text, enum string) (message, hint string) {
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	literal := !f.expanded[n]
	switch v.Kind() {
	case reflect.Bool:
		if (quoted && literal) || !slices.Contains([]string{"true", "false"}, text) {
			return f.quote(n, text) + " is not true or false", "want true or false, without quotes"
		}
		v.SetBool(text == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(text, 10, 32)
		if (quoted && literal) || err != nil || i < 0 || strconv.FormatInt(i, 10) != text {
			return f.quote(n, text) + " is not a whole number", "want a number such as 10, without quotes"
		}
		v.SetInt(i)
	default:
		values := strings.Split(enum, ",")
		switch {
		case literal && slices.Contains([]string{"!!int", "!!float", "!!bool"}, n.Tag):
			return f.quote(n, text) + " is a number or a boolean, not a string", "put it in quotes"
		case enum != "" && !slices.Contains(values, text):
			return f.quote(n, text) + " is none of " + strings.Join(values, ", "), didYouMean(text, values)
		}
		v.SetString(text)
	}
	return "", ""
}

// scalarName is what a scalar type is called in errors.
func scalarName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 30s"
	case t == sizeType:
		return "a size such as 64MiB"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	}
	return "a string"
}

// expand replaces the references in a scalar. Errors stand at the reference where its column can be told.
func (f *file) expand(n *yaml.Node, p path) (text string, ok bool) {
	text, found, bad := f.expander.expand(n.Value)
	if found {
		f.expanded[n] = true
	}
	for _, b := range bad {
		if f.full() {
			break
		}
		f.add(n.Line, n.Column+f.columnOffset(n, b.offset), p.key, b.message, b.hint)
	}
	return text, len(bad) == 0
}

// columnOffset is how many characters after the start of a scalar the given byte of its value stands. It is 0 when
// the scalar is not written out on one line just as its value is.
func (f *file) columnOffset(n *yaml.Node, offset int) int {
	if n.Line > len(f.source.lines) {
		return 0
	}
	line := []rune(f.source.lines[n.Line-1])
	raw := string(line[min(n.Column-1, len(line)):])
	opening := 0
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && raw != "" {
		raw, opening = raw[1:], 1
	}
	if !strings.HasPrefix(raw, n.Value) {
		return 0
	}
	return opening + utf8.RuneCountInString(n.Value[:offset])
}

// setDefaults sets the fields of a struct to their default tags, and those of the structs inside it.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		field, text := v.Field(i), v.Type().Field(i).Tag.Get("default")
		switch {
		case field.Kind() == reflect.Struct:
			setDefaults(field)
		case text == "":
		case field.Type() == durationType, field.Type() == sizeType:
			must(field.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)))
		case field.Kind() == reflect.String:
			field.SetString(text)
		case field.Kind() == reflect.Slice:
			field.Set(reflect.ValueOf(strings.Split(text, ",")))
		case field.Kind() == reflect.Bool:
			field.SetBool(text == "true")
		case field.Kind() == reflect.Int:
			n, err := strconv.Atoi(text)
			must(err)
			field.SetInt(int64(n))
		}
	}
}

// must is for default tags, which a test reads all.
func must(err error) {
	if err != nil {
		panic("config: bad default tag: " + err.Error())
	}
}
