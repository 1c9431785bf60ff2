package proxy

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
)

// metadataPath is where clients look for protected resource metadata; the path of the resource follows (RFC 9728 §3.1).
const metadataPath = "/.well-known/oauth-protected-resource"

// describe writes the metadata document of one public URL from the route table, so that it cannot disagree with it.
func (o *origin) describe(c *config.Config, t *table) {
	o.metadataPath = [2]string{metadataPath + o.Prefix(), metadataPath}
	root := o.String()[:len(o.String())-len(o.Prefix())]
	o.metadataURL = root + o.metadataPath[0]
	bound := !slices.ContainsFunc(t.routes, func(rt *route) bool { return rt.takes(dpop.SchemeBearer) && !rt.public })
	o.document, _ = json.Marshal(struct { // strings and a bool: cannot fail
		Resource      string          `json:"resource"`
		Servers       []string        `json:"authorization_servers,omitempty"`
		Scopes        []string        `json:"scopes_supported,omitempty"`
		Methods       []string        `json:"bearer_methods_supported"`
		Name          string          `json:"resource_name,omitempty"`
		Documentation string          `json:"resource_documentation,omitempty"`
		Algorithms    dpop.Algorithms `json:"dpop_signing_alg_values_supported"`
		Bound         bool            `json:"dpop_bound_access_tokens_required"`
	}{
		o.String(), c.Metadata.AuthorizationServers, t.scopesNamed(),
		[]string{"header"},
		c.Metadata.ResourceName, c.Metadata.Documentation, t.verifier.Algorithms, bound,
	})
}

// serveMetadata answers a request for the metadata, which is public.
func (x *exchange) serveMetadata(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("Access-Control-Allow-Origin", "*")
	w.WriteHeader(http.StatusOK)
	if x.event.Method != http.MethodHead {
		w.Write(x.origin.document)
	}
}
