package appliance

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weir/controlplane/cluster"
	"weir/controlplane/config"
	"weir/controlplane/ipam"
)

// allocationsTopic is what allocations are published to the cluster under.
const allocationsTopic = "ipam"

// addresses knows which service has which addresses of pools.
type addresses struct {
	log     *slog.Logger
	store   *ipam.Store
	cluster *cluster.Cluster // nil for none

	mu     sync.Mutex
	result ipam.Result // in force
	silent bool        // nothing has been published yet: the others may have given addresses before

	// fresh are addresses that this process gave before it heard of other nodes.
	// Those of the others count first, whatever this box's clock says.
	fresh map[claim]bool
}

// claim is a service's to an address.
type claim struct {
	service string
	address netip.Addr
}

// allocate gives the services of a configuration that ask for them addresses from
// pools. existing is what they have. host is what the addresses are held against.
// The configuration that is returned is complete if the error is nil, or one that
// [ipam.Tolerate] tolerates.
func allocate(cfg *config.Config, existing []ipam.Allocation, host *config.Host) (*config.Config, ipam.Result, error) {
	result, failed := ipam.Allocate(ipamPools(cfg), ipamRequests(cfg), existing, time.Now())
	if _, rest := ipam.Tolerate(failed); rest != nil {
		return nil, result, rest
	}
	cfg = cfg.WithAddresses(result.Addresses)
	if err := cfg.CheckAddresses(host); err != nil {
		return nil, result, err
	}
	return cfg, result, failed
}

func ipamPools(cfg *config.Config) []ipam.Pool {
	var pools []ipam.Pool
	for _, p := range cfg.Pools {
		pool := ipam.Pool{
			Name: p.Name, AutoAssign: p.AutoAssign, AvoidBuggy: p.AvoidBuggyIPs, Priority: p.Priority, Selector: p.Selector,
		}
		for _, r := range p.Ranges {
			pool.Ranges = append(pool.Ranges, ipam.Range(r))
		}
		pools = append(pools, pool)
	}
	return pools
}

func ipamRequests(cfg *config.Config) []ipam.Request {
	var requests []ipam.Request
	for i := range cfg.Services {
		s := &cfg.Services[i]
		r := ipam.Request{Service: s.Name, Pool: s.Pool, Labels: s.Labels, Share: s.Share}
		if !s.Allocated() {
			r.Addresses = s.Addresses
		}
		for _, f := range s.Families {
			family := ipam.IPv4
			if f == config.IPv6 {
				family = ipam.IPv6
			}
			r.Families = append(r.Families, family)
		}
		for _, p := range s.Ports {
			r.Ports = append(r.Ports, ipam.Port{Proto: uint8(p.Proto), Lo: p.Lo, Hi: p.Hi})
		}
		requests = append(requests, r)
	}
	return requests
}

// given returns what services have.
func (a *addresses) given() []ipam.Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.result.Allocations
}

// usage returns how full each pool is.
func (a *addresses) usage() []ipam.Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.result.Usage
}

// put says that the services have these addresses from now on: it keeps them over
// a restart, and tells the other nodes.
func (a *addresses) put(result ipam.Result) {
	a.mu.Lock()
	same := slices.Equal(a.result.Allocations, result.Allocations)
	a.result = result
	a.mu.Unlock()
	if same {
		return // to say so again would have the other nodes answer, and so on
	}
	a.save(result)
	a.publish()
}

func (a *addresses) save(result ipam.Result) {
	if err := a.store.Save(result.Allocations); err != nil {
		a.log.Warn("cannot keep which addresses were given to services", "error", err)
	}
}

// publish tells the other nodes what services have.
func (a *addresses) publish() {
	a.mu.Lock()
	result, silent := a.result, a.silent
	a.mu.Unlock()
	if a.cluster == nil || silent {
		return
	}
	text, err := json.Marshal(result.Allocations)
	if err != nil {
		a.log.Error("cannot tell other nodes which addresses were given to services", "error", err)
		return
	}
	a.cluster.Publish(allocationsTopic, text)
}

// others returns what the services of a configuration have on other nodes.
func (a *addresses) others(cfg *config.Config) []ipam.Allocation {
	var all []ipam.Allocation
	for _, m := range a.cluster.Members() {
		text := m.State[allocationsTopic]
		if m.Self || len(text) == 0 {
			continue
		}
		var theirs []ipam.Allocation
		if err := json.Unmarshal(text, &theirs); err != nil {
			a.log.Warn("cannot read which addresses another node has given to services", "node", m.Name, "error", err)
			continue
		}
		all = append(all, ipam.Valid(ipamPools(cfg), ipamRequests(cfg), theirs)...)
	}
	return all
}

// hearTime is how long a node that starts waits for the others to say which
// addresses they have given, before it says anything itself.
const hearTime = 2 * time.Second

// agree comes to the same addresses as the other nodes, whenever they have
// something to say: for each service, those that were given first.
func (a *Appliance) agree(ctx context.Context) error {
	if a.cluster == nil {
		return nil
	}
	changes := a.cluster.Subscribe()
	alone := time.After(hearTime)
	trouble := ""
	for {
		others := slices.ContainsFunc(a.cluster.Members(), func(m cluster.Member) bool { return !m.Self && m.Alive && m.Current })
		text := ""
		if err := a.adoptAddresses(); err != nil {
			text = err.Error()
		}
		if text != trouble && text != "" {
			a.log.Error("cannot take over addresses of services from other nodes", "error", text)
		}
		trouble = text
		if others {
			a.addresses.speak()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-alone:
			a.addresses.settle()
			a.addresses.speak()
		case <-changes:
		}
	}
}

// speak publishes what was held back.
func (a *addresses) speak() {
	a.mu.Lock()
	silent := a.silent
	a.silent = false
	a.mu.Unlock()
	if silent {
		a.publish()
	}
}

// begin takes in what services have at the start, of which they had some before.
func (a *addresses) begin(result ipam.Result, had []ipam.Allocation) {
	a.silent, a.fresh = true, make(map[claim]bool)
	for _, g := range result.Allocations {
		if !slices.ContainsFunc(had, func(h ipam.Allocation) bool { return h.Service == g.Service && h.Address == g.Address }) {
			a.fresh[claim{g.Service, g.Address}] = true
		}
	}
	a.put(result)
}

// claims returns what services have here, for others to be held against: what is
// fresh is younger than anything of theirs.
func (a *addresses) claims(others []ipam.Allocation) []ipam.Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	given := slices.Clone(a.result.Allocations)
	var latest time.Time
	for _, o := range others {
		if o.Since.After(latest) {
			latest = o.Since
		}
	}
	for i := range given {
		if a.fresh[claim{given[i].Service, given[i].Address}] && !given[i].Since.After(latest) {
			given[i].Since = latest.Add(time.Nanosecond)
		}
	}
	return given
}

// settle says that what services have has been held against what others say, or
// that there was nobody to say anything.
func (a *addresses) settle() {
	a.mu.Lock()
	a.fresh = nil
	a.mu.Unlock()
}

func (a *Appliance) adoptAddresses() error {
	a.reload.Lock()
	defer a.reload.Unlock()
	before := a.reconciler.Config()
	others := a.addresses.others(before)
	if len(others) == 0 {
		return nil
	}
	given := a.addresses.claims(others)
	host, err := thisHost(before.Interfaces)
	if err != nil {
		return err
	}
	cfg, result, err := allocate(before, slices.Concat(given, others), &host)
	if err != nil {
		return err
	}
	if sameAddresses(given, result.Allocations) {
		a.addresses.put(result) // it may know since when better
		a.addresses.settle()
		return nil
	}
	if err := a.reconciler.SetConfig(cfg); err != nil {
		return err
	}
	a.addresses.put(result)
	a.addresses.settle()
	for _, g := range result.Allocations {
		i := slices.IndexFunc(given, func(was ipam.Allocation) bool {
			return was.Service == g.Service && ipam.FamilyOf(was.Address) == ipam.FamilyOf(g.Address)
		})
		if i < 0 || given[i].Address != g.Address {
			var was netip.Addr
			if i >= 0 {
				was = given[i].Address
			}
			a.log.Info("service has another address, as other nodes gave it that one before", "service", g.Service, "address", g.Address, "was", was)
		}
	}
	return nil
}

func sameAddresses(a, b []ipam.Allocation) bool {
	return slices.EqualFunc(a, b, func(x, y ipam.Allocation) bool { return x.Service == y.Service && x.Address == y.Address })
}
