package config

import "strings"

// checkForwardAuth holds the path that proxies ask at to the rules of paths, and to there being proxies to believe.
func (f *file) checkForwardAuth(c *Config) {
	const key = "forward_auth.path"
	path := c.ForwardAuth.Path
	switch p := pathProblem(path); {
	case path == "":
	case p != nil:
		f.rejectProblem(key, p)
	case strings.HasSuffix(path, "/"):
		f.rejectProblem(key, &problem{"ends in a slash", "leave the last slash out"})
	case len(c.Listen.TrustedProxies) == 0:
		f.reject(key, "name the networks of the proxies that ask in listen.trusted_proxies",
			"nobody may ask: listen.trusted_proxies is empty")
	}
}
