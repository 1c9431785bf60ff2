package proxy

import "github.com/dpopgate/dpopgate/dpop"

// CheckReasons is the reasons of each check that explain shows.
func CheckReasons() [][]dpop.Reason {
	all := make([][]dpop.Reason, len(checks))
	for i, c := range checks {
		all[i] = c.reasons
	}
	return all
}
