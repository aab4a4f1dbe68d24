package health

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var errRefused = errors.New("connection refused")

func TestVerdict(t *testing.T) {
	tests := []struct {
		name       string
		rise, fall int
		results    string // of probes: + success, - failure, ? could not be made
		states     string // after each: u unknown, U up, D down
	}{
		{"first success decides", 3, 3, "+", "U"},
		{"first failure does not", 1, 3, "-", "u"},
		{"unknown falls like up", 1, 3, "---", "uuD"},
		{"unknown, failure, success", 3, 3, "-+", "uU"},
		{"fall of one", 1, 1, "-+-", "DUD"},
		{"one loss is forgiven", 2, 3, "+--+--+", "UUUUUUU"},
		{"fall", 2, 3, "+---", "UUUD"},
		{"rise", 2, 3, "---++", "uuDDU"},
		{"rise starts over", 3, 1, "-++-+++", "DDDDDDU"},
		{"no result is not a failure", 1, 2, "+-?-", "UUUD"},
		{"no result for ever", 1, 1, "+????", "UUUUU"},
		{"no result at first", 1, 1, "??+", "uuU"},
		{"down, and then no result for long", 2, 1, "-???+", "DDDuU"},
		{"down, and no result now and then", 3, 1, "-??-??+??-", "DDDDDDDDDD"},
		{"it falls again like up", 1, 2, "--???--", "uDDDuuD"},
	}
	noFiles := fmt.Errorf("dial: %w", os.NewSyscallError("socket", unix.EMFILE))
	start := time.Unix(1000, 0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check := Check{Rise: tt.rise, Fall: tt.fall}.complete()
			v := verdict{Result: Result{Since: start}}
			since := start
			for i, result := range tt.results {
				before := v.State
				now := start.Add(time.Duration(i+1) * pardonAfter / 2)
				err := map[rune]error{'-': errRefused, '?': noFiles}[result]
				changed := v.observe(&check, err, time.Duration(i), now)
				if want := map[byte]State{'u': Unknown, 'U': Up, 'D': Down}[tt.states[i]]; v.State != want {
					t.Fatalf("after %q: got %v, want %v", tt.results[:i+1], v.State, want)
				}
				if changed != (v.State != before) {
					t.Fatalf("after %q: from %v to %v, but changed is %v", tt.results[:i+1], before, v.State, changed)
				}
				if changed {
					since = now
				}
				wantError := ""
				if err != nil {
					wantError = err.Error()
				}
				if v.Since != since || v.LastError != wantError || v.LastDuration != time.Duration(i) {
					t.Fatalf("after %q: got %+v", tt.results[:i+1], v.Result)
				}
			}
		})
	}
}

func TestOurs(t *testing.T) {
	for err, want := range map[error]bool{
		unix.EMFILE: true, unix.ENFILE: true, unix.ENOBUFS: true, unix.EADDRNOTAVAIL: true, ErrUnable: true,
		unix.EADDRINUSE: true, unix.EPERM: true, unix.EACCES: false,
		unix.ECONNREFUSED: false, unix.ENETUNREACH: false, unix.EHOSTUNREACH: false, unix.ECONNRESET: false, errRefused: false,
	} {
		if got := ours(fmt.Errorf("probe: %w", err)); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	got := Check{ID: "a"}.complete()
	if got.Probe != (TCP{}) || got.Interval != 2*time.Second || got.Timeout != time.Second || got.Rise != 1 || got.Fall != 1 {
		t.Errorf("defaults: got %+v", got)
	}
	for _, tt := range []struct{ probe, want Probe }{
		{HTTP{}, HTTP{Path: "/", Method: "GET", Codes: []Codes{{200, 399}}}},
		{DNS{}, DNS{Type: "A", Transport: "udp", Codes: []string{"NOERROR"}}},
		{UDP{}, UDP{}}, {GRPC{}, GRPC{}}, {ICMP{}, ICMP{}},
	} {
		if got := (Check{Probe: tt.probe}).complete().Probe; !reflect.DeepEqual(got, tt.want) {
			t.Errorf("defaults: got %+v, want %+v", got, tt.want)
		}
	}
}

// What the caller does to its memory afterwards must not reach a check.
func TestCompleteSharesNothing(t *testing.T) {
	targets := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.9:1")}
	codes, names, bytes, tls := []Codes{{200, 204}}, []string{"NXDOMAIN"}, []byte{1}, &TLS{CA: "a"}
	for _, probe := range []Probe{HTTP{Codes: codes, TLS: tls}, DNS{Codes: names, Expect: names}, UDP{Send: bytes, ExpectBytes: bytes}, GRPC{TLS: tls}} {
		got := Check{Targets: targets, Probe: probe}.complete()
		before := fmt.Sprintf("%+v", describe(got))
		targets[0], codes[0], names[0], bytes[0], tls.CA = netip.AddrPort{}, Codes{}, "", 0, ""
		if after := fmt.Sprintf("%+v", describe(got)); after != before {
			t.Errorf("%s: from %s to %s", probe, before, after)
		}
		targets[0], codes[0], names[0], bytes[0], tls.CA = netip.MustParseAddrPort("10.0.0.9:1"), Codes{200, 204}, "NXDOMAIN", 1, "a"
	}
}

// describe returns all that a check is made of, without pointers.
func describe(c Check) []any {
	all := []any{c.Targets}
	switch p := c.Probe.(type) {
	case HTTP:
		return append(all, p.Codes, *p.TLS)
	case DNS:
		return append(all, p.Codes, p.Expect)
	case UDP:
		return append(all, p.Send, p.ExpectBytes)
	case GRPC:
		return append(all, *p.TLS)
	}
	return nil
}

func TestTextForms(t *testing.T) {
	for want, got := range map[string]fmt.Stringer{
		"unknown": Unknown, "up": Up, "down": Down, "state(9)": State(9),
		"tcp": TCP{}, "http": HTTP{}, "https": HTTP{TLS: &TLS{}}, "icmp": ICMP{}, "udp": UDP{}, "dns": DNS{}, "grpc": GRPC{},
		"204": Codes{204, 204}, "200-299": Codes{200, 299},
	} {
		if got.String() != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
