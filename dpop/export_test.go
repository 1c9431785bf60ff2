package dpop

// Differs is the comparison of an htu with a target, for the fuzz target that states its laws.
func Differs(t Target, htu string) string { return t.match(htu) }

// ReadHeader is what Parse makes of the first part of a proof.
func ReadHeader(text string, algorithms Algorithms) (*Header, error) {
	return readHeader(text, algorithms)
}
