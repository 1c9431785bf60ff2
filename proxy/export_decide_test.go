package proxy

import "net/http"

// Decide takes a request through steps 1 to 7, and says whether it would be forwarded.
func Decide(g *Gateway, r *http.Request) bool {
	x := &exchange{table: g.table.Load(), o: &g.o, now: g.o.Now()}
	x.from = x.table.trusted.originOf(r)
	return x.decide(r) == nil
}
