package dpop

import (
	"encoding/base64"
	"errors"
	"strings"
)

var errBase64 = errors.New("not base64url")

// decode64 decodes base64url as RFC 7515 §2 has it: no padding, no line break, no other character, and zero in the
// unused bits of the last one, so that every byte string has exactly one spelling. The standard library's decoder
// skips CR and LF and, unless strict, ignores the unused bits.
func decode64(s string) ([]byte, error) { return appendDecoded64(nil, s) }

// appendDecoded64 is decode64 into room of the caller's.
func appendDecoded64(b []byte, s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := strict64.AppendDecode(b, []byte(s))
	if err != nil {
		return nil, errBase64
	}
	return b, nil
}

var strict64 = base64.RawURLEncoding.Strict()

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
