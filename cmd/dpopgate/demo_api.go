package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// orderAPI is the sample legacy API of the demo: it believes whatever its headers say, as such APIs do behind a
// gateway. Each answer also says what it was told about its caller.
type orderAPI struct {
	seen  atomic.Int64 // how many requests have come here
	story atomic.Int64 // how many of them are the story's
	mux   *http.ServeMux

	mu     sync.Mutex
	orders []order
}

type order struct {
	ID       string `json:"id"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
	Total    string `json:"total"`
	Status   string `json:"status"`
}

// caller is what a request told the API about who sent it.
type caller struct {
	Identity      map[string]string `json:"identity_headers"`
	Authorization bool              `json:"authorization_header_arrived"`
	DPoP          bool              `json:"dpop_header_arrived"`
}

// orderAnswer is every answer of the API: some orders, or an error.
type orderAnswer struct {
	Orders []order `json:"orders,omitempty"`
	Error  string  `json:"error,omitempty"`
	Caller caller  `json:"caller"`
}

func newOrderAPI() *orderAPI {
	a := &orderAPI{mux: http.NewServeMux(), orders: []order{
		{ID: "1001", Item: "Espresso machine", Quantity: 1, Total: "249.00 EUR", Status: "delivered"},
		{ID: "1002", Item: "Coffee beans, 1 kg", Quantity: 4, Total: "76.00 EUR", Status: "shipped"},
		{ID: "1003", Item: "Paper filters", Quantity: 10, Total: "19.90 EUR", Status: "paid"},
	}}
	a.mux.HandleFunc("GET /orders/{$}", func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, a.find("")) })
	a.mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, a.find(r.PathValue("id"))) })
	a.mux.HandleFunc("POST /orders/{id}/refund", func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, a.refund(r.PathValue("id"))) })
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, nil) })
	return a
}

// ServeHTTP answers requests below /orders/.
func (a *orderAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.seen.Add(1)
	if r.UserAgent() == storyAgent {
		a.story.Add(1)
	}
	a.mux.ServeHTTP(w, r)
}

// find returns the order with that id, or all of them for none.
func (a *orderAPI) find(id string) []order {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []order
	for _, o := range a.orders {
		if id == "" || o.ID == id {
			found = append(found, o)
		}
	}
	return found
}

func (a *orderAPI) refund(id string) []order {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.orders, func(o order) bool { return o.ID == id })
	if i < 0 {
		return nil
	}
	a.orders[i].Status = "refunded"
	return []order{a.orders[i]}
}

func (a *orderAPI) answer(w http.ResponseWriter, r *http.Request, found []order) {
	says := orderAnswer{Orders: found, Caller: readCaller(r.Header)}
	w.Header().Set("Content-Type", "application/json")
	if found == nil {
		says.Error = "no such order"
		w.WriteHeader(http.StatusNotFound)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(says)
}

func readCaller(h http.Header) caller {
	c := caller{Identity: map[string]string{}, Authorization: h.Get("Authorization") != "", DPoP: h.Get("DPoP") != ""}
	for name := range h {
		if strings.HasPrefix(name, "X-Auth-") {
			c.Identity[name] = h.Get(name)
		}
	}
	return c
}
