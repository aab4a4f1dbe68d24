package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/dataplane/worker"
)

var update = flag.Bool("update", false, "write the golden files anew")

// serve runs a server on a socket and a metrics address of its own.
func serve(t *testing.T, a Appliance) (socket, metrics string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "made", "weir.sock")
	s, err := Listen(socket, "127.0.0.1:0", a, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		s.Close()
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return socket, s.metrics.Addr().String()
}

// ask makes a request over the socket and returns the answer as it is.
func ask(t *testing.T, socket, method, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) },
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequest(method, "http://weir"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestNouns(t *testing.T) {
	socket, _ := serve(t, newFake())
	for _, noun := range []string{"info", "services", "backends", "workers", "drops", "nat", "interfaces", "announcements", "pools", "members", "peers", "doctor", "flows"} {
		t.Run(noun, func(t *testing.T) {
			code, body := ask(t, socket, "GET", "/v1/"+noun)
			if code != http.StatusOK {
				t.Fatalf("%d: %s", code, body)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, []byte(body), "", "  "); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", noun+".json")
			if *update {
				if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pretty.Bytes(), want) {
				t.Errorf("got:\n%s\nwant:\n%s", &pretty, want)
			}
		})
	}
}

func TestNounsChangeNothingAndVerbsArePosted(t *testing.T) {
	f := newFake()
	socket, _ := serve(t, f)
	for _, tc := range []struct {
		method, path string
		code         int
	}{
		{"GET", "/v1/reload", http.StatusMethodNotAllowed},
		{"GET", "/v1/drain?backend=10.0.0.11", http.StatusMethodNotAllowed},
		{"GET", "/v1/undrain?backend=10.0.0.11", http.StatusMethodNotAllowed},
		{"GET", "/v1/plan", http.StatusMethodNotAllowed},
		{"POST", "/v1/services", http.StatusMethodNotAllowed},
		{"POST", "/v1/doctor", http.StatusMethodNotAllowed},
		{"DELETE", "/v1/flows", http.StatusMethodNotAllowed},
		{"GET", "/v1/nothing", http.StatusNotFound},
		{"GET", "/", http.StatusNotFound},
	} {
		if code, body := ask(t, socket, tc.method, tc.path); code != tc.code {
			t.Errorf("%s %s: %d, want %d: %s", tc.method, tc.path, code, tc.code, body)
		}
	}
	if n := f.reloads.Load(); n != 0 {
		t.Errorf("reloaded %d times", n)
	}
	if len(f.orders) != 0 {
		t.Errorf("ordered %q", f.orders)
	}
}

func TestReload(t *testing.T) {
	f := newFake()
	socket, _ := serve(t, f)
	c := NewClient(socket)
	var r Reloaded
	if err := c.Do(t.Context(), "reload", &r); err != nil || r.Generation != 8 || len(r.Warnings) != 1 {
		t.Errorf("reloaded %+v, error %v", r, err)
	}
	f.refuse = errors.New("weir.yaml:1: first\nweir.yaml:2: second")
	if err := c.Do(t.Context(), "reload", &r); err == nil || err.Error() != f.refuse.Error() {
		t.Errorf("error %v, want %v", err, f.refuse)
	}
	if code, _ := ask(t, socket, "POST", "/v1/reload"); code != http.StatusUnprocessableEntity {
		t.Errorf("status %d", code)
	}
}

func TestFlows(t *testing.T) {
	f := newFake()
	f.addWorker(t, "eth1", 1500)
	f.addWorker(t, "eth2", 10)
	socket, _ := serve(t, f)
	gone := func(fl Flow) bool { return !fl.Backend.IsValid() && fl.Service == "" }
	of := func(last byte) func(Flow) bool {
		return func(fl Flow) bool {
			return fl.Service == "web" && fl.Backend == netip.AddrFrom4([4]byte{10, 0, 0, last})
		}
	}
	for _, tc := range []struct {
		query     string
		n         int
		truncated bool
		only      func(Flow) bool
	}{
		{"", 1000, true, nil},
		{"?limit=100000", 1512, false, nil},
		{"?limit=1512", 1512, false, nil},
		{"?limit=1511", 1511, true, nil},
		{"?limit=1", 1, true, nil},
		{"?service=web&limit=9999", 1510, false, nil},
		{"?service=none", 0, false, nil},
		{"?backend=10.0.0.11&limit=9999", 755, false, of(11)},
		{"?backend=10.0.0.12&service=web&limit=20", 20, true, of(12)},
		{"?backend=10.0.0.12&service=dns", 0, false, nil},
	} {
		t.Run(tc.query, func(t *testing.T) {
			var got Flows
			if err := NewClient(socket).Get(t.Context(), "flows"+tc.query, &got); err != nil {
				t.Fatal(err)
			}
			if len(got.Flows) != tc.n || got.Truncated != tc.truncated {
				t.Errorf("%d flows, truncated %v; want %d, %v", len(got.Flows), got.Truncated, tc.n, tc.truncated)
			}
			seen := make(map[string]bool)
			for _, fl := range got.Flows {
				key := fl.Client.String() + fl.Interface
				if seen[key] {
					t.Errorf("%s is listed twice", key)
				}
				seen[key] = true
				if tc.only != nil && !tc.only(fl) || fl.Protocol != "udp" || fl.State != "udp" || fl.VIP.Addr().String() != "203.0.113.10" {
					t.Errorf("flow %+v", fl)
				}
				if fl.VIP.Port() == 1002 && !gone(fl) {
					t.Errorf("the backend of %+v is gone", fl)
				}
			}
		})
	}
	for query, want := range map[string]string{
		"?limit=0":       `limit "0" is not a number from 1 to 1000000`,
		"?limit=-5":      `limit "-5" is not a number from 1 to 1000000`,
		"?limit=x":       `limit "x" is not a number from 1 to 1000000`,
		"?backend=web-1": "backend: ",
	} {
		code, body := ask(t, socket, "GET", "/v1/flows"+query)
		var p Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || code != http.StatusBadRequest || !strings.Contains(p.Error, want) {
			t.Errorf("%s: %d %s, want %q", query, code, body, want)
		}
	}
}

func TestDrainAndUndrain(t *testing.T) {
	f := newFake()
	socket, _ := serve(t, f)
	c := NewClient(socket)
	var got Ordered
	if err := c.Do(t.Context(), "drain?backend=10.0.0.11&service=web&over=1m", &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Backends) != 1 || got.Backends[0].Service != "web" || got.Backends[0].Flows != 20 || len(got.Warnings) != 0 {
		t.Errorf("drained %+v", got)
	}
	if err := c.Do(t.Context(), "undrain?backend=10.0.0.53", &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Backends) != 1 || got.Backends[0].Service != "dns" ||
		!slices.Equal(got.Warnings, []string{"service dns has no backend left for new flows that is up and not drained"}) {
		t.Errorf("undrained %+v", got)
	}
	if want := []string{`drain 10.0.0.11 "web" over 1m0s`, `undrain 10.0.0.53 ""`}; !slices.Equal(f.orders, want) {
		t.Errorf("ordered %q, want %q", f.orders, want)
	}
	for verb, want := range map[string]string{
		"drain":                                     `backend: "" is not an address, as 10.0.0.11 or 2001:db8::11`,
		"undrain?backend=web1":                      `backend: "web1" is not an address`,
		"drain?backend=10.0.0.11&over=soon":         `over: "soon" is not a duration, as 60s or 5m`,
		"drain?backend=10.0.0.11&over=":             `over: "" is not a duration`,
		"drain?backend=10.0.0.11&ovr=60s":           `"ovr" is unknown here: /v1/drain wants backend, service, over`,
		"drain?backend=10.0.0.11;over=60s":          `read query "backend=10.0.0.11;over=60s"`,
		"drain?backend=10.0.0.11&backend=10.0.0.12": `"backend" is given 2 times`,
		"undrain?backend=10.0.0.11&over=60s":        `"over" is unknown here: /v1/undrain wants backend, service`,
		"plan?file=weir.yaml":                       `"file" is unknown here: /v1/plan wants name`,
		"reload?config=weir.yaml":                   `"config" is unknown here: /v1/reload wants no keys`,
	} {
		if err := c.Do(t.Context(), verb, &got); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", verb, err, want)
		}
	}
	if len(f.orders) != 2 || f.reloads.Load() != 0 {
		t.Errorf("what was not understood was done: ordered %q, %d reloads", f.orders, f.reloads.Load())
	}
	f.refuse = errors.New("no service has a backend 10.0.0.99")
	if err := c.Do(t.Context(), "drain?backend=10.0.0.99", &got); err == nil || err.Error() != f.refuse.Error() {
		t.Errorf("error %v", err)
	}
	if len(f.orders) != 3 {
		t.Errorf("ordered %q", f.orders)
	}
}

// A list without the flows of one worker would mislead.
func TestFlowsOfAWorkerThatHasStopped(t *testing.T) {
	f := newFake()
	t.Run("", func(t *testing.T) { f.addWorker(t, "eth1", 1) }) // ends with the subtest
	socket, _ := serve(t, f)
	var got Flows
	if err := NewClient(socket).Get(t.Context(), "flows", &got); err == nil || !strings.Contains(err.Error(), worker.ErrStopped.Error()) {
		t.Errorf("error %v, want %v", err, worker.ErrStopped)
	}
}

func TestSocketIsForRootAndItsGroup(t *testing.T) {
	socket, _ := serve(t, newFake())
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("permissions %v", info.Mode().Perm())
	}
}

func TestSocketThatWasLeftBehindIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weir.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Close(fd)); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, "", newFake(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
}

func TestSecondWeirIsRefused(t *testing.T) {
	socket, metrics := serve(t, newFake())
	if _, err := Listen(socket, "", newFake(), nil); err == nil || !strings.Contains(err.Error(), "another weir answers there") ||
		!strings.Contains(err.Error(), "api.socket") {
		t.Errorf("error %v", err)
	}
	if err := NewClient(socket).Get(t.Context(), "info", new(Info)); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.sock")
	if _, err := Listen(other, metrics, newFake(), nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a metrics address that is taken: %v", err)
	}
	if _, err := os.Lstat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket was left behind: %v", err)
	}
}

func TestFileInPlaceOfTheSocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, "", newFake(), nil); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("error %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("the file was touched: %q, %v", data, err)
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, socket := range []string{filepath.Join(dir, "none.sock"), stale} {
		err := NewClient(socket).Get(t.Context(), "info", new(Info))
		if err == nil || !strings.Contains(err.Error(), "no weir is running on "+socket) || !strings.Contains(err.Error(), "--socket") {
			t.Errorf("error %v", err)
		}
	}
	socket, _ := serve(t, newFake())
	if err := NewClient(socket).Get(t.Context(), "nothing", new(Info)); err == nil || !strings.Contains(err.Error(), "there is no GET /v1/nothing") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewClient(socket).Get(ctx, "info", new(Info)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A sum that some workers are missing from is no counter.
func TestMetricsOfBackendsNeedAllWorkers(t *testing.T) {
	f := newFake()
	for _, workers := range []int{4, 2} { // the last two do not answer
		f.status = f.status[:workers]
		rows, err := testutil.GatherAndCount(newRegistry(f), "weir_backend_packets_total", "weir_backend_up")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[int]int{4: 3, 2: 6}[workers]; rows != want {
			t.Errorf("%d rows about 3 backends with %d workers, want %d", rows, workers, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	f := newFake()
	_, metrics := serve(t, f)
	url := "http://" + metrics + "/metrics"
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", resp.Status, body, err)
	}
	const golden = "testdata/metrics.txt"
	if *update {
		own := regexp.MustCompile(`(?m)^(# \w+ )?weir_.*\n`).FindAll(body, -1)
		if err := os.WriteFile(golden, bytes.Join(own, nil), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	names := func(text []byte) []string {
		var all []string
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllSubmatch(text, -1) {
			all = append(all, string(m[1]))
		}
		return all
	}
	if err := testutil.ScrapeAndCompare(url, bytes.NewReader(want), names(want)...); err != nil {
		t.Error(err)
	}
	served := names(body)
	for _, name := range served {
		if strings.HasPrefix(name, "weir_") && !slices.Contains(names(want), name) {
			t.Errorf("%s is not in %s", name, golden)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if !slices.Contains(served, name) {
			t.Errorf("%s is not served", name)
		}
	}
	problems, err := testutil.GatherAndLint(newRegistry(f))
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
