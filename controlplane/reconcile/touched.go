package reconcile

import (
	"maps"
	"net/netip"
	"runtime"
	"strings"

	"weir/dataplane/affinity"
)

// take takes over the parts that can stay as they are, and finds out which services
// have to be compiled (again).
func (c *compilation) take() {
	services := c.in.config.Services
	c.parts = make([]*part, len(services))
	if c.last == nil {
		for n := range services {
			c.touched = append(c.touched, n)
		}
		return
	}
	touched := c.touchedServices()
	if c.last.layout == c.layout {
		copy(c.parts, c.last.parts)
	} else {
		here := make(map[string]bool, len(services))
		for n := range services {
			s := &services[n]
			here[s.Name] = true
			old, known := c.last.layout.byName[s.Name]
			if !known {
				continue
			}
			p := c.last.parts[old]
			touched[n] = touched[n] || !sameService(p.config, s)
			if !touched[n] && p.config != s {
				moved := *p
				moved.config = s // or the old configuration would be kept in memory
				p = &moved
			}
			c.parts[n] = p
		}
		for _, p := range c.last.parts {
			if !here[p.config.Name] {
				c.before = append(c.before, p)
			}
		}
	}
	for n, p := range c.parts {
		if p != nil && !touched[n] {
			c.wake(p.next)
			continue
		}
		c.touched = append(c.touched, n)
		if p != nil {
			c.before = append(c.before, p)
		}
	}
}

// touchedServices says which services depend on something that is not as it was in
// the latest compilation, apart from what is configured for them.
func (c *compilation) touchedServices() []bool {
	services := c.in.config.Services
	touched := make([]bool, len(services))
	if c.in.changes.all || !c.world.is(&c.last.world) {
		for n := range touched {
			touched[n] = true
		}
		return touched
	}
	backend := func(a netip.Addr) { c.layout.members.each(a, func(n int) { touched[n] = true }) }
	for _, a := range c.in.changes.hops {
		backend(a)
	}
	different(c.last.mtus, c.in.mtus, backend)

	names := make(map[string]bool)
	for _, id := range c.in.changes.checks {
		name, _, _ := strings.Cut(id, " ") // see checkID; a name has no spaces
		names[name] = true
	}
	different(c.last.drains, c.in.drains, func(m member) { names[m.service] = true })
	for _, p := range c.last.parts {
		if !p.next.IsZero() && !c.in.now.Before(p.next) {
			names[p.config.Name] = true
		}
	}
	for name := range names {
		if n, there := c.layout.byName[name]; there {
			touched[n] = true
		}
	}
	return touched
}

// different calls do with each key that two maps have not the same for.
func different[K, V comparable](before, after map[K]V, do func(K)) {
	if maps.Equal(before, after) {
		return
	}
	for key, v := range before {
		if now, there := after[key]; !there || now != v {
			do(key)
		}
	}
	for key := range after {
		if _, there := before[key]; !there {
			do(key)
		}
	}
}

// cores returns how many cores may be used to build tables: all while there is no
// traffic, and then no more than workers leave.
func (c *compilation) cores() int {
	given := runtime.NumCPU() // in the beginning
	cores := min(given, runtime.GOMAXPROCS(0))
	if allowed, err := affinity.Allowed(); err == nil && len(allowed) < given {
		return min(cores, len(allowed)) // workers have their CPUs for themselves
	}
	if c.last == nil {
		return cores
	}
	for i := range c.in.interfaces {
		cores -= c.in.interfaces[i].Workers
	}
	return max(cores, 1)
}
