package reconcile

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/health"
	"weir/dataplane/snapshot"
)

var eleven = netip.MustParseAddr("10.0.0.11")

// level says how it is with the backend of the first service that is drained.
func level(r *Reconciler) (Status, int) {
	b := r.View().Services[0].Backends[0]
	return b.Status, b.Level
}

func TestDrainInSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, slow)
		names, err := r.Drain(eleven, "", 90*time.Second)
		if err != nil || !slices.Equal(names, []string{"web"}) {
			t.Fatalf("drained in %v, error %v", names, err)
		}
		for want := 9; want > 0; want-- {
			if status, got := level(r); got != want || status != StatusUp {
				t.Fatalf("%d steps are left, %s; want %d", got, status, want)
			}
			time.Sleep(9 * time.Second)
			if _, got := level(r); got != want {
				t.Fatalf("%d steps are left too soon", got)
			}
			time.Sleep(time.Second + 2*settle)
		}
		status, got := level(r)
		if b := r.View().Services[0].Backends[0]; got != 0 || status != StatusDraining || !b.Drained || !b.Until.IsZero() ||
			!strings.Contains(b.Reason, "weir undrain 10.0.0.11") || b.Share != 0 {
			t.Errorf("at the end: %+v", b)
		}
		snapshots := p.count()
		if last := p.last(); last.Backend(0).State != snapshot.Keeps || last.Backend(1).State != snapshot.Active {
			t.Error("its flows are not kept")
		}
		time.Sleep(time.Hour)
		if n := p.count(); n != snapshots {
			t.Errorf("%d snapshots in an hour in which nothing happened", n-snapshots)
		}

		// It stays through a change of the configuration and of its health.
		if err := r.SetConfig(parse(t, strings.Replace(slow, "10.0.0.12, weight: 1", "10.0.0.12, weight: 7", 1))); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != 0 || status != StatusDraining {
			t.Errorf("after a reload %s, %d steps", status, got)
		}
		// Once more is no news, and not slower.
		if _, err := r.Drain(eleven, "web", time.Hour); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != 0 || status != StatusDraining {
			t.Errorf("drained again: %s, %d steps", status, got)
		}

		if _, err := r.Undrain(eleven, ""); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != 1 || status != StatusUp {
			t.Errorf("undrained: %s, %d steps", status, got)
		}
		time.Sleep(91 * time.Second)
		if b := r.View().Services[0].Backends[0]; b.Level != steps || b.Drained || b.Status != StatusUp {
			t.Errorf("after its slow start: %+v", b)
		}
	})
}

// A change of mind goes on from where the weight is.
func TestUndrainHalfWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := running(t, slow)
		if _, err := r.Drain(eleven, "", 90*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(45 * time.Second)
		if _, got := level(r); got != 5 {
			t.Fatalf("%d steps are left, want 5", got)
		}
		if _, err := r.Undrain(eleven, ""); err != nil {
			t.Fatal(err)
		}
		if _, got := level(r); got != 5 {
			t.Errorf("%d steps at once, want the 5 there were", got)
		}
		time.Sleep(11 * time.Second)
		if _, got := level(r); got != 6 {
			t.Errorf("%d steps after a ninth of the slow start, want 6", got)
		}
		// And back again, from there.
		if _, err := r.Drain(eleven, "", 50*time.Second); err != nil {
			t.Fatal(err)
		}
		if _, got := level(r); got != 5 {
			t.Errorf("%d steps, want 5", got)
		}
		time.Sleep(51 * time.Second)
		if status, got := level(r); got != 0 || status != StatusDraining {
			t.Errorf("%s, %d steps", status, got)
		}
	})
}

func TestDrainAtOnceAndOfWhoIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, p := running(t, web[:len(web)-1]+checked)
		if _, err := r.Drain(eleven, "", 0); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != 0 || status != StatusDraining {
			t.Errorf("%s, %d steps", status, got)
		}
		if _, err := r.Undrain(eleven, ""); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != steps || status != StatusUp {
			t.Errorf("without a slow start: %s, %d steps", status, got)
		}
		p.change(p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Down) })
		time.Sleep(time.Second)
		if _, err := r.Drain(eleven, "", time.Hour); err != nil {
			t.Fatal(err)
		}
		if status, _ := level(r); status != StatusDown {
			t.Errorf("down and drained: %s", status)
		}
		p.change(p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Up) })
		time.Sleep(time.Second)
		if status, got := level(r); status != StatusDraining || got != 0 {
			t.Errorf("recovered, and drained while it was down: %s, %d steps", status, got)
		}
		if _, err := r.Undrain(eleven, ""); err != nil {
			t.Fatal(err)
		}
		if status, got := level(r); got != steps || status != StatusUp {
			t.Errorf("%s, %d steps", status, got)
		}
	})
}

const twoServices = web + `
  - name: dns
    addresses: [203.0.113.10]
    ports: [udp/53]
    table_size: 10007
    backends: [{address: 10.0.0.11}, {address: 10.0.0.13}]
`

func TestDrainInOneServiceOrAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := running(t, twoServices)
		statuses := func() [2]Status {
			v := r.View()
			return [2]Status{v.Services[0].Backends[0].Status, v.Services[1].Backends[0].Status}
		}
		for _, tc := range []struct {
			give    func(netip.Addr, string) ([]string, error)
			service string
			names   []string
			want    [2]Status
		}{
			{func(a netip.Addr, s string) ([]string, error) { return r.Drain(a, s, 0) }, "dns", []string{"dns"}, [2]Status{StatusUp, StatusDraining}},
			{func(a netip.Addr, s string) ([]string, error) { return r.Drain(a, s, 0) }, "", []string{"web", "dns"}, [2]Status{StatusDraining, StatusDraining}},
			{r.Undrain, "web", []string{"web"}, [2]Status{StatusUp, StatusDraining}},
			{r.Undrain, "", []string{"web", "dns"}, [2]Status{StatusUp, StatusUp}},
		} {
			names, err := tc.give(eleven, tc.service)
			if err != nil || !slices.Equal(names, tc.names) || statuses() != tc.want {
				t.Errorf("service %q: %v, %v, error %v; want %v, %v", tc.service, names, statuses(), err, tc.names, tc.want)
			}
		}
		for _, tc := range []struct {
			backend, service string
			over             time.Duration
			want             string
		}{
			{"10.0.0.99", "", 0, "no service has a backend 10.0.0.99"},
			{"10.0.0.12", "dns", 0, "service dns has no backend 10.0.0.12"},
			{"10.0.0.12", "ftp", 0, `no such service: "ftp"; there are web, dns`},
			{"10.0.0.12", "", -1, "is not a time from 0s to 24h0m0s"},
			{"10.0.0.12", "", MaxOver + 1, "is not a time from 0s to 24h0m0s"},
		} {
			if _, err := r.Drain(netip.MustParseAddr(tc.backend), tc.service, tc.over); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%+v: error %v", tc, err)
			}
		}
	})
}

func TestDrainsOutliveWeir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "drains.json")
	cfg := parse(t, twoServices)
	var out bytes.Buffer
	start := func() *Reconciler {
		t.Helper()
		p := newParts(newWorld(cfg))
		p.drainsPath = path
		out.Reset()
		r := p.reconciler(cfg, slog.New(slog.NewTextHandler(&out, nil)))
		if err := r.reconcile(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	drained := func(r *Reconciler) (names []string) {
		v := r.View()
		for i := range v.Services {
			for _, b := range v.Services[i].Backends {
				if b.Drained && b.Status == StatusDraining {
					names = append(names, v.Services[i].Name+" "+b.Address.String())
				}
			}
		}
		return names
	}
	r := start()
	if _, err := r.Drain(eleven, "dns", time.Hour); err != nil { // and is out of it before that
		t.Fatal(err)
	}
	if _, err := r.Drain(netip.MustParseAddr("10.0.0.12"), "", 0); err != nil {
		t.Fatal(err)
	}
	r = start()
	if got := drained(r); !slices.Equal(got, []string{"web 10.0.0.12", "dns 10.0.0.11"}) {
		t.Errorf("after a restart: %q", got)
	}
	if !strings.Contains(out.String(), "status=draining reason=\"taken out by weir drain") {
		t.Errorf("logged %s", out.String())
	}

	// A weir that is started by mistake with another file, and has no right to
	// this one, leaves it alone.
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := parse(t, web)
	p := newParts(newWorld(other))
	p.drainsPath = path
	if second := p.reconciler(other, quiet()); len(second.drains) != 1 {
		t.Errorf("of a configuration without dns, %v are drained", second.drains)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("another weir has made of %s %s, error %v", before, after, err)
	}

	// One that is not configured any more is forgotten for good.
	if err := r.SetConfig(parse(t, web)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `msg="drain is over, as the service does not have the backend any more" service=dns backend=10.0.0.11`) {
		t.Errorf("logged %s", out.String())
	}
	r = start()
	if got := drained(r); !slices.Equal(got, []string{"web 10.0.0.12"}) {
		t.Errorf("after its service had gone: %q", got)
	}
	if _, err := r.Undrain(netip.MustParseAddr("10.0.0.12"), ""); err != nil {
		t.Fatal(err)
	}
	if got := drained(start()); len(got) != 0 {
		t.Errorf("undrained: %q", got)
	}

	if err := os.WriteFile(path, []byte(`{"drained": [{"service": "web"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := drained(start()); len(got) != 0 || !strings.Contains(out.String(), "cannot read what was drained") {
		t.Errorf("from a broken file: %q, logged %s", got, out.String())
	}

	// A file that cannot be written does not keep a backend in.
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	r = start()
	if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Drain(eleven, "web", 0); err != nil || !slices.Equal(drained(r), []string{"web 10.0.0.11"}) {
		t.Errorf("drained %q, error %v", drained(r), err)
	}
	if !strings.Contains(out.String(), "a restart would forget it") {
		t.Errorf("logged %s", out.String())
	}
}

func FuzzParseDrains(f *testing.F) {
	f.Add([]byte(`{"drained":[{"service":"web","backend":"10.0.0.11"}]}`))
	f.Add([]byte(`{"drained":[{"service":"","backend":""}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseDrains(text)
		for _, m := range all {
			if err != nil || m.service == "" || !m.backend.IsValid() {
				t.Errorf("%q is %+v, error %v", text, all, err)
			}
		}
	})
}
