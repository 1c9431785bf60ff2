package dpop

// Code is an OAuth error code as a challenge spells it (RFC 6750 §3.1, RFC 9449 §7.1, §9).
type Code string

// The error codes of a resource server. NoCode is the challenge of a request without credentials (RFC 6750 §3.1).
const (
	NoCode            Code = ""
	InvalidRequest    Code = "invalid_request"
	InvalidToken      Code = "invalid_token"
	InsufficientScope Code = "insufficient_scope"
	InvalidProof      Code = "invalid_dpop_proof"
	UseNonce          Code = "use_dpop_nonce"
)

// Reason says why a request was refused, in one word of a closed set: a metric label, a log field, a line of explain.
// The reasons here are those of credentials and proofs; the gateway adds its own.
type Reason string

// Why credentials are refused.
const (
	CredentialsMissing   Reason = "credentials_missing"   // no Authorization
	SchemeUnsupported    Reason = "scheme_unsupported"    // a scheme that the route does not take
	CredentialsRepeated  Reason = "credentials_repeated"  // Authorization more than once
	CredentialsMalformed Reason = "credentials_malformed" // not one token68 after the scheme
	TokenInQuery         Reason = "token_in_query"        // access_token in the query beside the header
	BearerWithProof      Reason = "bearer_with_proof"     // scheme Bearer beside a DPoP header
)

// Why a proof is refused, in the order in which the checks run.
const (
	ProofMissing       Reason = "proof_missing"
	ProofRepeated      Reason = "proof_repeated"
	ProofTooLarge      Reason = "proof_too_large"
	ProofMalformed     Reason = "proof_malformed"    // not a compact JWS of two JSON objects
	TypMismatch        Reason = "typ_mismatch"       // typ is not dpop+jwt
	CritUnsupported    Reason = "crit_unsupported"   // crit, or b64
	AlgUnsupported     Reason = "alg_unsupported"    // not in the list
	KeyInvalid         Reason = "key_invalid"        // the jwk is missing, malformed or unsafe
	KeyPrivate         Reason = "key_private"        // the jwk holds a private member
	KeyAlgMismatch     Reason = "key_alg_mismatch"   // the jwk does not fit alg
	ClaimMissing       Reason = "claim_missing"      // one of jti, htm, htu, iat, ath
	ClaimMalformed     Reason = "claim_malformed"    // a claim of the wrong type or out of bounds
	HTMMismatch        Reason = "htm_mismatch"       //
	HTUMismatch        Reason = "htu_mismatch"       //
	ATHMismatch        Reason = "ath_mismatch"       //
	IATPast            Reason = "iat_past"           // older than max_age
	IATFuture          Reason = "iat_future"         // further ahead than max_skew
	IATBeforeStart     Reason = "iat_before_start"   // older than this process, which remembers proofs in memory only
	ProofExpired       Reason = "proof_expired"      // exp has passed
	ProofNotYet        Reason = "proof_not_yet"      // nbf has not come
	NonceMissing       Reason = "nonce_missing"      //
	NonceUnknown       Reason = "nonce_unknown"      // not ours, or too old
	KeyNotBound        Reason = "key_not_bound"      // the proof's key is not the one that the token is bound to
	SignatureInvalid   Reason = "signature_invalid"  //
	ProofReplayed      Reason = "proof_replayed"     // this key has used this jti before
	ReplayUnavailable  Reason = "replay_unavailable" // the replay store cannot say
	ReplayStoreAtLimit Reason = "replay_store_full"  // the replay store is full of live proofs
)

// code is the OAuth error code that a reason maps to.
func (r Reason) code() Code {
	switch r {
	case CredentialsMissing, SchemeUnsupported:
		return NoCode
	case CredentialsRepeated, CredentialsMalformed, TokenInQuery, BearerWithProof:
		return InvalidRequest
	case KeyNotBound:
		return InvalidToken
	default:
		return InvalidProof
	}
}

// Error is a refusal. Description is for the client: plain words about the proof, safe in a quoted-string, and never
// an echo of what was sent. Expected and Found are for the operator (explain): Found may quote the proof's claims.
type Error struct {
	Code            Code
	Reason          Reason
	Description     string
	Expected, Found string
}

// Error implements error. It holds nothing that was sent.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Description }

// refuse is the error for a reason.
func refuse(r Reason, description string) *Error {
	return &Error{Code: r.code(), Reason: r, Description: description}
}

// unlike is the error for a check that compares.
func unlike(r Reason, description, expected, found string) *Error {
	return &Error{Code: r.code(), Reason: r, Description: description, Expected: expected, Found: found}
}
