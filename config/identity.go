package config

import (
	"maps"
	"slices"
)

// IdentityNames is the header names that carry the identity to an upstream. An empty name is not sent.
type IdentityNames struct {
	Subject   string
	Scope     string
	Client    string
	TokenID   string
	TokenType string
	Expires   string
	Metadata  map[string]string // header name → member of the stored metadata
}

// presets are the families of identity headers. For kong, the headers are those of its OAuth 2.0 plugin, which has none
// for the token itself. The other families are those of their namesakes, with the same endings as x-auth for what the
// namesake does not send.
var presets = map[string]IdentityNames{
	"x-auth": {
		Subject: "X-Auth-Subject", Scope: "X-Auth-Scope", Client: "X-Auth-Client",
		TokenID: "X-Auth-Token-Id", TokenType: "X-Auth-Token-Type", Expires: "X-Auth-Expires",
	},
	"remote-user": {
		Subject: "Remote-User", Scope: "Remote-Scope", Client: "Remote-Client",
		TokenID: "Remote-Token-Id", TokenType: "Remote-Token-Type", Expires: "Remote-Expires",
	},
	"auth-request": {
		Subject: "X-Auth-Request-User", Scope: "X-Auth-Request-Scope", Client: "X-Auth-Request-Client",
		TokenID: "X-Auth-Request-Token-Id", TokenType: "X-Auth-Request-Token-Type", Expires: "X-Auth-Request-Expires",
	},
	"oauth2-proxy": {
		Subject: "X-Forwarded-User", Scope: "X-Forwarded-Scope", Client: "X-Forwarded-Client",
		TokenID: "X-Forwarded-Token-Id", TokenType: "X-Forwarded-Token-Type", Expires: "X-Forwarded-Expires",
	},
	"kong": {
		Subject: "X-Authenticated-Userid", Scope: "X-Authenticated-Scope", Client: "X-Credential-Identifier",
	},
}

// relatives are headers that the presets' namesakes send and we never do. Whoever trusts the family trusts them too,
// so a client must not get them through.
var relatives = []string{
	"Remote-Name", "Remote-Email", "Remote-Groups",
	"X-Auth-Request-Email", "X-Auth-Request-Groups", "X-Auth-Request-Preferred-Username", "X-Auth-Request-Access-Token",
	"X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token",
	"X-Auth-Assertion", "X-Consumer-Id", "X-Consumer-Custom-Id", "X-Consumer-Username", "X-Consumer-Groups", "X-Anonymous-Consumer",
}

// Names is the effective header names: the preset's, overridden by those set one by one.
func (i Identity) Names() IdentityNames {
	names := presets[i.Preset]
	for _, single := range []struct {
		override *string
		name     *string
	}{
		{i.Subject, &names.Subject},
		{i.Scope, &names.Scope},
		{i.Client, &names.Client},
		{i.TokenID, &names.TokenID},
		{i.TokenType, &names.TokenType},
		{i.Expires, &names.Expires},
	} {
		if single.override != nil {
			*single.name = *single.override
		}
	}
	names.Metadata = maps.Clone(i.Metadata)
	return names
}

// all is every name that is not empty.
func (n IdentityNames) all() []string {
	names := append(slices.Collect(maps.Keys(n.Metadata)), n.Subject, n.Scope, n.Client, n.TokenID, n.TokenType, n.Expires)
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// PresetHeaders is the header names of all presets, sorted, with those of their namesakes' families. A gateway removes
// them from every request, whichever preset is in use.
func PresetHeaders() []string {
	headers := slices.Clone(relatives)
	for _, names := range presets {
		headers = append(headers, names.all()...)
	}
	slices.Sort(headers)
	return slices.Compact(headers)
}
