package reconcile

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/worker"
)

// planned is a reconciler with one snapshot, and what it makes of another
// configuration.
func planned(t *testing.T, before, after string, change func(*world)) (*Reconciler, *parts, *Plan) {
	t.Helper()
	cfg := parse(t, before)
	w := newWorld(cfg)
	if change != nil {
		change(w)
	}
	p := newParts(w)
	r := p.reconciler(cfg, quiet())
	if err := r.reconcile(); err != nil {
		t.Fatal(err)
	}
	plan, err := r.Plan(parse(t, after))
	if err != nil {
		t.Fatal(err)
	}
	return r, p, plan
}

// flowTo is a flow to a port of the VIP that a slot of the snapshot in force has,
// and that Maglev has given it if it gives it any.
func flowTo(p *parts, slot uint32, port uint16) *worker.Flow {
	snap := p.applied[len(p.applied)-1]
	f := &worker.Flow{
		Tuple: packet.Tuple{
			Src: packet.Addr16(netip.MustParseAddr("198.51.100.7")), Dst: packet.Addr16(netip.MustParseAddr("203.0.113.10")),
			SrcPort: 4000, DstPort: port, Proto: packet.ProtoTCP,
		},
		Slot: slot, Generation: snap.Backend(slot).Generation,
	}
	for range 100 {
		if snap.Services[0].Pick(flow.HashStable(&f.Tuple)) == slot {
			break
		}
		f.Tuple.SrcPort++
	}
	return f
}

func TestPlanMovesAndBreaks(t *testing.T) {
	third := strings.Replace(web, "10.0.0.12}", "10.0.0.12}, {address: 10.0.0.13}", 1)
	for _, tc := range []struct {
		name          string
		before, after string
		change        func(*world)
		moved         float64 // of web's slots, to 2 %
		backends      string
		breaks        string // of the flows to 10.0.0.11 and 10.0.0.12
	}{
		{"nothing", web, web, nil, 0, "", "none"},
		{"in another order", web, strings.NewReplacer("10.0.0.11", "10.0.0.12", "10.0.0.12", "10.0.0.11").Replace(web), nil, 0, "", "none"},
		{"one more", web, third, nil, 0.33, "10.0.0.11 0.50 to 0.33, 10.0.0.12 0.50 to 0.33, 10.0.0.13 0.00 to 0.33", "none"},
		{"one less", third, web, nil, 0.33, "10.0.0.11 0.33 to 0.50, 10.0.0.12 0.33 to 0.50, 10.0.0.13 0.33 to 0.00", "none"},
		{"another", web, strings.Replace(web, "0.12", "0.13", 1), nil, 0.67, "10.0.0.11 0.50 to 0.50, 10.0.0.12 0.50 to 0.00, 10.0.0.13 0.00 to 0.50", "10.0.0.12"},
		{"draining", web, strings.Replace(web, "0.12}", "0.12, state: draining}", 1), nil, 0.5, "10.0.0.11 0.50 to 1.00, 10.0.0.12 0.50 to 0.00", "none"},
		{"disabled", web, strings.Replace(web, "0.12}", "0.12, state: disabled}", 1), nil, 0.5, "10.0.0.11 0.50 to 1.00, 10.0.0.12 0.50 to 0.00", "10.0.0.12"},
		{"all drain", web, strings.NewReplacer("0.11}", "0.11, state: draining}", "0.12}", "0.12, state: draining}").Replace(web), nil, 1,
			"invalid IP 0.00 to 1.00, 10.0.0.11 0.50 to 0.00, 10.0.0.12 0.50 to 0.00", "none"},
		{"another mode", web, strings.Replace(web, "table_size", "mode: ipip\n    table_size", 1), nil, 0, "", "none"},
		{"another mode, and one less", third, strings.Replace(web, "table_size", "mode: ipip\n    table_size", 1), nil, 0.33,
			"10.0.0.11 0.33 to 0.50, 10.0.0.12 0.33 to 0.50, 10.0.0.13 0.33 to 0.00", "none"},
		{"another mode, and one instead", web, strings.NewReplacer("table_size", "mode: ipip\n    table_size", "0.12", "0.13").Replace(web), nil, 0.67,
			"10.0.0.11 0.50 to 0.50, 10.0.0.12 0.50 to 0.00, 10.0.0.13 0.00 to 0.50", "10.0.0.12"},
		{"to NAT", web, strings.Replace(web, "table_size", "mode: nat\n    table_size", 1) + "nat: {addresses: [10.0.0.240]}\n", nil, 0, "", "both"},
		{"from NAT", strings.Replace(web, "table_size", "mode: nat\n    table_size", 1) + "nat: {addresses: [10.0.0.240]}\n", web, nil, 0, "", "both"},
		{"another port", web, strings.Replace(web, "tcp/80", "tcp/81", 1), nil, 0, "", "both"},
		{"another name", web, strings.Replace(web, "name: web", "name: web2", 1), nil, 0, "", "none"},
		{"another name, nobody left", web, strings.NewReplacer("name: web", "name: web2", "0.11}", "0.11, state: draining}", "0.12}", "0.12, state: draining}").Replace(web), nil, 0, "", "both"},
		{"another name, and denied", web, strings.NewReplacer("name: web", "name: web2", "table_size", "acl: {deny: [198.51.100.0/24]}\n    table_size").Replace(web), nil, 0, "", "both"},
		{"denied", web, strings.Replace(web, "table_size", "acl: {deny: [198.51.100.0/24]}\n    table_size", 1), nil, 0, "", "both"},
		{"denied before", strings.Replace(web, "table_size", "acl: {deny: [198.51.100.0/24]}\n    table_size", 1), web, nil, 0, "", "none"},
		{"another affinity", web, strings.Replace(web, "table_size", "affinity: source\n    table_size", 1), nil, 0, "", "none"},
		{"another size", web, strings.Replace(web, "10007", "1009", 1), nil, 0.5, "10.0.0.11 0.50 to 0.50, 10.0.0.12 0.50 to 0.50", "none"},
		{"a slow start", web, strings.Replace(third, "table_size", "slow_start: 1h\n    table_size", 1), nil, 0.33,
			"10.0.0.11 0.50 to 0.33, 10.0.0.12 0.50 to 0.33, 10.0.0.13 0.00 to 0.33", "none"},
		{"one is down anyway", web[:len(web)-1] + checked, third + checked,
			func(w *world) { w.sick("web", "10.0.0.12", health.Down) }, 0.5,
			"10.0.0.11 1.00 to 0.50, 10.0.0.13 0.00 to 0.50", "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, p, plan := planned(t, tc.before, tc.after, tc.change)
			moved, backends := 0.0, []string{}
			if m := plan.Moves["web"]; m != nil {
				moved = m.Share
				leaves, comes := 0.0, 0.0
				for _, b := range m.Backends {
					backends = append(backends, fmt.Sprintf("%s %.2f to %.2f", b.Address, b.Before, b.After))
					leaves, comes = leaves+b.Leaves, comes+b.Comes
				}
				if math.Abs(leaves-moved) > 1e-9 || math.Abs(comes-moved) > 1e-9 {
					t.Errorf("%.3f leave and %.3f come, of %.3f that move", leaves, comes, moved)
				}
			}
			if got := strings.Join(backends, ", "); math.Abs(moved-tc.moved) > 0.02 || got != tc.backends {
				t.Errorf("%.3f of the slots move (%s), want %.2f (%s)", moved, got, tc.moved, tc.backends)
			}
			var broken []string
			for slot, name := range []string{"10.0.0.11", "10.0.0.12"} {
				if service, breaks := plan.Breaks(flowTo(p, uint32(slot), 80)); breaks {
					broken = append(broken, name)
					if service != "web" {
						t.Errorf("it is of service %q", service)
					}
				}
			}
			got := map[int]string{0: "none", 2: "both"}[len(broken)]
			if len(broken) == 1 {
				got = broken[0]
			}
			if got != tc.breaks {
				t.Errorf("flows of %s break, want %s", got, tc.breaks)
			}
		})
	}
}

// What a plan says of flows has to come true, for each part of a service's table.
func TestPlanComesTrue(t *testing.T) {
	for name, change := range map[string]*strings.Replacer{
		"another backend":           strings.NewReplacer("0.12}", "0.13}"),
		"another name":              strings.NewReplacer("name: web", "name: web2"),
		"another name and backend":  strings.NewReplacer("name: web", "name: web2", "0.12}", "0.13}"),
		"another name and weight":   strings.NewReplacer("name: web", "name: web2", "0.12}", "0.12, weight: 300}"),
		"another mode and size":     strings.NewReplacer("table_size: 10007", "mode: ipip\n    table_size: 1009"),
		"another mode and affinity": strings.NewReplacer("table_size", "mode: ipip\n    affinity: source\n    table_size"),
		"another port":              strings.NewReplacer("tcp/80", "tcp/81"),
	} {
		after := change.Replace(web)
		r, p, plan := planned(t, web, after, nil)
		var flows []*worker.Flow
		for port := range uint16(200) {
			f := flowTo(p, uint32(port%2), 80+port/100) // those to port 81 are of no service
			f.Tuple.Src[15] = byte(port)
			flows = append(flows, f)
		}
		p.world.hops = newWorld(parse(t, after)).hops
		if err := r.SetConfig(parse(t, after)); err != nil {
			t.Fatal(err)
		}
		old, fresh := p.applied[0], p.applied[1]
		for _, f := range flows {
			// The entry of a flow holds if it can; else Maglev decides.
			svc := &fresh.Services[0]
			slot := svc.Pick(flow.HashStable(&f.Tuple))
			if svc.Affinity == snapshot.AffinitySource {
				slot = svc.Pick(flow.HashStableSource(&f.Tuple.Src))
			}
			if keeps(fresh, f) {
				slot = f.Slot
			}
			really := f.Tuple.DstPort == 80 && (name == "another port" || fresh.Backend(slot).Addr != old.Backend(f.Slot).Addr)
			if _, breaks := plan.Breaks(f); breaks != really {
				t.Errorf("%s: slot %d, port %d: breaks %v, said %v", name, f.Slot, f.Tuple.DstPort, really, breaks)
			}
		}
	}
}

func TestPlanOfSNATAddresses(t *testing.T) {
	flow := func(p *parts, snat string) *worker.Flow {
		f := flowTo(p, 0, 80)
		f.SNAT = netip.MustParseAddrPort(snat)
		return f
	}
	less := strings.Replace(natted, "10.0.0.240/31", "10.0.0.240", 1)
	_, p, plan := planned(t, natted, strings.Replace(less, "2000-3000", "2000-2500", 1), nil)
	for snat, want := range map[string]bool{
		"10.0.0.240:2000": false, "10.0.0.240:2501": false, "10.0.0.241:2000": true,
		"10.0.0.242:2000": false, // is not alive
	} {
		if _, got := plan.Breaks(flow(p, snat)); got != want {
			t.Errorf("the flow by %s breaks: %v, want %v", snat, got, want)
		}
	}
}

// Ports of the box's own address that are weir's no more are the kernel's.
func TestPlanOfSharedPorts(t *testing.T) {
	shared := strings.NewReplacer("10.0.0.240/31, ", "", "ports: 2000-3000", "shared: {addresses: [10.0.0.2], ports: 2000-3000}").Replace(natted)
	_, p, plan := planned(t, shared, strings.Replace(shared, "2000-3000", "2000-2500", 1), nil)
	for snat, want := range map[string]bool{"10.0.0.2:2500": false, "10.0.0.2:2501": true} {
		f := flowTo(p, 0, 80)
		f.SNAT = netip.MustParseAddrPort(snat)
		if _, got := plan.Breaks(f); got != want {
			t.Errorf("the flow by %s breaks: %v, want %v", snat, got, want)
		}
	}
}

// What is over can neither be alive nor break.
func TestPlanOfFlowsThatAreOver(t *testing.T) {
	_, p, plan := planned(t, web, strings.Replace(web, "tcp/80", "tcp/81", 1), nil)
	for state, want := range map[flow.State]string{flow.StateEstablished: "web", flow.StateUDP: "web", flow.StateTimeWait: "", flow.StateClosed: ""} {
		f := flowTo(p, 0, 80)
		f.State = state
		if service, breaks := plan.Breaks(f); service != want || breaks != (want != "") {
			t.Errorf("in state %s it is of service %q, and breaks: %v", state, service, breaks)
		}
	}
}

// A plan leaves no trace: not in slots, SNAT slots, tables, or anybody's pace.
func TestPlanChangesNothing(t *testing.T) {
	cfg := parse(t, natted)
	p := newParts(newWorld(cfg))
	r := p.reconciler(cfg, quiet())
	if err := r.reconcile(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Drain(eleven, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		c := r.compiler
		return fmt.Sprintf("%v %v %v %v %d %v", c.slots.generations, len(c.slots.used), c.services.generations, c.paces.current, len(c.tables.current), c.generation)
	}
	before, targets, view := state(), p.targets, r.View()
	other := parse(t, strings.NewReplacer("10.0.0.11", "10.0.0.13", "10.0.0.240", "10.0.0.250", "name: web", "name: web2").Replace(natted))
	if _, err := r.Plan(other); err != nil {
		t.Fatal(err)
	}
	if after := state(); after != before || !slices.Equal(p.targets, targets) || !reflect.DeepEqual(view, r.View()) || r.Config() != cfg || p.count() != 2 {
		t.Errorf("was %s, is %s; targets %v, %d snapshots", before, after, p.targets, p.count())
	}
	if slots, err := p.world.space.Preview([][16]byte{packet.Addr16(netip.MustParseAddr("10.0.0.77"))}); err != nil || slots[0] != 3 {
		t.Errorf("the next SNAT slot is %d, error %v; want 3", slots, err)
	}
}

// A space has so many slots and no more. Who asks for too many is refused, by a
// plan as by a reload, and costs nobody else any.
func TestTooManySNATAddresses(t *testing.T) {
	one := strings.NewReplacer("10.0.0.240/31, \"2001:db8::f0\"", "10.0.0.240", ", \"2001:db8:1::10\"", "", ", {address: \"2001:db8::12\"}", "").Replace(natted)
	r, p, _ := planned(t, one, one, nil)
	all := parse(t, strings.Replace(one, "10.0.0.240", "172.16.0.0/20", 1))
	twice := parse(t, strings.Replace(one, "10.0.0.240", "172.17.0.0/24", 1))
	twice.Services = append(twice.Services, twice.Services[0])
	twice.Services[1].Name = "web2"
	for range 2 {
		for what, put := range map[string]func(*config.Config) error{
			"plan":   func(cfg *config.Config) error { _, err := r.Plan(cfg); return err },
			"reload": r.SetConfig,
		} {
			if err := put(all); err == nil || !strings.Contains(err.Error(), "4096 are new, and of the 4096 that there can be, 1 are taken") {
				t.Errorf("%s of 4096 more addresses: %v", what, err)
			}
			if err := put(twice); err == nil {
				t.Errorf("%s of a VIP that two services claim is not refused", what)
			}
		}
	}
	if slots, err := p.world.space.Preview([][16]byte{packet.Addr16(netip.MustParseAddr("172.17.0.1"))}); err != nil || slots[0] != 1 {
		t.Errorf("the next slot is %d, error %v; want 1", slots, err)
	}
	// One address less is refused by neither, and is all there is.
	rest := all
	rest.NAT.Addresses = rest.NAT.Addresses[1:]
	if _, err := r.Plan(rest); err != nil {
		t.Errorf("plan of the rest: %v", err)
	}
	if err := r.SetConfig(rest); err != nil {
		t.Fatalf("reload of the rest: %v", err)
	}
	if snap := p.last(); len(snap.SNAT4) != 4095 || snap.SNAT4[0].Range.Slot != 1 || snap.SNAT4[4094].Range.Slot != 4095 {
		t.Errorf("%d addresses are in force", len(snap.SNAT4))
	}
	if _, err := r.Plan(parse(t, one)); err != nil {
		t.Errorf("plan of an address from before: %v", err)
	}
	if _, err := r.Plan(parse(t, strings.Replace(one, "0.240", "0.250", 1))); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("plan of another when full: %v", err)
	}
}

func TestPlanOfWhatCannotBe(t *testing.T) {
	r, _, _ := planned(t, web, web, nil)
	bad := parse(t, web)
	bad.Services = append(bad.Services, bad.Services[0])
	bad.Services[1].Name = "web2"
	if _, err := r.Plan(bad); err == nil || !strings.Contains(err.Error(), "203.0.113.10") {
		t.Errorf("error %v, want the VIP that two services claim", err)
	}
	cfg := parse(t, web)
	early := newParts(newWorld(cfg)).reconciler(cfg, quiet())
	if _, err := early.Plan(cfg); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("before the first snapshot: %v", err)
	}
}

func TestDiff(t *testing.T) {
	with := func(text string) string { return strings.Replace(web, "table_size", text+"\n    table_size", 1) }
	for _, tc := range []struct {
		name          string
		before, after string
		want          string
	}{
		{"nothing", web, web, "web unchanged"},
		{"backends", strings.Replace(web, "0.11}", "0.11, weight: 50}", 1),
			strings.NewReplacer("0.12}", "0.13}", "0.11}", "0.11, state: draining, vlan: 7}").Replace(web),
			"web changed [backends] 10.0.0.11 changed [weight 50 to 100 state active to draining vlan none to 7], 10.0.0.13 added, 10.0.0.12 removed"},
		{"mode and port", natted, strings.NewReplacer(", port: 8443", ", mtu: 1400", "mode: nat", "mode: ipip").Replace(natted),
			"web changed [mode backends] 10.0.0.11 changed [port 8443 to none mtu none to 1400]"},
		{"keys", web, with("affinity: source\n    affinity_prefix: 24\n    ping: never\n    reject: rst\n    slow_start: 3s\n    limits: {packets: 1}\n    acl: {deny: [10.0.0.0/8]}\n    health: {tcp: {}}"),
			"web changed [affinity affinity_prefix ping reject slow_start limits acl health]"},
		{"table and VIP", web, strings.NewReplacer("10007", "1009", ".10]", ".11]", "tcp/80", "tcp/81").Replace(web),
			"web changed [addresses ports table_size]; VIPs +[203.0.113.11] -[203.0.113.10]"},
		{"services", twoServices, strings.Replace(twoServices, "name: web", "name: www", 1), "www added, dns unchanged, web removed"},
		{"sections", web, web + "ipip: {source: 10.9.9.9}\npath_mtu: fixed\nnat: {addresses: [10.0.0.240]}\nflows: {new_rate: 5}\n",
			"web unchanged; sections [flows.new_rate ipip path_mtu nat]"},
		{"fixed sections", web, web + "flows: {entries: 4096}\napi: {metrics: \"127.0.0.1:9090\"}\nlog: {level: debug}\n",
			"web unchanged; sections [flows api log], fixed [flows api log]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := DiffOf(parse(t, tc.before), parse(t, tc.after))
			if got := d.text(); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			back := DiffOf(parse(t, tc.after), parse(t, tc.before))
			if back.Count(Changed) != d.Count(Changed) || back.Count(Added) != d.Count(Removed) || len(back.Sections) != len(d.Sections) {
				t.Errorf("the other way round it is %s", back.text())
			}
		})
	}
}

func (d *Diff) text() string {
	var services []string
	for _, s := range d.Services {
		text := s.Name + " " + string(s.Kind)
		if len(s.Keys) > 0 {
			text += fmt.Sprintf(" %v", s.Keys)
		}
		var backends []string
		for _, b := range s.Backends {
			words := fmt.Sprintf(" %s %s", b.Address, b.Kind)
			if len(b.Keys) > 0 {
				words += fmt.Sprintf(" %v", b.Keys)
			}
			backends = append(backends, words)
		}
		services = append(services, text+strings.Join(backends, ","))
	}
	text := strings.Join(services, ", ")
	if len(d.VIPsAdded)+len(d.VIPsRemoved) > 0 {
		text += fmt.Sprintf("; VIPs +%v -%v", d.VIPsAdded, d.VIPsRemoved)
	}
	if len(d.Sections) > 0 {
		text += fmt.Sprintf("; sections %v", d.Sections)
	}
	if fixed := d.Fixed(); len(fixed) > 0 {
		text += fmt.Sprintf(", fixed %v", fixed)
	}
	return text
}

// Whoever adds a key to the configuration must not forget it here.
func TestDiffKnowsAllKeys(t *testing.T) {
	service, backend := reflect.TypeFor[config.Service](), reflect.TypeFor[config.Backend]()
	for _, tc := range []struct {
		of    reflect.Type
		known []string
	}{
		{service, []string{"Name", "Addresses", "Ports", "Mode", "TableSize", "Health", "Backends", "ClientAddress", "Affinity",
			"AffinityPrefix", "AffinityPrefix6", "Ping", "Reject", "SlowStart", "Limits", "ACL",
			"Pool", "Families", "Labels", "Share", "Announce", "MinBackends"}},
		{backend, []string{"Address", "Weight", "State", "VLAN", "Port", "MTU", "CheckPort"}}, // the last follows from others
		{reflect.TypeFor[config.Config](), []string{"Node", "Interfaces", "Pools", "Services", "Flows", "IPIP", "NAT", "PathMTU",
			"Cluster", "BGP", "API", "StateDir", "Log", "pos", "snat"}},
		{reflect.TypeFor[config.BGP](), []string{"ASN", "RouterID", "Listen", "NextHop", "NextHop6", "ShutdownDelay", "Peers"}},
	} {
		for f := range tc.of.NumField() {
			if name := tc.of.Field(f).Name; !slices.Contains(tc.known, name) {
				t.Errorf("%s.%s is new: compare it in diff.go", tc.of, name)
			}
		}
	}
}
