package tokenstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// TokenType is the type of a token, as stored.
type TokenType string

// The two token types of the table.
const (
	Bearer TokenType = "Bearer" // no sender constraint
	DPoP   TokenType = "DPoP"   // bound to the key whose thumbprint is in DPoPJKT
)

// The lengths that the table allows for a thumbprint. SHA-256 in base64url has 43 characters (RFC 7638).
const (
	minJKT = 43
	maxJKT = 128
)

// Record is one row of the token table, by the table's own names. Shared records are immutable.
//
// What cannot be trusted in a stored row is read as granting less: a NULL or malformed element of scopes leaves no
// scopes, one of audience an audience that names nobody, and an expires_at that is NULL or infinite is long past.
type Record struct {
	Digest    Digest          `json:"digest"`
	JTI       uuid.UUID       `json:"jti"` // the identifier for logs
	ClientID  uuid.UUID       `json:"client_id"`
	UserID    uuid.NullUUID   `json:"user_id"` // not valid for client-only tokens
	TokenType TokenType       `json:"token_type"`
	DPoPJKT   string          `json:"dpop_jkt,omitempty"` // RFC 7638 thumbprint; empty for NULL
	Scopes    []string        `json:"scopes"`             // in the stored order; never nil when read
	Audience  []string        `json:"audience"`           // nil for NULL: no constraint. Empty: nobody
	Metadata  json.RawMessage `json:"metadata"`           // a JSON object; {} for anything else
	CreatedAt time.Time       `json:"created_at"`         // this and the next two in UTC
	UpdatedAt time.Time       `json:"updated_at"`
	ExpiresAt time.Time       `json:"expires_at"` // zero (long past) for a row whose expiry is not a finite time
}

// Expired says whether the token's life has ended at now. The moment of expiry itself is past it.
func (r *Record) Expired(now time.Time) bool { return !now.Before(r.ExpiresAt) }

// Bound says whether the token may be used only with a proof of possession: every token but one stored as Bearer and
// without a thumbprint. A row that is inconsistent (its check was dropped) therefore counts as bound; and since an
// empty thumbprint matches no key, a DPoP row without one is of no use to anybody.
func (r *Record) Bound() bool { return r.TokenType != Bearer || r.DPoPJKT != "" }

// validate says everything that the table's constraints would refuse in a record to be inserted.
func (r *Record) validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.ClientID == uuid.Nil {
		refuse("client_id is missing")
	}
	switch {
	case r.TokenType == Bearer && r.DPoPJKT != "":
		refuse("dpop_jkt is set, but token_type is Bearer: a token bound to a key is of type DPoP")
	case r.TokenType == DPoP && (len(r.DPoPJKT) < minJKT || len(r.DPoPJKT) > maxJKT):
		refuse("dpop_jkt has %d characters: a token of type DPoP needs a thumbprint of %d to %d", len(r.DPoPJKT), minJKT, maxJKT)
	case r.TokenType != Bearer && r.TokenType != DPoP:
		refuse("token_type is %q: want Bearer or DPoP", r.TokenType)
	}
	for _, s := range r.Scopes {
		if !isScope(s) {
			refuse(`scope %q: want one or more visible ASCII characters other than " and \`, s)
		}
	}
	for _, a := range r.Audience {
		if !isAudience(a) {
			refuse("audience %q: want an absolute URI without a fragment", a)
		}
	}
	if len(r.Metadata) > 0 && !isObject(r.Metadata) {
		refuse("metadata is not a JSON object")
	}
	if r.ExpiresAt.IsZero() {
		refuse("expires_at is missing")
	} else if y := r.ExpiresAt.UTC().Year(); y < 1970 || y > 9999 {
		refuse("expires_at is in the year %d: want 1970 to 9999", y)
	}
	return errors.Join(errs...)
}

// fill sets what an inserted record may leave out and rounds its times down to what the store keeps.
func (r *Record) fill(now time.Time, precision time.Duration) {
	if r.JTI == uuid.Nil {
		r.JTI = uuid.New()
	}
	if r.CreatedAt.IsZero() {
		r.CreatedAt = now
	}
	if r.UpdatedAt.IsZero() {
		r.UpdatedAt = r.CreatedAt
	}
	if !r.UserID.Valid {
		r.UserID = uuid.NullUUID{}
	}
	if r.Scopes == nil {
		r.Scopes = []string{}
	}
	if len(r.Metadata) == 0 {
		r.Metadata = emptyObject()
	}
	for _, t := range []*time.Time{&r.CreatedAt, &r.UpdatedAt, &r.ExpiresAt} {
		*t = t.UTC().Truncate(precision)
	}
}

// grants reads a stored array of scopes: all of them, or none when one is not a scope-token. Granting the rest would
// be a guess, and what is not a scope-token could pass for several in a space-separated header.
func grants(scopes []string, whole bool) []string {
	if !whole {
		return []string{}
	}
	for _, s := range scopes {
		if !isScope(s) {
			return []string{}
		}
	}
	return scopes
}

// constraint reads a stored audience: nil for NULL, and nobody when it is not a plain list of strings.
func constraint(audience []string, null, whole bool) []string {
	switch {
	case null:
		return nil
	case !whole:
		return []string{}
	default:
		return audience
	}
}

// object reads a stored metadata value.
func object(stored []byte) json.RawMessage {
	if !isObject(stored) {
		return emptyObject()
	}
	return stored
}

func emptyObject() json.RawMessage { return json.RawMessage("{}") }

func isObject(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{' && json.Valid(b)
}

// isScope is the scope-token of RFC 6749 section 3.3: 1*( %x21 / %x23-5B / %x5D-7E ).
func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// isAudience is a resource as RFC 8707 section 2 has it: an absolute URI without a fragment.
func isAudience(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '#' {
			return false
		}
	}
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && (u.Host != "" || u.Opaque != "" || u.Path != "")
}
