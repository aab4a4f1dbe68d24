package ladder

// What is to be reached, in ns per packet: of weir's own work, DSR of IPv4, all
// packets of known flows.
var hitTargets = map[uint32]float64{1 << 10: 30, 1 << 16: 60, 1 << 20: 90}

const (
	tunnelMore = 10 // than DSR in the same run
	natMore    = 25
	ipv6More   = 15

	missTarget = 150 // in any mode

	// servicesMore is how much more than one service others may take.
	servicesMore = 1.10
)

// target returns what a cell's own work is to be at most, 0 if nothing is said of
// it.
func (r *Report) target(c Cell) float64 {
	switch {
	case c.Rung == Miss:
		return missTarget
	case c.Rung != Hit || c.Scattered:
		return 0
	case c.Services > 1:
		one := c
		one.Services = 1
		row, _ := r.Row(one)
		return row.Own.Median * servicesMore
	case hitTargets[c.Flows] == 0 || c.Backends != usualBackends:
		return 0
	case c.Mode == DSR4:
		return hitTargets[c.Flows]
	}
	dsr := c
	dsr.Mode = DSR4
	row, ok := r.Row(dsr)
	if !ok {
		return 0
	}
	target := row.Own.Median
	if c.Mode.tunnel() {
		target += tunnelMore
	}
	if c.Mode.nat() {
		target += natMore
	}
	if c.Mode.client6() || c.Mode.backend6() {
		target += ipv6More
	}
	return target
}
