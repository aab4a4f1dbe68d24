package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

var discard = slog.New(slog.DiscardHandler)

// paper is a Network in memory: what a target does is a function, and nil
// stands for a target that never answers.
type paper struct {
	mu      sync.Mutex
	servers map[string]func(net.Conn) error // an error: the connection fails with it
	ways    []string
}

func (p *paper) DialContext(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error) {
	p.mu.Lock()
	serve, ok := p.servers[to.String()]
	p.ways = append(p.ways, way)
	p.mu.Unlock()
	if !ok {
		return nil, unix.ECONNREFUSED
	}
	if serve == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ours, theirs := net.Pipe()
	if err := serve(theirs); err != nil {
		return nil, err
	}
	return ours, nil
}

func (p *paper) Ping(ctx context.Context, to netip.Addr, way string) error {
	conn, err := p.DialContext(ctx, "icmp", netip.AddrPortFrom(to, 0), way)
	if err == nil {
		err = conn.Close()
	}
	return err
}

func (p *paper) set(to string, serve func(net.Conn) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.servers[to] = serve
}

func accepts(net.Conn) error { return nil }
func fails(err error) func(net.Conn) error {
	return func(net.Conn) error { return err }
}

// says answers one HTTP request, after a while.
func says(after time.Duration, answer string) func(net.Conn) error {
	return func(c net.Conn) error {
		go func() {
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			time.Sleep(after)
			_, _ = io.WriteString(c, answer)
		}()
		return nil
	}
}

func targets(all ...string) []netip.AddrPort {
	var parsed []netip.AddrPort
	for _, t := range all {
		parsed = append(parsed, netip.MustParseAddrPort(t))
	}
	return parsed
}

func TestTargets(t *testing.T) {
	const a, b, c = "10.0.0.1:80", "10.0.0.1:443", "[2001:db8::1]:80"
	unable := fails(fmt.Errorf("no way to 10.0.0.1 yet: %w", ErrUnable))
	const okay = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	tests := []struct {
		name    string
		probe   Probe
		targets []netip.AddrPort
		servers map[string]func(net.Conn) error
		want    string // the error; "" for none
		unable  bool
		took    time.Duration
	}{
		{"one", nil, targets(a), map[string]func(net.Conn) error{a: accepts}, "", false, 0},
		{"one fails", nil, targets(a), nil, "connection refused", false, 0},
		{"all", nil, targets(a, b, c), map[string]func(net.Conn) error{a: accepts, b: accepts, c: accepts}, "", false, 0},
		{"one of three fails", nil, targets(a, b, c), map[string]func(net.Conn) error{a: accepts, b: accepts}, c + ": connection refused", false, 0},
		{"two of three fail", nil, targets(a, b, c), map[string]func(net.Conn) error{a: accepts}, b + " (and 1 more): connection refused", false, 0},
		{"one of three is silent", nil, targets(a, b, c), map[string]func(net.Conn) error{a: nil, b: accepts, c: accepts}, a + ": no answer within 1s", false, time.Second},
		{"a failure weighs more than a probe not made", nil, targets(a, b), map[string]func(net.Conn) error{a: unable}, b + " (and 1 more): connection refused", false, 0},
		{"one cannot be probed", nil, targets(a, b), map[string]func(net.Conn) error{a: unable, b: accepts}, a + ": no way to 10.0.0.1 yet: cannot be made on this box", true, 0},
		{"none can", nil, targets(a), map[string]func(net.Conn) error{a: unable}, "no way to 10.0.0.1 yet: cannot be made on this box", true, 0},
		{"without targets", nil, nil, nil, "cannot be made on this box: no target", true, 0},
		{"side by side", HTTP{}, targets(a, b, c), map[string]func(net.Conn) error{
			a: says(900*time.Millisecond, okay), b: says(800*time.Millisecond, okay), c: says(700*time.Millisecond, okay)}, "", false, 900 * time.Millisecond},
		{"late", HTTP{}, targets(a, b), map[string]func(net.Conn) error{a: says(0, okay), b: says(2*time.Second, okay)}, b + ": no answer within 1s", false, time.Second},
		{"ping", ICMP{}, targets("10.0.0.1:0"), map[string]func(net.Conn) error{"10.0.0.1:0": accepts}, "", false, 0},
		{"silent ping", ICMP{}, targets("10.0.0.1:0"), map[string]func(net.Conn) error{"10.0.0.1:0": nil}, "no answer within 1s", false, time.Second},
		{"bad expression", HTTP{Body: "("}, targets(a), nil, "cannot be made on this box: compile what the body has to match: error parsing regexp: missing closing ): `(`", true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &paper{servers: tt.servers}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				c := Check{Targets: tt.targets, Way: "w", Probe: tt.probe, Timeout: time.Second}.complete()
				err := explain(ctx, attemptOn(c, p, newShared())(ctx), c.Timeout)
				if got := fmt.Sprint(err); got != tt.want && (tt.want != "" || err != nil) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if err != nil && ours(err) != tt.unable {
					t.Errorf("%v: could not be made: %v, want %v", err, ours(err), tt.unable)
				}
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				for _, way := range p.ways {
					if way != "w" {
						t.Errorf("way %q", way)
					}
				}
				wait(time.Minute) // the slow servers end
			})
		})
	}
}

// Hysteresis through a whole checker, with one of two targets failing.
func TestCheckerOverNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{servers: map[string]func(net.Conn) error{"10.0.0.1:80": accepts, "10.0.0.1:443": accepts}}
		c := New(discard, p)
		c.SetChecks([]Check{{ID: "a", Targets: targets("10.0.0.1:80", "10.0.0.1:443"), Way: "w", Interval: time.Second, Rise: 2, Fall: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		expect := func(after time.Duration, state State, text string) {
			t.Helper()
			wait(after)
			if got := c.Results()["a"]; got.State != state || !strings.Contains(got.LastError, text) || text == "" && got.LastError != "" {
				t.Errorf("got %+v, want %v, %q", got, state, text)
			}
		}
		expect(200*time.Millisecond, Up, "")
		p.set("10.0.0.1:443", fails(errors.New("gone")))
		expect(1300*time.Millisecond, Up, "10.0.0.1:443: gone")
		expect(2700*time.Millisecond, Down, "10.0.0.1:443: gone")
		p.set("10.0.0.1:443", fails(ErrUnable))
		expect(1200*time.Millisecond, Down, "cannot be made") // the next probe is up to 1.1 s away
		p.set("10.0.0.1:443", accepts)
		expect(3*time.Second, Up, "")
		p.set("10.0.0.1:80", nil) // a probe is under way when Run ends
		wait(1500 * time.Millisecond)
		before := c.Results()["a"]
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := c.Results()["a"]; got != before {
			t.Errorf("the end of Run is a result: %+v", got)
		}
	})
}
