package dpop

// Differs is the comparison of an htu with a target, for the fuzz target that states its laws.
func Differs(t Target, htu string) string { return t.match(htu) }
