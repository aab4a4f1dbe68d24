package appliance

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/controlplane/api"
	"weir/controlplane/config"
	"weir/controlplane/reconcile"
)

// patience bounds every wait of a test. It is only spent by one that fails.
const patience = 20 * time.Second

const services = `
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    table_size: 10007
    backends: [{address: 10.0.0.11}]
`

func TestFixedChanges(t *testing.T) {
	const base = "node: lb1\ninterfaces: [{name: eth1}]\n"
	parse := func(text string) *config.Config {
		cfg, _, err := config.Parse("test.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	for _, tc := range []struct {
		name  string
		after string
		want  []string
	}{
		{"nothing", base + services, nil},
		{"written in another way", "interfaces:\n- name: eth1\n  driver: auto\n  queues: all\nnode: lb1\nlog: {level: info}\n" + services, nil},
		{"a backend", base + strings.Replace(services, "10.0.0.11}", "10.0.0.11}, {address: 10.0.0.12}", 1), nil},
		{"tunnel source", base + services + "ipip: {source: 10.9.9.9}\n", nil},
		{"an interface more", "node: lb1\ninterfaces: [{name: eth1}, {name: eth2}]\n" + services, []string{"interfaces"}},
		{"a driver", "node: lb1\ninterfaces: [{name: eth1, driver: afpacket}]\n" + services, []string{"interfaces"}},
		{"flows", base + services + "flows: {entries: 4096}\n", []string{"flows"}},
		{"new_rate", base + services + "flows: {new_rate: 5}\n", nil},
		{"nat", base + services + "nat: {addresses: [10.0.0.240]}\n", nil},
		{"a timeout", base + services + "flows: {timeouts: {udp: 10s}}\n", []string{"flows"}},
		{"api and log", base + services + "api: {metrics: \"127.0.0.1:9090\"}\nlog: {level: debug}\n", []string{"api", "log"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := reconcile.DiffOf(parse(base+services), parse(tc.after))
			if got := d.Fixed(); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFewPorts(t *testing.T) {
	const base = "node: lb1\ninterfaces: [{name: eth1}]\n" + services
	for _, tc := range []struct {
		nat     string
		workers int
		want    []string // of the warnings
	}{
		{"", 4, nil},
		{"nat: {addresses: [10.0.0.240]}\n", 1008, nil},
		{"nat: {addresses: [10.0.0.240]}\n", 1009, []string{"nat.ports: 64512 ports are too few for 1009 workers"}},
		{"nat: {addresses: [10.0.0.240], ports: 2000-2255}\n", 4, nil},
		{"nat: {addresses: [10.0.0.240], ports: 2000-2254}\n", 4, []string{"nat.ports: 255 ports are too few for 4 workers"}},
		{"nat: {shared: {addresses: [10.0.0.2], ports: 50000-50063}}\n", 2, []string{"nat.shared.ports: 64 ports are too few for 2 workers, which take 64 at a time: those that get none refuse new flows; want 128 at least"}},
		{"nat: {addresses: [10.0.0.240], ports: 2000, shared: {addresses: [10.0.0.2], ports: 50000-59999}}\n", 2, []string{"nat.ports: 1 ports"}},
	} {
		cfg, _, err := config.Parse("test.yaml", []byte(base+tc.nat), nil)
		if err != nil {
			t.Errorf("%s: %v", tc.nat, err)
			continue
		}
		got := fewPorts(cfg, tc.workers)
		if len(got) != len(tc.want) || len(got) == 1 && !strings.Contains(got[0], tc.want[0]) {
			t.Errorf("%s%d workers: %q, want %q", tc.nat, tc.workers, got, tc.want)
		}
	}
}

func TestLoadReportsAllMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weir.yaml")
	text := "interfaces: [{name: eth77}]\nspeed: 9\n" + strings.Replace(services, "tcp/80", "tcp/0", 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(path)
	var mistakes config.Errors
	if !errors.As(err, &mistakes) || len(mistakes) != 3 {
		t.Fatalf("error is %v, want three mistakes", err)
	}
	for i, want := range []string{
		path + ":1: interfaces[0].name: unknown interface eth77; this box has lo",
		path + ":2: speed: ",
		path + ":7: services[0].ports[0]: ",
	} {
		if !strings.HasPrefix(mistakes[i].Error(), want) {
			t.Errorf("mistake %d is %q, want %q", i, mistakes[i], want)
		}
	}
	if _, _, err := Load(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// box is a weir that runs, on one end of a veth pair called eth-a.
type box struct {
	t      *testing.T
	config string
	header string // of the configuration: all but services
	client *api.Client
	log    *journal
	cancel context.CancelFunc
	done   chan error
}

func boot(t *testing.T) *box {
	t.Helper()
	needNamespace(t)
	addLink(t)
	t.Cleanup(func() { removeLink(t) })
	dir := t.TempDir()
	b := &box{t: t, config: filepath.Join(dir, "weir.yaml"), log: &journal{}, done: make(chan error, 1)}
	socket := filepath.Join(dir, "weir.sock")
	b.header = "node: lb1\ninterfaces: [{name: eth-a}]\nflows: {entries: 1024}\napi: {socket: " + socket + "}\n"
	b.write(services)
	b.client = api.NewClient(socket)
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	go func() { b.done <- Run(ctx, Options{ConfigPath: b.config, Version: "test", Log: b.log}) }()
	t.Cleanup(b.stop)
	b.await("snapshot", func() bool { return b.info().Generation > 0 })
	return b
}

func addLink(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth-a"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth-a-peer"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth-a", "eth-a-peer"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
}

func removeLink(t *testing.T) {
	t.Helper()
	if l, err := netlink.LinkByName("eth-a"); err == nil {
		if err := netlink.LinkDel(l); err != nil {
			t.Error(err)
		}
	}
}

func (b *box) stop() {
	b.t.Helper()
	if b.done == nil {
		return
	}
	b.cancel()
	select {
	case err := <-b.done:
		if err != nil {
			b.t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		b.t.Fatal("weir does not end")
	}
	b.done = nil
}

func (b *box) write(services string) {
	b.t.Helper()
	if err := os.WriteFile(b.config, []byte(b.header+services), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) info() (i api.Info) {
	_ = b.client.Get(context.Background(), "info", &i) // it may not have started yet
	return i
}

func (b *box) backends() []string {
	b.t.Helper()
	var all []api.Backend
	if err := b.client.Get(context.Background(), "backends", &all); err != nil {
		b.t.Fatal(err)
	}
	var names []string
	for _, be := range all {
		names = append(names, be.Address.String())
	}
	return names
}

func (b *box) await(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		select {
		case err := <-b.done:
			b.done = nil
			b.t.Fatalf("weir has ended: %v\n%s", err, b.log)
		default:
		}
	}
	b.t.Fatalf("never came: %s\n%s", what, b.log)
}

func (b *box) hangUp() {
	b.t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		b.t.Fatal(err)
	}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) has(text string) func() bool {
	return func() bool { return strings.Contains(j.String(), text) }
}

func TestReload(t *testing.T) {
	b := boot(t)
	one, two := []string{"10.0.0.11"}, []string{"10.0.0.11", "10.0.0.12"}
	more := strings.Replace(services, "10.0.0.11}", "10.0.0.11}, {address: 10.0.0.12}", 1)
	reload := func() error { return b.client.Do(context.Background(), "reload", new(api.Reloaded)) }

	t.Run("by signal", func(t *testing.T) {
		b.write(more)
		b.hangUp()
		b.await("the other backend", func() bool { return slices.Equal(b.backends(), two) })
	})
	t.Run("by the api", func(t *testing.T) {
		b.write(services)
		if err := reload(); err != nil || !slices.Equal(b.backends(), one) {
			t.Errorf("backends are %v, error %v", b.backends(), err)
		}
	})
	t.Run("a bad file keeps the old", func(t *testing.T) {
		b.write(strings.NewReplacer("203.0.113.10", "203.0.113", "tcp/80", "tcp/0").Replace(more))
		err := reload()
		if err == nil || !strings.Contains(err.Error(), "services[0].addresses[0]") || !strings.Contains(err.Error(), "services[0].ports[0]") {
			t.Errorf("error %v, want both mistakes", err)
		}
		b.hangUp()
		b.await("an error in the log", b.log.has("not reloaded; the old configuration stays in force"))
		if got := b.backends(); !slices.Equal(got, one) {
			t.Errorf("backends are %v", got)
		}
	})
	t.Run("what needs a restart", func(t *testing.T) {
		b.write(more + "log: {level: debug}\n")
		err := reload()
		if err == nil || !strings.Contains(err.Error(), "log changed, which needs a restart; nothing was reloaded") {
			t.Errorf("error %v", err)
		}
		if got := b.backends(); !slices.Equal(got, one) {
			t.Errorf("backends are %v", got)
		}
	})
	t.Run("warnings are logged", func(t *testing.T) {
		b.write(strings.Replace(services, "10007", "11", 1))
		b.hangUp()
		b.await("the warning", b.log.has("11 entries are less than"))
	})
	t.Run("while the interface is gone", func(t *testing.T) {
		removeLink(t)
		b.await("its end", b.log.has("interface is gone"))
		b.write(more)
		if err := reload(); err != nil || !slices.Equal(b.backends(), two) {
			t.Errorf("backends are %v, error %v", b.backends(), err)
		}
		addLink(t)
		b.await("its return", b.log.has("interface is back"))
	})
	b.stop()
	if _, err := os.Lstat(filepath.Join(filepath.Dir(b.config), "weir.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestPlanDrainAndReservation(t *testing.T) {
	b := boot(t)
	reserved := func() string {
		t.Helper()
		text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	const nat = "nat: {shared: {addresses: [10.0.0.2], ports: 50000-50099}}\n"
	more := strings.Replace(services, "10.0.0.11}", "10.0.0.11}, {address: 10.0.0.12}", 1)

	t.Run("plan", func(t *testing.T) {
		p, err := b.client.Plan(t.Context(), "next.yaml", []byte(b.header+more+"log: {level: debug}\n"))
		if err != nil || len(p.Services) != 1 || p.Services[0].Change != "changed" || !slices.Equal(p.Restart, []string{"log"}) {
			t.Errorf("%+v, error %v", p, err)
		}
		_, err = b.client.Plan(t.Context(), "next.yaml", []byte(strings.Replace(b.header, "eth-a", "eth-z", 1)+strings.Replace(more, "tcp/80", "tcp/0", 1)))
		var mistakes api.Mistakes
		if !errors.As(err, &mistakes) || len(mistakes) != 2 || !strings.HasPrefix(mistakes[0], "next.yaml:2: interfaces[0].name: unknown interface eth-z") {
			t.Errorf("error %q", err)
		}
		if got := b.backends(); !slices.Equal(got, []string{"10.0.0.11"}) {
			t.Errorf("after the plan, backends are %v", got)
		}
	})
	t.Run("drain", func(t *testing.T) {
		var o api.Ordered
		if err := b.client.Do(t.Context(), "drain?backend=10.0.0.11", &o); err != nil || len(o.Backends) != 1 || !o.Backends[0].Drained || len(o.Warnings) != 1 {
			t.Errorf("%+v, error %v", o, err)
		}
		b.write(more)
		if err := b.client.Do(t.Context(), "reload", new(api.Reloaded)); err != nil {
			t.Fatal(err)
		}
		var all []api.Backend
		if err := b.client.Get(t.Context(), "backends", &all); err != nil || len(all) != 2 || !all[0].Drained || all[1].Drained {
			t.Errorf("after a reload %+v, error %v", all, err)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(b.config), "drains.json")); err != nil {
			t.Error(err)
		}
		if err := b.client.Do(t.Context(), "undrain?backend=10.0.0.11", &o); err != nil || o.Backends[0].Drained {
			t.Errorf("%+v, error %v", o, err)
		}
		for _, text := range []string{"msg=drain backend=10.0.0.11 services=web over=0s", "msg=undrain backend=10.0.0.11", "changed=1 removed=0"} {
			if !b.log.has(text)() {
				t.Errorf("%q is not in the log:\n%s", text, b.log)
			}
		}
	})
	t.Run("reservation", func(t *testing.T) {
		before := reserved()
		addAddress(t)
		all := strings.Replace(nat, "50000-50099", "1024-65535", 1)
		b.write(more + all)
		for what, err := range map[string]error{
			"reload": b.client.Do(t.Context(), "reload", new(api.Reloaded)),
			"plan":   func() error { _, err := b.client.Plan(t.Context(), "next.yaml", []byte(b.header+more+all)); return err }(),
			"check":  func() error { _, _, err := Load(b.config); return err }(),
		} {
			if err == nil || !strings.HasPrefix(err.Error(), "nat.shared.ports: no port of ") {
				t.Errorf("%s, of all ports: %v", what, err)
			}
		}
		taken, err := net.Listen("tcp4", "0.0.0.0:50007")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		b.write(more + nat)
		var r api.Reloaded
		if err := b.client.Do(t.Context(), "reload", &r); err != nil || len(r.Warnings) != 2 || !strings.Contains(r.Warnings[1], "nat.shared: tcp 0.0.0.0:50007; ") {
			t.Fatalf("warnings %q, error %v", r.Warnings, err)
		}
		if got := reserved(); !strings.Contains(got, "50000-50099") {
			t.Errorf("reserved are %q", got)
		}
		var n api.NAT
		if err := b.client.Get(t.Context(), "nat", &n); err != nil || len(n.Addresses) != 1 || !n.Addresses[0].Shared {
			t.Errorf("%+v, error %v", n, err)
		}
		b.write(more + strings.Replace(nat, "50099", "50049", 1))
		if err := b.client.Do(t.Context(), "reload", new(api.Reloaded)); err != nil {
			t.Fatal(err)
		}
		if got := reserved(); !strings.Contains(got, "50000-50049") {
			t.Errorf("reserved are %q", got)
		}
		b.stop()
		if got := reserved(); got != before {
			t.Errorf("after the end %q are reserved, before %q", got, before)
		}
	})
}

func addAddress(t *testing.T) {
	t.Helper()
	l, err := netlink.LinkByName("eth-a")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.0.0.2/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		t.Fatal(err)
	}
}

func TestSecondWeirAndMissingInterface(t *testing.T) {
	b := boot(t)
	second := Options{ConfigPath: b.config, Log: &journal{}}
	if err := Run(context.Background(), second); err == nil || !strings.Contains(err.Error(), "another weir answers there") {
		t.Errorf("a second weir on the same file: %v", err)
	}
	b.stop()
	removeLink(t)
	if err := Run(context.Background(), second); err == nil || !strings.Contains(err.Error(), "unknown interface eth-a") {
		t.Errorf("without the interface: %v", err)
	}
}

func TestInfo(t *testing.T) {
	b := boot(t)
	i := b.info()
	if i.Version != "test" || i.Node != "lb1" || i.Config != b.config || i.PID != os.Getpid() || i.Started.IsZero() {
		t.Errorf("%+v", i)
	}
	for _, noun := range []string{"services", "backends", "workers", "drops", "interfaces", "announcements"} {
		var all []any
		if err := b.client.Get(t.Context(), noun, &all); err != nil || len(all) == 0 {
			t.Errorf("%s: %d of them, error %v", noun, len(all), err)
		}
	}
}
