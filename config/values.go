package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration spelled as Go spells it: 30s, 500ms, 1h30m. It is never negative.
type Duration time.Duration

// Std is d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the canonical spelling, which UnmarshalText reads back: 2m rather than Go's 2m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler with the canonical spelling.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It refuses negative durations and numbers without a unit.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New("not a duration such as 30s, 500ms or 1h30m")
	}
	if t < 0 {
		return errors.New("a negative duration")
	}
	*d = Duration(t)
	return nil
}

// Size is a number of bytes, spelled 8KiB, 64MiB, 1GiB, 10kB or plain digits. It is never negative.
type Size int64

// sizeUnits are the units taken, in the order in which String tries them.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
}

// String is the canonical spelling, which UnmarshalText reads back: the largest unit that gives a whole number.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler with the canonical spelling.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It refuses fractions, unknown units and more than 2^63-1 bytes.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := splitUnit(string(text))
	factor, err := unitBytes(unit)
	if err != nil {
		return err
	}
	if number == "" {
		return errNotSize
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return errors.New("more bytes than can be counted")
	}
	*s = Size(n * factor)
	return nil
}

var errNotSize = errors.New("not a size such as 8KiB, 64MiB, 10kB or a number of bytes")

// splitUnit cuts after the leading digits.
func splitUnit(text string) (number, unit string) {
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return text, ""
	}
	return text[:end], text[end:]
}

// unitBytes is the number of bytes of a unit. A unit in the wrong case or cut short gets the right one named.
func unitBytes(unit string) (int64, error) {
	if unit == "" {
		return 1, nil
	}
	for _, u := range sizeUnits {
		if unit == u.name {
			return u.bytes, nil
		}
	}
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, u.name[:1]) {
			return 0, fmt.Errorf("not a size: the unit is spelled %s", u.name)
		}
	}
	return 0, errNotSize
}
