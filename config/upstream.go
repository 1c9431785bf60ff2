package config

import "reflect"

// DefaultUpstream is an upstream with every default and no target, as for a URL that a route gives outright.
func DefaultUpstream() Upstream {
	var u Upstream
	setDefaults(reflect.ValueOf(&u).Elem())
	return u
}
