package demo

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weir/controlplane/api"
	"weir/lab/pair"
	"weir/lab/router"
	"weir/lab/site"
)

// What the network is like. The last backend has half the weight of the others,
// so that shares are seen to follow weights.
const (
	backends    = 3
	serviceDSR  = "web-dsr"
	serviceIPIP = "web-ipip"
	lightWeight = 50
)

// What happens when, in twelfths of the duration.
const (
	stopAt   = 2
	returnAt = 4
	killAt   = 6
	reviveAt = 9
	endAt    = 12
)

// Bounds of polling while something is awaited, and of what is read then.
const (
	watchInterval = 50 * time.Millisecond
	flowLimit     = 100000
)

// configure replaces the services of a weir, one for each mode and family, by
// two with both families. Through the tunnels of web-ipip, IPv4 carries both.
func (d *Demo) configure(c *site.Config) {
	health := &site.Health{
		HTTP:     &site.HTTPCheck{Path: "/healthz", Port: site.HealthPort},
		Interval: "300ms", Timeout: "300ms", Rise: 2, Fall: 3,
	}
	p := d.pair
	ports := []string{fmt.Sprintf("tcp/%d", p.DSR4.Port()), fmt.Sprintf("tcp/%d", site.StreamPort)}
	dsr := site.Service{Name: serviceDSR, Mode: "dsr", Health: health,
		Addresses: []string{p.DSR4.Addr().String(), p.DSR6.Addr().String()}, Ports: ports}
	ipip := site.Service{Name: serviceIPIP, Mode: "ipip", Health: health,
		Addresses: []string{p.IPIP4.Addr().String(), p.IPIP6.Addr().String()}, Ports: ports}
	for _, b := range p.Backends {
		dsr.Add(b.Addr4)
		ipip.Add(b.Addr4)
	}
	for _, b := range p.Backends {
		dsr.Add(b.Addr6)
	}
	last := p.Backends[len(p.Backends)-1]
	dsr.SetWeight(last.Addr4, lightWeight)
	dsr.SetWeight(last.Addr6, lightWeight)
	ipip.SetWeight(last.Addr4, lightWeight)
	c.Services = []site.Service{dsr, ipip}
}

// brief shortens a configuration: of the backends of a service, the first and
// the last are shown.
func brief(text string) string {
	var out, backends []string // backends have the lines of each from "- address" on
	inService := false
	end := func() {
		if n := len(backends); n > 2 {
			dash := strings.Index(backends[0], "-")
			backends = []string{backends[0], backends[0][:dash] + "...", backends[n-1]}
		}
		out, backends = append(out, backends...), nil
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		if line != "" && line[0] != ' ' {
			inService = line == "services:"
		}
		n := len(backends)
		switch {
		case inService && strings.HasPrefix(strings.TrimSpace(line), "- address:"):
			backends = append(backends, line)
		case n > 0 && strings.HasPrefix(line, backends[0][:strings.Index(backends[0], "-")]+" "):
			backends[n-1] += "\n" + line
		default:
			end()
			out = append(out, line)
		}
	}
	end()
	return strings.Join(out, "\n") + "\n"
}

// scenario is what happens when: first a backend dies and comes back, and in
// the middle a weir is killed, which comes back later.
type scenario struct {
	demo     *Demo
	duration time.Duration
	evidence evidence
}

// begin notes the start. It is called before anything reads the course.
func (s *scenario) begin() {
	d := s.demo
	s.evidence = evidence{
		streams: d.streams, victim: d.pair.Backends[victim].Name, killed: d.pair.Weirs[killed].Name,
		reached: make(map[netip.AddrPort]bool), course: course{started: time.Now()},
	}
	for _, b := range d.pair.Backends {
		s.evidence.backends = append(s.evidence.backends, b.Name)
	}
	for _, w := range d.pair.Weirs {
		s.evidence.weirs = append(s.evidence.weirs, w.Name)
	}
	d.journal.begin(s.evidence.course.started)
	d.journal.note(plainEvent, "requests to both services, over IPv4 and IPv6")
}

// at returns when a twelfth of the duration begins.
func (s *scenario) at(twelfths int) time.Time {
	return s.evidence.course.started.Add(s.duration * time.Duration(twelfths) / 12)
}

// run goes through the scenario. When something is not noticed in time, it
// returns early and without an error: the verdict sees it from the course.
func (s *scenario) run(ctx context.Context) error {
	for _, act := range []func(context.Context) (bool, error){s.backendDies, s.backendReturns, s.weirs} {
		if on, err := act(ctx); err != nil || !on {
			return err
		}
	}
	s.evidence.course.ended = time.Now()
	s.demo.journal.note(plainEvent, "no more requests")
	return nil
}

// backendDies is the first phase, and how it ends.
func (s *scenario) backendDies(ctx context.Context) (on bool, err error) {
	d, e, c := s.demo, &s.evidence, &s.evidence.course
	if err := s.phase(ctx, allUp, s.at(stopAt)); err != nil {
		return false, err
	}
	c.stopped = time.Now()
	d.journal.note(badEvent, fmt.Sprintf("backend %s stopped: its link is down, its servers are gone", e.victim))
	if err := d.pair.Backends[victim].Stop(); err != nil {
		return false, err
	}
	reason, err := s.await(ctx, s.at(returnAt), false)
	if err != nil {
		return false, err
	}
	if c.noticed.IsZero() {
		d.journal.note(badEvent, "the weirs have not noticed")
		return false, nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("both weirs noticed after %.1f s: %s", c.noticed.Sub(c.stopped).Seconds(), reason))
	return true, s.phase(ctx, oneDown, s.at(returnAt))
}

// backendReturns has the victim come back.
func (s *scenario) backendReturns(ctx context.Context) (on bool, err error) {
	d, e, c := s.demo, &s.evidence, &s.evidence.course
	c.returned = time.Now()
	d.journal.note(plainEvent, fmt.Sprintf("backend %s is started again", e.victim))
	if err := d.pair.Backends[victim].Start(); err != nil {
		return false, err
	}
	if _, err := s.await(ctx, s.at(killAt), true); err != nil {
		return false, err
	}
	if c.restored.IsZero() {
		d.journal.note(badEvent, fmt.Sprintf("the weirs have not taken %s back", e.victim))
		return false, nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("the weirs give %s new requests again after %.1f s", e.victim, c.restored.Sub(c.returned).Seconds()))
	return true, nil
}

// weirs opens the long connections, and has a weir die and return beneath them.
func (s *scenario) weirs(ctx context.Context) (on bool, err error) {
	finish, err := s.demo.openLong(ctx)
	if err != nil {
		return false, err
	}
	for _, act := range []func(context.Context) (bool, error){s.weirDies, s.weirReturns} {
		if on, err := act(ctx); err != nil || !on {
			_ = finish() // what there is to say already says more
			return false, err
		}
	}
	return true, finish()
}

// weirDies is the phase with all well again, and the kill of a weir at its end.
func (s *scenario) weirDies(ctx context.Context) (on bool, err error) {
	d, e, c := s.demo, &s.evidence, &s.evidence.course
	if err := s.phase(ctx, allBack, s.at(killAt)); err != nil {
		return false, err
	}
	other := d.pair.Weirs[1-killed]
	if c.asked, err = d.monitors[killed].vanish(ctx); err != nil {
		return false, err
	}
	c.killed = time.Now()
	if err := d.pair.Weirs[killed].Kill(); err != nil {
		return false, err
	}
	d.journal.note(badEvent, fmt.Sprintf("weir %s is killed, by kill -9", e.killed))
	if c.rerouted, err = s.routed(ctx, s.at(reviveAt), other); err != nil {
		return false, err
	}
	if c.rerouted.IsZero() {
		d.journal.note(badEvent, fmt.Sprintf("the router still sends packets to %s", e.killed))
		return false, nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("the router has taken %s out after %.2f s; all goes by %s", e.killed, c.rerouted.Sub(c.killed).Seconds(), other.Name))
	return true, s.phase(ctx, weirDown, s.at(reviveAt))
}

// weirReturns starts the weir again.
func (s *scenario) weirReturns(ctx context.Context) (on bool, err error) {
	d, e, c := s.demo, &s.evidence, &s.evidence.course
	w := d.pair.Weirs[killed]
	c.revived = time.Now()
	d.journal.note(plainEvent, fmt.Sprintf("weir %s is started again", e.killed))
	if err := d.pair.Start(ctx, w); err != nil {
		return false, err
	}
	if err := d.monitors[killed].appear(ctx, w.Process()); err != nil {
		return false, err
	}
	if c.rejoined, err = s.routed(ctx, s.at(endAt), d.pair.Weirs...); err != nil {
		return false, err
	}
	if c.rejoined.IsZero() {
		d.journal.note(badEvent, fmt.Sprintf("the router does not send packets to %s", e.killed))
		return false, nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("the router spreads connections over both again after %.1f s", c.rejoined.Sub(c.revived).Seconds()))
	return true, s.phase(ctx, weirBack, s.at(endAt))
}

// phase waits for the end of a phase, and notes how many flows each weir has
// decided in it, and the shares that were in force.
func (s *scenario) phase(ctx context.Context, p phase, until time.Time) error {
	before, err := s.decided(ctx)
	if err != nil {
		return err
	}
	if err := sleepUntil(ctx, until); err != nil {
		return err
	}
	after, err := s.decided(ctx)
	if err != nil {
		return err
	}
	s.evidence.decided[p] = make(map[string]uint64)
	for name, n := range after {
		s.evidence.decided[p][name] = n - before[name]
	}
	var rows []api.Backend
	if err := s.demo.pair.Weirs[1-killed].API().Get(ctx, "backends", &rows); err != nil {
		return err
	}
	s.evidence.shares[p] = sharesOf(s.demo.streams, s.demo.names, rows)
	return nil
}

// decided returns how many flows each weir that is there has decided so far.
func (s *scenario) decided(ctx context.Context) (map[string]uint64, error) {
	all := make(map[string]uint64)
	for _, w := range s.there() {
		var rows []api.Service
		if err := w.API().Get(ctx, "services", &rows); err != nil {
			return nil, err
		}
		for _, r := range rows {
			all[w.Name] += r.NewFlows
		}
	}
	return all, nil
}

// there returns the weirs that are there.
func (s *scenario) there() []*pair.Weir {
	return slices.DeleteFunc(slices.Clone(s.demo.pair.Weirs), func(w *pair.Weir) bool { return w.Process() == nil })
}

// sharesOf arranges weir's shares by stream and name of backend. In mode dsr a
// family of VIPs has the backends of that family, and the share is of these; in
// mode ipip it has all.
func sharesOf(streams []stream, names map[string]string, rows []api.Backend) []map[string]float64 {
	all := make([]map[string]float64, len(streams))
	for i, stream := range streams {
		all[i] = make(map[string]float64)
		for _, row := range rows {
			sameFamily := row.Address.Is4() == stream.vip.Addr().Is4()
			if row.Service == stream.service && (sameFamily || stream.service == serviceIPIP) {
				all[i][names[row.Address.String()]] += row.Share
			}
		}
	}
	return all
}

// await waits until both weirs send the victim new flows of all services, or of
// none, and returns the reason that one gives. It notes the time. Until they
// have noticed a stop, it collects who is on the way to the victim: after that,
// flow tables move such flows to other backends.
func (s *scenario) await(ctx context.Context, deadline time.Time, up bool) (reason string, err error) {
	b := s.demo.pair.Backends[victim]
	for {
		settled, now := true, time.Now()
		for _, w := range s.there() {
			var rows []api.Backend
			if err := w.API().Get(ctx, "backends", &rows); err != nil {
				return "", err
			}
			now = time.Now()
			if !up {
				if err := s.collect(ctx, w, b.Addr4, b.Addr6); err != nil {
					return "", err
				}
			}
			for _, row := range rows {
				if row.Address != b.Addr4 && row.Address != b.Addr6 {
					continue
				}
				// One that is up may still fail the check of one of its VIPs.
				whole := row.Status == "up" && (row.Health == nil || row.Health.State == "up")
				settled = settled && (up && whole || !up && row.Status != "up")
				if row.Status != "up" {
					reason = row.Status + ": " + row.Reason
				}
				if row.Status == "down" {
					reason = "health check: " + row.Reason
				}
			}
		}
		if settled {
			if up {
				s.evidence.course.restored = now
			} else {
				s.evidence.course.noticed = now
			}
			return reason, nil
		}
		if now.After(deadline) {
			return "", nil
		}
		if err := sleepUntil(ctx, now.Add(watchInterval)); err != nil {
			return "", err
		}
	}
}

// collect adds the connections in a weir's flow tables that lead to the
// addresses.
func (s *scenario) collect(ctx context.Context, w *pair.Weir, addrs ...netip.Addr) error {
	for _, a := range addrs {
		var list api.Flows
		if err := w.API().Get(ctx, fmt.Sprintf("flows?limit=%d&backend=%s", flowLimit, a), &list); err != nil {
			return err
		}
		for _, f := range list.Flows {
			s.evidence.reached[f.Client] = true
		}
	}
	return nil
}

// routed waits until the router's kernel sends what is for all VIPs to exactly
// these weirs, and returns when it did; zero if it does not until the deadline.
func (s *scenario) routed(ctx context.Context, deadline time.Time, weirs ...*pair.Weir) (time.Time, error) {
	for {
		done := true
		for _, stream := range s.demo.streams {
			addr := stream.vip.Addr()
			hops, err := router.Hops(s.demo.pair.Router, netip.PrefixFrom(addr, addr.BitLen()))
			if err != nil {
				return time.Time{}, err
			}
			done = done && len(hops) == len(weirs)
			for _, hop := range hops {
				done = done && slices.ContainsFunc(weirs, func(w *pair.Weir) bool { return hop.Via == w.Addr4 || hop.Via == w.Addr6 })
			}
		}
		now := time.Now()
		if done {
			return now, nil
		}
		if now.After(deadline) {
			return time.Time{}, nil
		}
		if err := sleepUntil(ctx, now.Add(watchInterval/10)); err != nil {
			return time.Time{}, err
		}
	}
}

func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-time.After(time.Until(t)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
