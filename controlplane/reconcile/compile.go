package reconcile

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/engine"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

// input is all that a snapshot depends on.
type input struct {
	config     *config.Config
	hops       map[netip.Addr]nexthop.Hop
	health     func(check string) health.Result
	changes    changes // of hops and health
	interfaces []engine.InterfaceStatus
	own        []nexthop.Address              // the box's own addresses
	nodes      []netip.Addr                   // addresses of the other nodes
	stances    map[netip.Addr]announce.Stance // of VIPs and SNAT addresses on links; nil: this node answers for all
	mtus       map[netip.Addr]int
	drains     map[member]Drain
	now        time.Time

	// snatSlots says which slots of nat.Space SNAT addresses have, or will have
	// once the snapshot is put in force.
	snatSlots func(addrs [][16]byte) ([]uint16, error)

	// settled asks for how things will be in the end: backends that nobody has
	// looked for yet are taken as found, and what has begun (a drain, a slow
	// start) as over.
	settled bool
}

// changes is what of an input is not as in the latest compilation that was a
// success.
type changes struct {
	all    bool // anything may be
	hops   []netip.Addr
	checks []string
}

// output is what is made of an input.
type output struct {
	snap *snapshot.Snapshot
	view *View
	set  steer.Set
	next time.Time // when the same input but for now would make another; zero for never

	// ways are those that are new or another, by what a check calls it, and noWays
	// those that have gone.
	ways   map[string]via.Way
	noWays []string

	touched []int // services that were compiled again, by index in the configuration
}

// compiler turns input into snapshots. It remembers from one to the next what
// has to stay the same, and all that need not be made again.
type compiler struct {
	slots      *slots[slotKey]
	services   *slots[serviceKey]
	tables     *tables
	paces      *paces
	acls       *acls
	announced  map[netip.Addr]bool   // VIPs that could be served
	homes      map[netip.Addr]string // the interface that each next hop for routers was last on
	generation uint64
	last       *last // nil before the first
}

// last is the latest compilation that was a success. It is never changed.
type last struct {
	layout *layout
	world  surroundings
	parts  []*part // by index in the configuration
	mtus   map[netip.Addr]int
	drains map[member]Drain
	snat   []snapshot.SNAT // that snap was built from
	snap   *snapshot.Snapshot
	view   *View
}

func newCompiler() *compiler {
	return &compiler{
		slots: newSlots[slotKey](), services: newSlots[serviceKey](),
		tables: newTables(), paces: newPaces(), acls: newACLs(), homes: make(map[netip.Addr]string),
	}
}

// clone returns a compiler that remembers the same, to try something out with.
func (c *compiler) clone() *compiler {
	return &compiler{
		slots: c.slots.clone(), services: c.services.clone(),
		tables: &tables{current: c.tables.current}, paces: c.paces.clone(),
		acls: newACLs(), announced: c.announced, homes: maps.Clone(c.homes), generation: c.generation, last: c.last,
	}
}

// compilation is one snapshot in the making.
type compilation struct {
	*compiler
	in       input
	layout   *layout
	world    surroundings
	egress   map[string]uint16 // interface name to index
	spec     snapshot.Spec
	view     *View
	next     time.Time
	parts    []*part
	touched  []int    // of parts that are made now
	before   []*part  // what they were made of before, and parts that have gone
	placed   []placed // of parts that are made now
	unshared []unshared
	ways     map[string]via.Way
	awake    []bool // VIPs, by number, that have a backend that gets new flows
}

// compile builds the snapshot for in and the view that explains it. An error
// leaves the compiler as it was after the latest snapshot.
//
// Services are compiled again if something of theirs has changed, and only these:
// all else is taken from the latest snapshot. What remains to be done for every
// service and VIP is little.
func (c *compiler) compile(in input) (output, error) {
	c.generation++
	c.slots.begin()
	c.services.begin()
	c.tables.begin()
	c.paces.begin()
	run := newCompilation(c, in)
	out, err := run.run()
	if err != nil {
		c.slots.drop()
		c.services.drop()
		return output{}, err
	}
	c.slots.keep()
	c.services.keep()
	c.tables.keep()
	c.paces.keep(run.before)
	c.keepAnnounced(run.view.Addresses)
	c.last = &last{
		layout: run.layout, world: run.world, parts: run.parts, mtus: in.mtus, drains: maps.Clone(in.drains),
		snat: run.spec.SNAT, snap: out.snap, view: out.view,
	}
	return out, nil
}

func newCompilation(c *compiler, in input) *compilation {
	run := &compilation{
		compiler: c,
		in:       in,
		world:    worldOf(&in),
		egress:   make(map[string]uint16),
		spec:     snapshot.Spec{Generation: c.generation, NewFlows: rate(in.config.Flows.NewRate)},
		view:     &View{Generation: c.generation},
		ways:     make(map[string]via.Way),
	}
	if c.last != nil && c.last.layout.config == in.config {
		run.layout = c.last.layout
	} else {
		run.layout = layoutOf(in.config)
	}
	for i, ifc := range in.interfaces {
		run.egress[ifc.Name] = uint16(i)
		run.spec.Interfaces = append(run.spec.Interfaces, snapshot.Interface{Name: ifc.Name, MAC: ifc.MAC, MTU: uint32(ifc.MTU)})
	}
	for _, a := range in.own {
		run.spec.Nodes = append(run.spec.Nodes, packet.Addr16(a.Prefix.Addr()))
	}
	for _, a := range in.nodes {
		run.spec.Nodes = append(run.spec.Nodes, packet.Addr16(a))
	}
	return run
}

func (c *compilation) run() (output, error) {
	errs := []error{c.snat()}
	c.take()
	for _, n := range c.touched {
		c.parts[n] = c.part(n)
	}
	c.tables.build(c.cores())
	for i := range c.unshared {
		errs = append(errs, c.unshared[i].share())
	}
	errs = append(errs, c.spreads())
	if err := errors.Join(errs...); err != nil {
		return output{}, err
	}
	c.assemble()
	snap, err := snapshot.New(c.spec)
	if err != nil {
		return output{}, err
	}
	out := output{snap: snap, view: c.view, set: c.steerSet(), next: c.next, ways: c.ways, touched: c.touched}
	for _, p := range c.before {
		out.noWays = append(out.noWays, noWays(p.config, c.ways)...)
	}
	return out, nil
}

// wake says that there will be something to do at a moment, if it is one.
func (c *compilation) wake(at time.Time) { c.next = sooner(c.next, at) }

func (c *compiler) keepAnnounced(addresses []Address) {
	same := len(addresses) == len(c.announced)
	for i := 0; same && i < len(addresses); i++ {
		ready, known := c.announced[addresses[i].Address]
		same = known && ready == addresses[i].Ready
	}
	if same {
		return
	}
	c.announced = make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		c.announced[a.Address] = a.Ready
	}
}

// surroundings is what every service depends on.
type surroundings struct {
	ipip       config.IPIP
	pathMTU    config.PathMTU
	workers    int // of the interface that has the most
	settled    bool
	interfaces []egress
}

type egress struct {
	name     string
	workable bool
}

func worldOf(in *input) surroundings {
	w := surroundings{ipip: in.config.IPIP, pathMTU: in.config.PathMTU, settled: in.settled}
	for _, i := range in.interfaces {
		w.workers = max(w.workers, i.Workers)
		w.interfaces = append(w.interfaces, egress{i.Name, workable(i)})
	}
	return w
}

func (w *surroundings) is(o *surroundings) bool {
	return w.ipip == o.ipip && w.pathMTU == o.pathMTU && w.workers == o.workers && w.settled == o.settled &&
		slices.Equal(w.interfaces, o.interfaces)
}
