package reconcile

import (
	"errors"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/packet"
)

var update = flag.Bool("update", false, "write the golden files anew")

const web = `
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    table_size: 10007
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`

const tunnel = `
services:
  - name: web
    addresses: [203.0.113.10, "2001:db8:1::10"]
    ports: [tcp/80, "udp/1000-2000"]
    mode: ipip
    table_size: 10007
    backends: [{address: 10.0.0.11}, {address: "2001:db8::12"}]
`

const natted = `
services:
  - name: web
    addresses: [203.0.113.10, "2001:db8:1::10"]
    ports: [tcp/80]
    mode: nat
    table_size: 10007
    backends: [{address: 10.0.0.11, port: 8443}, {address: "2001:db8::12"}]
nat: {addresses: [10.0.0.240/31, "2001:db8::f0"], ports: 2000-3000}
`

const kept = `
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80, udp/443]
    mode: nat
    client_address: keep
    table_size: 10007
    backends: [{address: 10.0.0.11, port: 8443}, {address: 10.0.0.12}]
`

func TestCompile(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config string
		change func(*world)
	}{
		{"dsr", web, nil},
		{"dsr-dual-stack", strings.NewReplacer(
			"[203.0.113.10]", `[203.0.113.10, "2001:db8:1::10"]`,
			"{address: 10.0.0.12}", `{address: 10.0.0.12}, {address: "2001:db8::12"}`).Replace(web), nil},
		{"ipip", tunnel, nil},
		{"ipip-source", tunnel + "ipip: {source: 10.9.9.9, source6: \"2001:db8:9::9\"}\n", nil},
		{"ipip-source-prefix", tunnel + "ipip: {source_prefix: 10.9.0.0/16, source_prefix6: \"2001:db8:9::/64\"}\n", nil},
		{"ipip-gateway", tunnel, func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) { h.Gateway = netip.MustParseAddr("10.0.0.1") })
		}},
		{"ipip-without-source", tunnel, func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) { h.Source = netip.Addr{} })
			w.hop("2001:db8::12", func(h *nexthop.Hop) { h.Source = netip.Addr{} })
		}},
		{"affinity-source", strings.Replace(web, "table_size", "affinity: source\n    table_size", 1), nil},
		{"weights", strings.Replace(web, "{address: 10.0.0.12}",
			"{address: 10.0.0.12, weight: 300}, {address: 10.0.0.13, weight: 0}", 1), nil},
		{"draining", strings.Replace(web, "10.0.0.12}", "10.0.0.12, state: draining}", 1), nil},
		{"all-draining", strings.NewReplacer("11}", "11, state: draining}", "12}", "12, state: draining}").Replace(web), nil},
		{"disabled", strings.Replace(web, "10.0.0.12}", "10.0.0.12, state: disabled}", 1), nil},
		{"down", web[:len(web)-1] + checked, func(w *world) {
			w.sick("web", "10.0.0.11", health.Down)
			w.sick("web", "10.0.0.12", health.Up)
		}},
		{"health-unknown", web[:len(web)-1] + checked, nil},
		{"all-down", web[:len(web)-1] + checked, func(w *world) {
			w.sick("web", "10.0.0.11", health.Down)
			w.sick("web", "10.0.0.12", health.Down)
		}},
		{"down-and-draining", strings.Replace(web, "10.0.0.12}", "10.0.0.12, state: draining}", 1) + checked, func(w *world) {
			w.sick("web", "10.0.0.12", health.Down)
		}},
		{"unreachable", web, func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) {
				*h = nexthop.Hop{Addr: h.Addr, State: nexthop.Unreachable, Reason: "there is no route to 10.0.0.11"}
			})
		}},
		{"all-unresolved", web, func(w *world) {
			clear(w.hops)
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Reason = "asking for 10.0.0.12 on eth1" })
		}},
		{"one-down-one-unreachable", web[:len(web)-1] + checked, func(w *world) {
			w.sick("web", "10.0.0.11", health.Down)
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.State, h.Reason = nexthop.Unreachable, "interface eth1 is down" })
		}},
		{"sick-because-behind-a-gateway", web[:len(web)-1] + checked, func(w *world) {
			w.sick("web", "10.0.0.12", health.Down)
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Gateway = netip.MustParseAddr("10.0.0.1") })
		}},
		{"gateway", web, func(w *world) {
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Gateway = netip.MustParseAddr("10.0.0.1") })
		}},
		{"foreign-interface", web, func(w *world) {
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Interface = "eth0" })
		}},
		{"other-interface", web, func(w *world) {
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Interface, h.SrcMAC = "eth2", nexthop.MAC{2, 0, 0, 0, 1, 2} })
		}},
		{"failed-interface", web, func(w *world) {
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.Interface = "eth2" })
			w.interfaces[1].Err, w.interfaces[1].Workers = errors.New("interface is gone"), 0
		}},
		{"vlan", strings.Replace(web, "10.0.0.12}", "10.0.0.12, vlan: 42}", 1), func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) { h.VLAN = 7 })
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.VLAN = 7 })
		}},
		{"mtu-too-small", web, func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) { h.MTU = 0 })
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.MTU = 0 })
		}},
		{"loopback-mtu", web, func(w *world) { // larger than any packet
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.MTU = 65536 })
		}},
		{"nat", natted, nil},
		{"nat-gateway", natted, func(w *world) {
			w.hop("10.0.0.11", func(h *nexthop.Hop) { h.Gateway = netip.MustParseAddr("10.0.0.1") })
		}},
		{"nat-shared", strings.Replace(natted, "nat: {", "nat: {shared: {addresses: [10.0.0.2], ports: 50000-59999}, ", 1), nil},
		{"nat-keep", kept, nil},
		{"nat-keep-without-port", strings.NewReplacer(", port: 8443", "", "tcp/80", "tcp/80-82").Replace(kept), func(w *world) {
			w.hop("10.0.0.12", func(h *nexthop.Hop) { h.State, h.Reason = nexthop.Unreachable, "interface eth1 is down" })
		}},
		{"affinity-prefix", strings.Replace(tunnel, "table_size", "affinity: source\n    affinity_prefix: 24\n    affinity_prefix6: 56\n    table_size", 1), nil},
		{"limits", strings.Replace(tunnel, "table_size", "limits: {new_flows: 100, packets: 7, per_source: {prefix: 24, new_flows: 10, packets: 1}}\n    table_size", 1), nil},
		{"acl-allow", strings.Replace(web, "table_size", "acl: {allow: [192.0.2.0/24], deny: [192.0.2.7]}\n    table_size", 1), nil},
		{"acl-deny", strings.Replace(web, "table_size", "acl: {deny: [192.0.2.0/24, \"2001:db8:7::/48\"]}\n    table_size", 1), nil},
		{"ping-never", strings.Replace(web, "table_size", "ping: never\n    reject: icmp\n    table_size", 1), nil},
		{"ping-healthy", strings.Replace(web, "table_size", "ping: healthy\n    reject: rst\n    table_size", 1), nil},
		{"ping-unhealthy", strings.Replace(web, "table_size", "ping: healthy\n    table_size", 1), func(w *world) { clear(w.hops) }},
		{"ping-of-two-services", strings.Replace(web, "table_size", "ping: healthy\n    table_size", 1) + `
  - name: dns
    addresses: [203.0.113.10]
    ports: [udp/53]
    ping: healthy
    table_size: 10007
    backends: [{address: 10.0.0.13}]
`, func(w *world) {
			delete(w.hops, netip.MustParseAddr("10.0.0.11"))
			delete(w.hops, netip.MustParseAddr("10.0.0.12"))
		}},
		{"mtu-configured", strings.NewReplacer("10.0.0.11}", "10.0.0.11, mtu: 1400}", "::12\"}", "::12\", mtu: 9000}").Replace(tunnel), nil},
		{"mtu-learned", strings.Replace(tunnel, "10.0.0.11}", "10.0.0.11, mtu: 1400}", 1), func(w *world) {
			w.mtus[netip.MustParseAddr("10.0.0.11")] = 1300
			w.mtus[netip.MustParseAddr("2001:db8::12")] = 1280
		}},
		{"mtu-learned-is-longer", tunnel, func(w *world) { w.mtus[netip.MustParseAddr("10.0.0.11")] = 1500 }},
		{"mtu-fixed", tunnel + "path_mtu: fixed\n", func(w *world) { w.mtus[netip.MustParseAddr("10.0.0.11")] = 1300 }},
		{"two-services", web + `
  - name: dns
    addresses: [203.0.113.10]
    ports: [udp/53, tcp/53]
    table_size: 10007
    backends: [{address: 10.0.0.11}]
`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := parse(t, tc.config)
			w := newWorld(cfg)
			if tc.change != nil {
				tc.change(w)
			}
			out := w.output(t, newCompiler())
			golden(t, tc.name, describe(t, cfg, out))
			if out.snap.Generation != 1 || out.view.Generation != 1 {
				t.Errorf("snapshot %d with view %d; want 1 and 1", out.snap.Generation, out.view.Generation)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, path, want)
	}
}

// slotsOf returns number and generation of every backend's slot for IPv4.
func slotsOf(c *compiler, cfg *config.Config) map[string]slot {
	all := make(map[string]slot)
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			all[b.Address.String()] = c.slots.get(keyOf(&cfg.Services[i], &b, &groups(&cfg.Services[i])[0]))
		}
	}
	return all
}

// Flows keep their backends when a service is given checks.
func TestSlotsStayWhenChecksCome(t *testing.T) {
	c := newCompiler()
	one := parse(t, web)
	newWorld(one).compile(t, c)
	before := slotsOf(c, one)
	two := parse(t, strings.Replace(web, "table_size", "health: {tcp: {}}\n    table_size", 1))
	newWorld(two).compile(t, c)
	if after := slotsOf(c, two); !maps.Equal(after, before) {
		t.Errorf("slots were %v, and are %v", before, after)
	}
}

func TestSlotsStayWithTheirBackend(t *testing.T) {
	c := newCompiler()
	one := parse(t, web)
	newWorld(one).compile(t, c)
	first := slotsOf(c, one)

	// .11 goes, .13 comes, .12 changes all it can.
	two := parse(t, strings.NewReplacer("10.0.0.11", "10.0.0.13", "12}", "12, weight: 7, state: draining}").Replace(web))
	snap, view := newWorld(two).compile(t, c)
	second := slotsOf(c, two)
	if second["10.0.0.12"] != first["10.0.0.12"] {
		t.Errorf("10.0.0.12 moved from %v to %v", first["10.0.0.12"], second["10.0.0.12"])
	}
	if old := first["10.0.0.11"]; snap.Backend(old.number).State != 0 {
		t.Error("the slot of 10.0.0.11, which is gone, is in use")
	} else if use, ok := view.Slot(old.number, old.generation); ok {
		t.Errorf("its flows are said to be of %v", use)
	}

	// What was 10.0.0.11's is used again, and tells that it is another's.
	three := parse(t, strings.Replace(web, "10.0.0.11}", "10.0.0.13}, {address: 10.0.0.14}", 1))
	snap, _ = newWorld(three).compile(t, c)
	third := slotsOf(c, three)
	if third["10.0.0.13"] != second["10.0.0.13"] || third["10.0.0.12"] != first["10.0.0.12"] {
		t.Errorf("slots moved: %v, then %v", second, third)
	}
	old, reused := first["10.0.0.11"], third["10.0.0.14"]
	if reused.number != old.number || reused.generation == old.generation {
		t.Errorf("10.0.0.14 got %v; want number %d again, of another generation", reused, old.number)
	}
	if got := snap.Backend(reused.number).Generation; got != reused.generation {
		t.Errorf("the snapshot has generation %d, the slot %d", got, reused.generation)
	}

	// 10.0.0.11 comes back to a slot that does not pass for its old one.
	four := parse(t, web)
	newWorld(four).compile(t, c)
	if again := slotsOf(c, four)["10.0.0.11"]; again == old {
		t.Errorf("10.0.0.11 is back on %v, where it was before", again)
	}
	if n := c.slots.size(); n > 4 {
		t.Errorf("%d slots for 2 backends, never more than 4 at a time", n)
	}
}

// A configuration that cannot be compiled must not cost the backends it does
// not have their flows.
func TestAFailureChangesNothing(t *testing.T) {
	c := newCompiler()
	good := parse(t, web)
	snap, _ := newWorld(good).compile(t, c)
	before := slotsOf(c, good)

	bad := parse(t, strings.Replace(web, "10.0.0.11", "10.0.0.13", 1))
	bad.Services = append(bad.Services, bad.Services[0]) // both claim the same port
	bad.Services[1].Name = "web2"
	if _, err := c.compile(newWorld(bad).input); err == nil || !strings.Contains(err.Error(), "203.0.113.10") {
		t.Fatalf("compile returned %v; want the VIP that two services claim", err)
	}

	after, _ := newWorld(good).compile(t, c)
	if got := slotsOf(c, good); got["10.0.0.11"] != before["10.0.0.11"] || got["10.0.0.12"] != before["10.0.0.12"] {
		t.Errorf("slots were %v and are %v", before, got)
	}
	if &after.Services[0].Table[0] != &snap.Services[0].Table[0] {
		t.Error("the table was built again")
	}
}

func TestTablesAreBuiltOnlyWhenNeeded(t *testing.T) {
	const two = web + `
  - name: other
    addresses: [203.0.113.11]
    ports: [tcp/80]
    table_size: 10007
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`
	c := newCompiler()
	cfg := parse(t, two)
	w := newWorld(cfg)
	first, _ := w.compile(t, c)
	if &first.Services[0].Table[0] != &first.Services[1].Table[0] {
		t.Error("two services with the same backends do not share a table")
	}
	same := func(what string) {
		t.Helper()
		next, _ := w.compile(t, c)
		if &next.Services[0].Table[0] != &first.Services[0].Table[0] {
			t.Errorf("%s had the table built again", what)
		}
	}
	same("nothing")
	w.hop("10.0.0.11", func(h *nexthop.Hop) { h.DstMAC = nexthop.MAC{2, 9, 9, 9, 9, 9} })
	same("a new MAC")
	w.interfaces[0].MAC = packet.MAC{2, 8, 8, 8, 8, 8}
	same("a new MAC of our own")

	w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State = nexthop.Unreachable })
	next, _ := w.compile(t, c)
	if &next.Services[0].Table[0] == &first.Services[0].Table[0] {
		t.Error("without 10.0.0.11 the table is still the same")
	}
	if len(c.tables.current) != 1 {
		t.Errorf("%d tables are remembered, 1 is in use", len(c.tables.current))
	}
}

// Flows of a backend are not taken for those of the same backend in another mode
// or behind another port.
func TestOtherModeOrPortIsAnotherSlot(t *testing.T) {
	c := newCompiler()
	first := parse(t, natted)
	newWorld(first).compile(t, c)
	before := slotsOf(c, first)
	same := parse(t, strings.NewReplacer("2000-3000", "4000-5000", "port: 8443", "port: 8443, weight: 3").Replace(natted))
	newWorld(same).compile(t, c)
	if got := slotsOf(c, same); got["10.0.0.11"] != before["10.0.0.11"] {
		t.Errorf("another weight has moved it from %v to %v", before["10.0.0.11"], got["10.0.0.11"])
	}
	for _, change := range []struct{ from, to string }{
		{"10.0.0.11", "10.0.0.11, port: 8444"},
		{"mode: nat", "mode: nat\n    client_address: keep"},
		{"mode: nat", "mode: ipip"},
	} {
		text := strings.Replace(natted, ", port: 8443", "", 1)
		c, old := newCompiler(), parse(t, text)
		newWorld(old).compile(t, c)
		before := slotsOf(c, old)
		cfg := parse(t, strings.Replace(text, change.from, change.to, 1))
		newWorld(cfg).compile(t, c)
		if got := slotsOf(c, cfg); got["10.0.0.11"] == before["10.0.0.11"] {
			t.Errorf("%s to %s: 10.0.0.11 is still %v", change.from, change.to, got["10.0.0.11"])
		}
	}
}

func TestServicesKeepTheirID(t *testing.T) {
	const other = `
  - name: dns
    addresses: [203.0.113.11]
    ports: [udp/53]
    table_size: 10007
    backends: [{address: 10.0.0.11}]
`
	c := newCompiler()
	ids := func(text string) map[string]uint32 {
		snap, _ := newWorld(parse(t, text)).compile(t, c)
		all := make(map[string]uint32)
		for i := range snap.Services {
			all[snap.Services[i].Name] = snap.Services[i].ID
		}
		return all
	}
	both := ids(web + other)
	alone := ids("services:" + other)
	again := ids(web + other)
	if both["web"] == both["dns"] || alone["dns"] != both["dns"] || again["dns"] != both["dns"] {
		t.Errorf("IDs were %v, then %v, then %v", both, alone, again)
	}
}

// Each worker has its part of a limit, and the parts follow the workers.
func TestLimitsAreSharedOut(t *testing.T) {
	cfg := parse(t, strings.Replace(web, "table_size", "limits: {new_flows: 120, per_source: {packets: 50}}\n    table_size", 1)+"flows: {new_rate: 777}\n")
	c, w := newCompiler(), newWorld(cfg)
	for workers, want := range map[int]uint32{1: 120, 3: 40, 5: 24} {
		w.interfaces[0].Workers = workers
		snap, _ := w.compile(t, c)
		if got := snap.Services[0].Limits.NewFlows.PerSecond; got != want {
			t.Errorf("%d and 1 workers: %d each, want %d", workers, got, want)
		}
		if got := snap.Services[0].Limits.SourcePackets.PerSecond; got != 50 {
			t.Errorf("%d workers: %d packets/s of a source, want 50", workers, got)
		}
		if snap.NewFlows.PerSecond != 777 {
			t.Errorf("%d new entries/s, want 777", snap.NewFlows.PerSecond)
		}
	}
	w.interfaces[0].Workers, w.interfaces[1].Workers = 0, 0
	if snap, _ := w.compile(t, c); snap.Services[0].Limits.NewFlows.PerSecond != 120 {
		t.Errorf("without workers: %+v", snap.Services[0].Limits)
	}
}

func TestAccessListsAreBuiltOncePerConfiguration(t *testing.T) {
	text := strings.Replace(web, "table_size", "acl: {deny: [192.0.2.7]}\n    table_size", 1)
	c, w := newCompiler(), newWorld(parse(t, text))
	first, _ := w.compile(t, c)
	w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State = nexthop.Unreachable })
	second, _ := w.compile(t, c)
	if first.Services[0].ACL == nil || first.Services[0].ACL != second.Services[0].ACL {
		t.Errorf("lists %p and %p for one configuration", first.Services[0].ACL, second.Services[0].ACL)
	}
	third, _ := newWorld(parse(t, strings.Replace(text, ".7]", ".0/24]", 1))).compile(t, c)
	addr := packet.Addr16(netip.MustParseAddr("192.0.2.1"))
	if !second.Services[0].ACL.Allows(&addr) || third.Services[0].ACL.Allows(&addr) {
		t.Error("another configuration has not got its own list")
	}
}

// Nodes whose files list the backends in another order must agree on where a
// flow goes.
func TestOrderOfBackendsDoesNotMatter(t *testing.T) {
	pick := func(text string) []string {
		cfg := parse(t, text)
		snap, view := newWorld(cfg).compile(t, newCompiler())
		var all []string
		for hash := range uint64(10007) {
			all = append(all, view.Slots[snap.Services[0].Pick(hash)].Backend.String())
		}
		return all
	}
	forth := pick(web)
	back := pick(strings.NewReplacer("10.0.0.11", "10.0.0.12", "10.0.0.12", "10.0.0.11").Replace(web))
	for hash := range forth {
		if forth[hash] != back[hash] {
			t.Fatalf("hash %d goes to %s, or to %s in another order", hash, forth[hash], back[hash])
		}
	}
}
