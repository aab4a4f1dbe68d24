//go:debug multipathtcp=0

package bgp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/announce"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

// speakerVar makes the test program a speaker, so that one can run inside a host
// of a lab, and be killed.
const speakerVar = "BGP_TEST_SPEAKER"

func TestMain(m *testing.M) {
	if os.Getenv(speakerVar) != "" {
		if err := speak(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// Tests that run together wait for timers more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// order is a line that the speaker process is sent.
type order struct {
	Serial    int
	Configure *Config
	Set       *[]announce.Advertisement
	Leave     bool
}

// report is a line that it says, whenever something has changed.
type report struct {
	Served   int // the serial of the last order carried out
	Err      string
	Status   []announce.Status
	Sessions []Session
}

// speak is the speaker process: it follows orders until it is killed.
func speak(in io.Reader, out io.Writer) error {
	orders := json.NewDecoder(bufio.NewReader(in))
	var first order
	if err := orders.Decode(&first); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := New(*first.Configure, log)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	served, failure := 0, ""
	say := func(change func()) {
		mu.Lock()
		defer mu.Unlock()
		change()
		_ = json.NewEncoder(out).Encode(report{served, failure, s.Status(), s.Sessions()})
	}
	go func() {
		for range s.Changes() {
			say(func() {})
		}
	}()
	go func() {
		for {
			var o order
			if orders.Decode(&o) != nil {
				return
			}
			var err error
			switch {
			case o.Configure != nil:
				err = s.Configure(*o.Configure)
			case o.Set != nil:
				s.Set(*o.Set)
			case o.Leave:
				err = s.Leave(context.Background())
			}
			say(func() {
				if served = o.Serial; err != nil {
					failure = err.Error()
				}
			})
		}
	}()
	return s.Run(context.Background())
}

// remote is a speaker process in a host. Its methods are those of one test.
type remote struct {
	t       *testing.T
	process *netlab.Process
	orders  io.WriteCloser
	serial  int

	mu     sync.Mutex
	rest   []byte
	latest report
}

// startRemote starts a speaker in a host.
func startRemote(t *testing.T, h *netlab.Host, c Config) *remote {
	t.Helper()
	r := &remote{t: t}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), speakerVar+"=1")
	cmd.Stdout = r
	var err error
	if r.orders, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if r.process, err = h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var lines []string
			for line := range strings.Lines(r.process.Output()) {
				if !strings.Contains(line, "DEBUG-4") {
					lines = append(lines, line)
				}
			}
			t.Logf("weir on %s:\n%s", h.Name(), strings.Join(lines[max(0, len(lines)-60):], ""))
		}
	})
	r.send(order{Configure: &c})
	return r
}

// Write takes what the process says.
func (r *remote) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, b...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		r.rest = rest
		var next report
		if err := json.Unmarshal(line, &next); err == nil {
			r.latest = next
		}
	}
}

func (r *remote) send(o order) {
	r.t.Helper()
	if err := json.NewEncoder(r.orders).Encode(o); err != nil {
		r.t.Fatalf("order to the speaker: %v; it says %s", err, r.process.Output())
	}
}

// do sends an order and waits until it is carried out.
func (r *remote) do(o order) {
	r.t.Helper()
	r.serial++
	o.Serial = r.serial
	r.send(o)
	until(r.t, fmt.Sprintf("order %+v is carried out", o), func() bool { return r.now().Served == o.Serial })
	if err := r.now().Err; err != "" {
		r.t.Fatal(err)
	}
}

func (r *remote) set(texts ...string) {
	r.t.Helper()
	all := ads(texts...)
	if all == nil {
		all = []announce.Advertisement{}
	}
	r.do(order{Set: &all})
}

func (r *remote) configure(c Config) {
	r.t.Helper()
	r.do(order{Configure: &c})
}

func (r *remote) now() report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest
}

func (r *remote) session(name string) Session {
	for _, x := range r.now().Sessions {
		if x.Name == name {
			return x
		}
	}
	return Session{}
}

// awaitUp waits until sessions are established and have that many prefixes.
func (r *remote) awaitUp(prefixes int, names ...string) {
	r.t.Helper()
	for _, name := range names {
		until(r.t, fmt.Sprintf("session %s is established with %d prefixes", name, prefixes), func() bool {
			x := r.session(name)
			return x.State == "established" && x.Prefixes == prefixes
		})
	}
}

// awaitDown waits until no prefix is announced to a peer, and the reason is said.
func (r *remote) awaitDown(name, reason string) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("session %s is down: %s", name, reason), func() bool {
		var all []announce.Status
		for _, st := range r.now().Status {
			if st.To == name {
				all = append(all, st)
			}
		}
		return r.session(name).State != "established" && len(all) > 0 && !slices.ContainsFunc(all, func(st announce.Status) bool {
			return st.State != announce.Down || !strings.Contains(st.Err, reason)
		})
	})
}

// kill ends the process as if it had crashed.
func (r *remote) kill() {
	r.t.Helper()
	if err := r.process.Signal(unix.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	_ = r.process.Wait()
}

// leave has the speaker leave, and returns at once.
func (r *remote) leave() {
	r.t.Helper()
	r.serial++
	r.send(order{Serial: r.serial, Leave: true})
}

func (r *remote) awaitLeft() {
	r.t.Helper()
	until(r.t, "it has left", func() bool { return r.now().Served == r.serial })
}

// newLab makes a lab that ends with the test.
func newLab(t *testing.T, name string) *netlab.Lab {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// eventually waits until check returns no error. It is for questions that cost
// something, as to a router's command line.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(30 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s: %v", patience, what, err)
		}
	}
}
