package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// report is who calls what, how, and who would break: what somebody wants to know before a route enforces.
type report struct {
	At        time.Time       `json:"at"`
	Since     time.Time       `json:"since"`  // the counting of the instance that has counted for the shortest time
	Window    string          `json:"window"` // 1h or 24h
	Verdict   string          `json:"verdict"`
	Ready     bool            `json:"ready"` // enforcing would have refused no client that is known, and some came
	Clients   []clientVerdict `json:"clients"`
	Rows      []reportRow     `json:"rows"`
	Strangers uint64          `json:"without_known_token"` // requests to routes in mode report that enforce would refuse, of nobody known
}

// reportRow is the requests of one client to one route. Bound, Bearer and Refused add up to Requests.
type reportRow struct {
	Client   string                 `json:"client_id"` // empty: no token that is known; other: those beyond what is told apart
	Route    string                 `json:"route"`
	Mode     string                 `json:"mode"` // enforce or report, as the route is now; empty: it is not there any more
	Requests uint64                 `json:"requests"`
	Bound    uint64                 `json:"bound"`   // passed all checks with a proof
	Bearer   uint64                 `json:"bearer"`  // passed all checks as Bearer
	Refused  uint64                 `json:"refused"` // or would have been
	Asked    uint64                 `json:"asked"`   // of these, those that only lacked the server's nonce
	Reasons  map[dpop.Reason]uint64 `json:"reasons,omitempty"`
}

// clientVerdict is what there is to say of a client.
type clientVerdict struct {
	Client string `json:"client_id"`
	Ready  bool   `json:"ready"`
	Words  string `json:"words"`
}

// newReport makes the report of one instance.
func newReport(t *tally, routes []proxy.RouteInfo, day bool) *report {
	r := &report{At: t.now(), Since: t.started, Window: "1h", Rows: []reportRow{}}
	if day {
		r.Window = "24h"
	}
	modes := map[string]string{}
	for _, route := range routes {
		modes[route.Match] = route.Mode
	}
	rows := map[[2]string]*reportRow{}
	for l, n := range t.counts(day) {
		stranger := l.client == uuid.Nil
		if l.route == "" || modes[l.route] == "public" || stranger && (l.shade == shadePassed || l.shade == shadeFailed) {
			continue // a request that no token is asked for, such as a preflight
		}
		key := [2]string{clientName(l.client), l.route}
		if rows[key] == nil {
			rows[key] = &reportRow{Client: key[0], Route: l.route, Mode: modes[l.route], Reasons: map[dpop.Reason]uint64{}}
		}
		rows[key].count(l, n)
	}
	for _, row := range rows {
		r.Rows = append(r.Rows, *row)
	}
	r.judge()
	return r
}

// clientName is a client as a report has it.
func clientName(id uuid.UUID) string {
	switch id {
	case uuid.Nil:
		return ""
	case otherClients:
		return "other"
	default:
		return id.String()
	}
}

func (row *reportRow) count(l line, n uint64) {
	row.Requests += n
	switch {
	case l.shade == shadeWould || l.shade == shadeRefused:
		row.Refused += n
		row.Reasons[l.reason] += n
		if l.reason == dpop.NonceMissing || l.reason == dpop.NonceUnknown {
			row.Asked += n
		}
	case l.scheme == dpop.SchemeBearer:
		row.Bearer += n
	default:
		row.Bound += n
	}
}

// merge adds what another instance has counted.
func (r *report) merge(other *report) {
	if other.Since.After(r.Since) {
		r.Since = other.Since
	}
	for _, theirs := range other.Rows {
		i := slices.IndexFunc(r.Rows, func(ours reportRow) bool { return ours.Client == theirs.Client && ours.Route == theirs.Route })
		if i < 0 {
			r.Rows = append(r.Rows, theirs)
			continue
		}
		ours := &r.Rows[i]
		ours.Requests += theirs.Requests
		ours.Bound += theirs.Bound
		ours.Bearer += theirs.Bearer
		ours.Refused += theirs.Refused
		ours.Asked += theirs.Asked
		reasons := maps.Clone(ours.Reasons)
		if reasons == nil {
			reasons = map[dpop.Reason]uint64{}
		}
		for reason, n := range theirs.Reasons {
			reasons[reason] += n
		}
		ours.Reasons = reasons
	}
	r.judge()
}

// judge orders the rows and says what they mean.
func (r *report) judge() {
	slices.SortFunc(r.Rows, func(a, b reportRow) int {
		return cmp.Or(strings.Compare(a.Client, b.Client), strings.Compare(a.Route, b.Route))
	})
	r.Clients, r.Strangers = []clientVerdict{}, 0
	reporting, notReady := 0, 0
	for rows := r.Rows; len(rows) > 0; {
		n := 1
		for n < len(rows) && rows[n].Client == rows[0].Client {
			n++
		}
		in, out := sumOf(rows[:n], "report"), sumOf(rows[:n], "enforce")
		if rows[0].Client == "" {
			r.Strangers = in.Refused
		} else {
			j := judgeClient(rows[0].Client, in, out, r.Window)
			r.Clients = append(r.Clients, j)
			if in.Requests > 0 {
				reporting++
				if !j.Ready {
					notReady++
				}
			}
		}
		rows = rows[n:]
	}
	r.Ready = reporting > 0 && notReady == 0
	r.Verdict = r.verdict(reporting, notReady)
}

// sumOf adds up the rows of a mode.
func sumOf(rows []reportRow, mode string) reportRow {
	sum := reportRow{Reasons: map[dpop.Reason]uint64{}}
	for _, row := range rows {
		if row.Mode != mode {
			continue
		}
		sum.Requests += row.Requests
		sum.Bound += row.Bound
		sum.Bearer += row.Bearer
		sum.Refused += row.Refused
		sum.Asked += row.Asked
		for reason, n := range row.Reasons {
			sum.Reasons[reason] += n
		}
	}
	return sum
}

// judgeClient says of a client what its requests to routes in mode report and to routes that enforce come to. A client
// that is asked for a nonce answers with the next request: only one that goes on without it would break.
func judgeClient(client string, in, out reportRow, window string) clientVerdict {
	j := clientVerdict{Client: client, Ready: true}
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if in.Requests > 0 {
		refused := in.Refused - in.Asked
		switch {
		case refused > 0:
			j.Ready = false
			say("not yet: %d of %d requests in the last %s would be refused (%s)", refused, in.Requests, window, reasonsOf(in.Reasons))
		case in.Asked*2 > in.Requests:
			j.Ready = false
			say("not yet: %d of %d requests in the last %s came without the nonce that this client had been given", in.Asked, in.Requests, window)
		default:
			say("0 of %d requests in the last %s would be refused", in.Requests, window)
			if in.Asked > 0 {
				say("%d would be asked for a nonce first", in.Asked)
			}
		}
	}
	if refused := out.Refused - out.Asked; refused > 0 {
		say("where routes enforce, %d of %d were refused (%s)", refused, out.Requests, reasonsOf(out.Reasons))
	} else if out.Requests > 0 {
		say("where routes enforce, 0 of %d were refused", out.Requests)
	}
	if bearer := in.Bearer + out.Bearer; bearer > 0 {
		say("%d came as Bearer: they need token_types: [DPoP, Bearer]", bearer)
	}
	j.Words = strings.Join(words, "; ")
	return j
}

// verdict is the report in one sentence.
func (r *report) verdict(reporting, notReady int) string {
	switch {
	case reporting == 0:
		return "Nothing to say yet: no known client has called a route in mode report in the last " + r.Window + "."
	case notReady > 0:
		return fmt.Sprintf("Not yet: enforcing would refuse requests of %d of %s.", notReady, plural(reporting, "client"))
	}
	words := fmt.Sprintf("Ready: in the last %s, enforcing would have refused no request of the %s that came.", r.Window, plural(reporting, "client"))
	if counted := r.At.Sub(r.Since); r.Window == "24h" && counted < 24*time.Hour {
		words += " But that is counted for " + briefly(counted) + " only, since the start of the process."
	}
	return words
}

// reasonsOf are reasons with their counts, the most frequent first.
func reasonsOf(reasons map[dpop.Reason]uint64) string {
	var all []string
	for _, reason := range slices.SortedFunc(maps.Keys(reasons), func(a, b dpop.Reason) int {
		return cmp.Or(cmp.Compare(reasons[b], reasons[a]), strings.Compare(string(a), string(b)))
	}) {
		all = append(all, fmt.Sprintf("%s %d", reason, reasons[reason]))
	}
	return strings.Join(all, ", ")
}

// briefly is a duration in its two largest units.
func briefly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	default:
		return fmt.Sprintf("%d s", d/time.Second)
	}
}

// print draws the report for a person.
func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Rows) > 0 {
		fmt.Fprintln(t, "CLIENT\tROUTE\tMODE\tREQUESTS\tBOUND\tBEARER\tREFUSED\tWHY")
	}
	for _, row := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", cmp.Or(row.Client, "(no known token)"), row.Route, orDash(row.Mode), row.Requests,
			share(row.Bound, row.Requests), share(row.Bearer, row.Requests), share(row.Refused, row.Requests), reasonsOf(row.Reasons))
	}
	if len(r.Clients) > 0 {
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, j := range r.Clients {
		fmt.Fprintf(w, "client %s: %s\n", j.Client, j.Words)
	}
	if r.Strangers > 0 {
		fmt.Fprintf(w, "no known token: %s in the last %s would be refused; strangers, or clients whose tokens are not in the store\n", plural(int(r.Strangers), "request"), r.Window)
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Verdict)
	return err
}

// share is a part in percent. A part that is there is never shown as 0, nor as all when something is missing.
func share(part, whole uint64) string {
	switch percent := 100 * float64(part) / float64(max(whole, 1)); {
	case part == 0:
		return "0%"
	case percent < 0.1:
		return "<0.1%"
	case part < whole && percent > 99.9:
		return ">99.9%"
	case part == whole:
		return "100%"
	default:
		return fmt.Sprintf("%.1f%%", percent)
	}
}
