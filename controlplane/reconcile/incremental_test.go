package reconcile

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/changelog"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
)

// However a snapshot came about, by single changes or from scratch, it says the
// same: of every VIP and port, and of every backend.
func TestIncrementalAgreesWithScratch(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			s := newShifting(t, rng)
			for n := range 80 {
				what := s.shift()
				s.check(fmt.Sprintf("change %d, %s", n, what))
			}
			if s.shared == 0 || s.refused == 0 {
				t.Errorf("%d services were taken over as they were, %d configurations refused", s.shared, s.refused)
			}
		})
	}
}

// shifting is a world in which much changes, and who follows it change by change.
type shifting struct {
	*world
	t    *testing.T
	rng  *rand.Rand
	conf []shiftingService

	compiler *compiler
	seen     seen
	ways     map[string]via.Way
	before   output
	slots    map[slotKey]slot
	shared   int // services that were not compiled again
	refused  int
}

type shiftingService struct {
	name, head string
	backends   []int
	extra      map[int]string // keys of single backends
}

func newShifting(t *testing.T, rng *rand.Rand) *shifting {
	s := &shifting{t: t, rng: rng, compiler: newCompiler(), seen: seen{changelog.Never, changelog.Never}, ways: make(map[string]via.Way)}
	var cfg *config.Config
	for n := 0; n < 6; n++ {
		s.conf = append(s.conf, s.service(n))
		if with := s.parse(); with != nil {
			cfg = with
			continue
		}
		s.conf = s.conf[:n]
		n--
	}
	s.world = newWorld(cfg)
	s.resolve()
	return s
}

// service makes up a service. Several have the same backends, and a VIP.
func (s *shifting) service(n int) shiftingService {
	mode := []string{"dsr", "ipip", "nat", "nat\n    client_address: keep"}[s.rng.IntN(4)]
	shared := "203.0.113.1, "
	if strings.Contains(mode, "keep") {
		shared = "" // answers could not be told apart
	}
	head := fmt.Sprintf("addresses: [%s203.0.113.%d, \"2001:db8:1::%d\"]\n    ports: [tcp/%d, \"udp/%d-%d\"]\n    mode: %s\n", shared, 10+n, n, 1000+n, 2000+10*n, 2003+10*n, mode)
	for _, line := range []string{"slow_start: 10s", "affinity: source", "limits: {packets: 100}", "acl: {deny: [192.0.2.0/24]}", "min_backends: 2"} {
		if s.rng.IntN(3) == 0 {
			head += "    " + line + "\n"
		}
	}
	if s.rng.IntN(2) == 0 {
		head += "    health: {tcp: {port: 80}}\n"
	}
	of := shiftingService{name: fmt.Sprint("s", n), head: head, extra: make(map[int]string)}
	first := s.rng.IntN(3)
	for b := range 3 + s.rng.IntN(5) {
		of.backends = append(of.backends, first+b)
	}
	return of
}

// backendText is the n-th backend there can be.
func backendText(n int) string {
	if n%3 == 2 {
		return fmt.Sprintf("2001:db8::%x", 16+n)
	}
	return fmt.Sprintf("10.0.0.%d", 16+n)
}

// parse returns what is to be configured, or nil if there cannot be such a
// configuration.
func (s *shifting) parse() *config.Config {
	var b strings.Builder
	b.WriteString("nat: {addresses: [10.0.0.240/31, \"2001:db8::f0\"]}\nservices:\n")
	for _, of := range s.conf {
		fmt.Fprintf(&b, "  - name: %s\n    %s    table_size: 1009\n    ping: healthy\n    backends:\n", of.name, of.head)
		for _, n := range of.backends {
			fmt.Fprintf(&b, "      - {address: \"%s\"%s}\n", backendText(n), of.extra[n])
		}
	}
	cfg, _, err := config.Parse("test.yaml", []byte("node: lb1\ninterfaces: [{name: eth1}, {name: eth2}]\n"+b.String()), nil)
	if err != nil {
		return nil
	}
	return cfg
}

// resolve gives those backends a hop that have none.
func (s *shifting) resolve() {
	for a, hop := range newWorld(s.config).hops {
		if _, known := s.hops[a]; !known {
			s.hops[a] = hop
			s.moved.Add(a)
		}
	}
}

// shift changes something, and says what.
func (s *shifting) shift() string {
	s.now = s.now.Add(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
	services := s.config.Services
	service := &services[s.rng.IntN(len(services))]
	backend := service.Backends[s.rng.IntN(len(service.Backends))].Address
	before := make([]shiftingService, len(s.conf))
	for i, of := range s.conf {
		before[i] = shiftingService{of.name, of.head, slices.Clone(of.backends), maps.Clone(of.extra)}
	}
	conf := &s.conf[s.rng.IntN(len(s.conf))]
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		all := checks(s.config)
		if len(all) == 0 {
			return "nothing"
		}
		id := all[s.rng.IntN(len(all))].ID
		s.setHealth(id, health.Result{State: health.State(s.rng.IntN(3)), LastError: "refused"})
		return "health of " + id
	case 3:
		s.setHop(backend, func(h *nexthop.Hop) { h.DstMAC[1] = byte(s.rng.IntN(3)) })
		return "MAC of " + backend.String()
	case 4:
		s.setHop(backend, func(h *nexthop.Hop) {
			h.State = nexthop.State(s.rng.IntN(3))
			if h.Reason = ""; h.State != nexthop.Resolved {
				h.Reason = "no answer"
			}
		})
		return "hop of " + backend.String()
	case 5:
		m := member{service.Name, backend}
		if _, drained := s.drains[m]; drained {
			delete(s.drains, m)
			return fmt.Sprint("undrain ", m)
		}
		s.drains[m] = Drain{Start: s.now, Over: time.Duration(s.rng.IntN(2)) * 5 * time.Second, From: steps}
		return fmt.Sprint("drain ", m)
	case 6:
		s.mtus = maps.Clone(s.mtus)
		s.mtus[backend] = 1300 + s.rng.IntN(3)
		return "MTU of " + backend.String()
	case 7:
		a := services[s.rng.IntN(len(services))].Addresses[0]
		s.stances = map[netip.Addr]announce.Stance{a: {Answers: true, Members: []announce.Member{
			{Node: "lb1", Self: true}, {Node: "lb2", Interface: "eth1", MAC: packet.MAC{2, 7, 7, 7, 7, 7}},
		}}}
		return "stance of " + a.String()
	case 8:
		s.interfaces = slices.Clone(s.interfaces)
		s.interfaces[s.rng.IntN(2)].Workers = s.rng.IntN(3)
		return "workers"
	case 9:
		n := conf.backends[s.rng.IntN(len(conf.backends))]
		conf.extra[n] = []string{", weight: 3", ", weight: 0", ", state: draining", ", state: disabled", ", mtu: 1400", ""}[s.rng.IntN(6)]
	case 10:
		if n := s.rng.IntN(12); !slices.Contains(conf.backends, n) {
			conf.backends = slices.Insert(conf.backends, s.rng.IntN(len(conf.backends)), n)
		} else if len(conf.backends) > 1 {
			conf.backends = slices.DeleteFunc(conf.backends, func(b int) bool { return b == n })
		}
	case 11:
		s.reorder()
	}
	cfg := s.parse()
	if cfg == nil {
		s.conf = before
		return "nothing"
	}
	s.config = cfg
	s.resolve()
	return "another configuration"
}

// reorder adds, takes away and moves services.
func (s *shifting) reorder() {
	switch s.rng.IntN(3) {
	case 0:
		s.rng.Shuffle(len(s.conf), func(i, j int) { s.conf[i], s.conf[j] = s.conf[j], s.conf[i] })
	case 1:
		if len(s.conf) > 2 {
			n := s.rng.IntN(len(s.conf))
			s.conf = slices.Delete(s.conf, n, n+1)
		}
	case 2:
		n := s.rng.IntN(9)
		name := fmt.Sprint("s", n)
		s.conf = slices.DeleteFunc(s.conf, func(of shiftingService) bool { return of.name == name })
		s.conf = slices.Insert(s.conf, s.rng.IntN(len(s.conf)+1), s.service(n))
	}
}

// check compiles what has changed, and everything, and compares.
func (s *shifting) check(what string) {
	s.t.Helper()
	if s.rng.IntN(8) == 0 {
		s.refuse()
	}
	scratch := newCompiler()
	scratch.paces, scratch.announced, scratch.homes = s.compiler.paces.clone(), maps.Clone(s.compiler.announced), maps.Clone(s.compiler.homes)

	in := s.input
	in.changes = changes{}
	var read seen
	var all [2]bool
	in.changes.hops, read.hops, all[0] = s.moved.Since(s.seen.hops)
	in.changes.checks, read.health, all[1] = s.observed.Since(s.seen.health)
	in.changes.all = all[0] || all[1]
	got, err := s.compiler.compile(in)
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	s.seen = read
	s.shared += len(s.config.Services) - len(got.touched)
	for _, key := range got.noWays {
		delete(s.ways, key)
	}
	maps.Copy(s.ways, got.ways)

	in.changes = changes{all: true}
	want, err := scratch.compile(in)
	if err != nil {
		s.t.Fatalf("%s: from scratch: %v", what, err)
	}
	if a, b := s.meaning(got), s.meaning(want); a != b {
		s.t.Fatalf("%s: %s\n\nfrom scratch: %s", what, firstDifference(a, b), firstDifference(b, a))
	}
	if !maps.Equal(s.ways, want.ways) {
		s.t.Fatalf("%s: ways are %v, from scratch %v", what, s.ways, want.ways)
	}
	backends := members(s.config)
	if len(backends) != len(s.compiler.paces.current) {
		s.t.Fatalf("%s: the paces of %d backends are remembered, and there are %d", what, len(s.compiler.paces.current), len(backends))
	}
	for _, m := range backends {
		if is, want := s.compiler.paces.current[m], scratch.paces.current[m]; is != want {
			s.t.Fatalf("%s: pace of %v is %v, from scratch %v", what, m, is, want)
		}
	}
	s.checkSlots(what, got)
	s.before = got
}

// refuse has a configuration compiled that is none: two services have one port.
func (s *shifting) refuse() {
	bad := *s.config
	bad.Services = append(slices.Clone(bad.Services), bad.Services[0])
	last := &bad.Services[len(bad.Services)-1]
	last.Name = "twice"
	last.Backends = append(slices.Clone(last.Backends), config.Backend{Address: netip.MustParseAddr("10.0.0.99"), Weight: 1})
	in := s.input
	in.config = &bad
	if _, err := s.compiler.compile(in); err == nil {
		s.t.Fatal("a configuration with two services on a port was compiled")
	}
	s.refused++
}

// checkSlots looks at what must hold of slots from one snapshot to the next.
func (s *shifting) checkSlots(what string, out output) {
	s.t.Helper()
	now := make(map[slotKey]slot)
	for i := range s.config.Services {
		keys(&s.config.Services[i], func(key slotKey) { now[key] = s.compiler.slots.used[key].slot }, func(serviceKey) {})
	}
	if len(now) != len(s.compiler.slots.used) {
		s.t.Fatalf("%s: %d slots are in use, %d are needed", what, len(s.compiler.slots.used), len(now))
	}
	for key, is := range now {
		if was, there := s.slots[key]; there && was != is {
			s.t.Fatalf("%s: the slot of %v was %v and is %v", what, key, was, is)
		}
	}
	s.slots = now
	used := make(map[uint32]bool)
	for _, is := range now {
		used[is.number] = true
	}
	for n := range uint32(out.snap.Slots()) {
		b := out.snap.Backend(n)
		if _, known := out.view.Slot(uint32(n), b.Generation); known != used[uint32(n)] || !known && (b.State != snapshot.Removed || b.Service != snapshot.None) {
			s.t.Fatalf("%s: slot %d is used: %t, and is %+v", what, n, used[uint32(n)], b)
		}
	}
	if s.before.snap == nil {
		return
	}
	changed, all := out.snap.Changes(s.before.snap)
	for n := range uint32(out.snap.Slots()) {
		is := out.snap.Backend(n).Generation
		if was := int(n) < s.before.snap.Slots() && s.before.snap.Backend(n).Generation == is; !was && !all && !slices.Contains(changed, uint32(n)) {
			s.t.Fatalf("%s: slot %d has changed hands, and Changes does not say so", what, n)
		}
	}
	if all {
		s.t.Fatalf("%s: Changes knows nothing of the snapshot before", what)
	}
}

// meaning is what an output says, without the numbers that slots happen to have.
func (s *shifting) meaning(out output) string {
	var b strings.Builder
	snap := out.snap
	services := make(map[uint32]string)
	claim := func(proto string, service uint32, port uint16) {
		if service == snapshot.None {
			return
		}
		if services[service] == "" {
			services[service] = s.leadsTo(out, service)
		}
		fmt.Fprintln(&b, proto, port, services[service])
	}
	fmt.Fprintln(&b, "next", out.next, "SNAT", snap.SNAT4, snap.SNAT6, snap.NewFlows, snap.Interfaces)
	for _, a := range VIPs(s.config) {
		addr := packet.Addr16(a)
		vip := snap.VIP(&addr)
		fmt.Fprintln(&b, "VIP", a, vip.Policy)
		if vip.Spread != nil {
			fmt.Fprintln(&b, "  spread", vip.Spread.Members, digest(len(vip.Spread.Table), func(n int) any { return vip.Spread.Table[n] }))
		}
		for port := uint16(990); port < 1020; port++ {
			claim("  tcp ", vip.Service(packet.ProtoTCP, port), port)
		}
		for port := uint16(1995); port < 2100; port++ {
			claim("  udp ", vip.Service(packet.ProtoUDP, port), port)
		}
	}
	sources := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")}
	for n := range 16 {
		a := netip.MustParseAddr(backendText(n))
		addr := packet.Addr16(a)
		for _, port := range []uint16{1000, 1001, 1003, 1005, 1008} {
			fmt.Fprintln(&b, "answer", a, port, snap.IsAnswer(&addr, packet.ProtoTCP, port))
		}
		for _, source := range sources {
			src := packet.Addr16(source)
			fmt.Fprintln(&b, "tunnel", a, source, snap.IsTunnel(&src, &addr))
		}
	}
	answers := make(map[string]bool)
	for _, a := range out.set.Answers {
		answers[fmt.Sprint(a)] = true
	}
	fmt.Fprintln(&b, "set", out.set.VIPs, out.set.Shared, out.set.Local, out.set.Tunnels, slices.Sorted(maps.Keys(answers)))
	for i := range out.view.Services {
		v := &out.view.Services[i]
		if v.Service != &s.config.Services[i] {
			s.t.Fatal("the view is of another configuration")
		}
		for _, be := range v.Backends {
			var slots []string
			for _, ref := range be.Slots {
				is := *snap.Backend(ref.Number)
				if is.Generation != ref.Generation {
					s.t.Fatalf("%s: slot %v has generation %d", be.Address, ref, is.Generation)
				}
				is.Generation, is.Service = 0, 0
				slots = append(slots, fmt.Sprintf("%+v of %s %v", is, snap.Services[snap.Backend(ref.Number).Service].Name, snap.Services[snap.Backend(ref.Number).Service].Mode))
			}
			be.Slots = nil
			fmt.Fprintf(&b, "%s %+v %q\n", v.Name, be, slots)
		}
	}
	fmt.Fprintln(&b, out.view.SNAT)
	for _, a := range out.view.Addresses {
		fmt.Fprintf(&b, "%+v\n", a)
	}
	return b.String()
}

// leadsTo says what a service of a snapshot does.
func (s *shifting) leadsTo(out output, index uint32) string {
	svc := &out.snap.Services[index]
	denied := packet.Addr16(netip.MustParseAddr("192.0.2.7"))
	backend := func(slot uint32) any {
		is := out.snap.Backend(slot)
		if is.Service != index || is.State != snapshot.Active {
			s.t.Fatalf("%s: slot %d is not active for service %d: %+v", svc.Name, slot, index, is)
		}
		use, _ := out.view.Slot(slot, is.Generation)
		if use.Service != svc.Name || packet.Addr16(use.Backend) != is.Addr {
			s.t.Fatalf("%s: slot %d is said to be of %v", svc.Name, slot, use)
		}
		return use.Backend
	}
	table := digest(len(svc.Table), func(n int) any { return backend(svc.Members[svc.Table[n]]) })
	return fmt.Sprintln(svc.Name, svc.Mode, svc.Affinity, svc.AffinityBits, svc.Empty, svc.Limits, svc.Guarded(), svc.Spread(),
		svc.ACL.Allows(&denied), len(svc.Members), table)
}

func digest(n int, of func(int) any) uint64 {
	h := fnv.New64a()
	texts := make(map[any]string)
	for i := range n {
		is := of(i)
		if texts[is] == "" {
			texts[is] = fmt.Sprintln(is)
		}
		h.Write([]byte(texts[is]))
	}
	return h.Sum64()
}

// firstDifference returns the first line of a that is not as in b.
func firstDifference(a, b string) string {
	other := strings.Split(b, "\n")
	for i, line := range strings.Split(a, "\n") {
		if i >= len(other) || other[i] != line {
			return line
		}
	}
	return "(nothing)"
}
