package appliance

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weir/controlplane/api"
	"weir/controlplane/config"
	"weir/controlplane/reconcile"
	"weir/controlplane/reserve"
	"weir/dataplane/nat"
)

// Reload reads the configuration file again and puts its services in force. If
// anything is wrong with it, or it changes what only a restart can change,
// nothing happens.
func (a *Appliance) Reload() (api.Reloaded, error) {
	a.reload.Lock()
	defer a.reload.Unlock()
	before := a.reconciler.Config()
	host, err := thisHost(before.Interfaces)
	if err != nil {
		return api.Reloaded{}, err
	}
	cfg, found, err := config.Load(a.opt.ConfigPath, &host)
	l, err := reload(cfg, found, err, &host, a.addresses.given())
	if err != nil {
		return api.Reloaded{}, err
	}
	cfg = l.cfg
	warnings := append(l.warnings, fewPorts(cfg, a.workerCount())...)
	for _, w := range warnings {
		a.log.Warn(w)
	}
	diff := reconcile.DiffOf(before, cfg)
	if fixed := diff.Fixed(); len(fixed) > 0 {
		return api.Reloaded{}, fmt.Errorf("%s changed, which needs a restart; nothing was reloaded", strings.Join(fixed, ", "))
	}
	if err := a.putInForce(before, l); err != nil {
		return api.Reloaded{}, err
	}
	generation := a.View().Generation
	a.log.Info("configuration reloaded", "file", a.opt.ConfigPath, "services", len(cfg.Services), "generation", generation,
		"added", diff.Count(reconcile.Added), "changed", diff.Count(reconcile.Changed), "removed", diff.Count(reconcile.Removed),
		"vips_added", len(diff.VIPsAdded), "vips_removed", len(diff.VIPsRemoved), "sections", strings.Join(diff.Sections, ","))
	return api.Reloaded{Generation: generation, Warnings: warnings}, nil
}

// putInForce puts a configuration in force, or leaves the old one. Announcers know
// the pools of both while addresses change hands, so that none is announced in
// another way than one of the two says.
func (a *Appliance) putInForce(before *config.Config, l loaded) error {
	after := l.cfg
	if err := a.configure(after, before); err != nil {
		return err
	}
	inForce := after
	err := a.putServices(before, after)
	if err != nil {
		inForce = before
	} else {
		a.addresses.put(l.given)
	}
	if err := a.configure(inForce, inForce); err != nil {
		a.log.Error("cannot configure the announcers", "error", err)
	}
	return err
}

// configure tells the announcers what a configuration says about its pools and
// peers, and about the pools that only the other one has.
func (a *Appliance) configure(cfg, other *config.Config) error {
	if a.bgp != nil {
		if err := a.bgp.Configure(withPools(bgpConfig(cfg, a.routerID), bgpConfig(other, a.routerID).Pools)); err != nil {
			return err
		}
	}
	c := l2Config(cfg)
	for name, pool := range l2Config(other).Pools {
		if _, stays := c.Pools[name]; !stays {
			c.Pools[name] = pool
		}
	}
	a.l2.Configure(c)
	return nil
}

// putServices keeps what is reserved in the kernel ahead of what is used.
func (a *Appliance) putServices(before, after *config.Config) error {
	if err := a.reserved.Update(append(shared(before), shared(after)...)); err != nil {
		return fmt.Errorf("nat.shared.ports: %w", err)
	}
	inForce := after
	err := a.reconciler.SetConfig(after)
	if err != nil {
		inForce = before
	}
	if err := a.reserved.Update(shared(inForce)); err != nil {
		a.log.Warn("ports stay reserved that weir does not use any more", "error", err)
	}
	return err
}

// shared returns the ports that weir has of the box's own addresses.
func shared(cfg *config.Config) []reserve.Range {
	if len(cfg.NAT.Shared.Addresses) == 0 {
		return nil
	}
	return []reserve.Range{{Lo: cfg.NAT.Shared.Ports.Lo, Hi: cfg.NAT.Shared.Ports.Hi}}
}

// reserve keeps weir's ports of the box's own addresses from the kernel.
func (a *Appliance) reserve(cfg *config.Config) error {
	var err error
	if a.reserved, err = reserve.Reserve(runDir(cfg), shared(cfg), a.log); err != nil {
		return fmt.Errorf("nat.shared.ports: %w", err)
	}
	return nil
}

func (a *Appliance) release() {
	if err := a.reserved.Close(); err != nil {
		a.log.Error("ports stay reserved in net.ipv4.ip_local_reserved_ports; the next weir will release them", "error", err)
	}
}

// mostSockets is how many sockets are named in one warning.
const mostSockets = 8

// socketsOn names the box's sockets that have ports of weir's already; "" if there
// are none.
func socketsOn(ranges []reserve.Range) string {
	sockets, err := reserve.InUse(ranges)
	switch {
	case err != nil:
		return fmt.Sprintf("warning: cannot tell whether nat.shared.ports are in use: %v", err)
	case len(sockets) == 0:
		return ""
	}
	var texts []string
	for _, s := range sockets[:min(len(sockets), mostSockets)] {
		texts = append(texts, s.String())
	}
	if more := len(sockets) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("warning: sockets of this box have ports of nat.shared: %s; what comes to them on a shared address goes to weir; want other ports, for them or for weir", strings.Join(texts, ", "))
}

// fewPorts says for which SNAT addresses there is not a block of ports for every
// worker: one that has none refuses all flows that it is to give a port of that
// address.
func fewPorts(cfg *config.Config, workers int) (warnings []string) {
	note := func(key string, addresses []netip.Addr, ports config.PortRange) {
		have, want := int(ports.Hi)-int(ports.Lo)+1, nat.BlockPorts*workers
		if len(addresses) > 0 && have < want {
			warnings = append(warnings, fmt.Sprintf("warning: %s: %d ports are too few for %d workers, which take %d at a time: those that get none refuse new flows; want %d at least", key, have, workers, nat.BlockPorts, want))
		}
	}
	note("nat.ports", cfg.NAT.Addresses, cfg.NAT.Ports)
	note("nat.shared.ports", cfg.NAT.Shared.Addresses, cfg.NAT.Shared.Ports)
	return warnings
}

// workerCount returns how many workers there are now.
func (a *Appliance) workerCount() (n int) {
	for _, i := range a.Interfaces() {
		n += i.Workers
	}
	return n
}

// Plan implements api.Appliance.
func (a *Appliance) Plan(name string, text []byte) (*reconcile.Plan, []string, error) {
	host, err := thisHost(a.reconciler.Config().Interfaces)
	if err != nil {
		return nil, nil, err
	}
	cfg, found, err := config.Parse(name, text, &host)
	l, err := reload(cfg, found, err, &host, a.addresses.given())
	if err != nil {
		return nil, nil, err
	}
	p, err := a.reconciler.Plan(l.cfg)
	return p, l.warnings, err
}

// Drain implements api.Appliance.
func (a *Appliance) Drain(backend netip.Addr, service string, over time.Duration) ([]string, error) {
	names, err := a.reconciler.Drain(backend, service, over)
	if err == nil {
		a.log.Info("drain", "backend", backend, "services", strings.Join(names, ","), "over", over)
	}
	return names, err
}

// Undrain implements api.Appliance.
func (a *Appliance) Undrain(backend netip.Addr, service string) ([]string, error) {
	names, err := a.reconciler.Undrain(backend, service)
	if err == nil {
		a.log.Info("undrain", "backend", backend, "services", strings.Join(names, ","))
	}
	return names, err
}
