package tokenstore

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// TokenType is the type of a token, as stored.
type TokenType string

// The two token types of the table.
const (
	Bearer TokenType = "Bearer" // no sender constraint
	DPoP   TokenType = "DPoP"   // bound to the key whose thumbprint is in JKT
)

// Record is one row of the token table, by the table's own names. Shared records are immutable.
type Record struct {
	Digest    Digest
	JTI       uuid.UUID // the identifier for logs
	ClientID  uuid.UUID
	UserID    uuid.NullUUID // not valid for client-only tokens
	TokenType TokenType
	DPoPJKT   string          // RFC 7638 thumbprint; empty for NULL
	Scopes    []string        // in the stored order
	Audience  []string        // nil for NULL: no constraint
	Metadata  json.RawMessage // a JSON object
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time // zero (long past) for a row whose expiry is not a finite time
}

// Expired says whether the token's life has ended at now. The moment of expiry itself is past it.
func (r *Record) Expired(now time.Time) bool { return !now.Before(r.ExpiresAt) }
