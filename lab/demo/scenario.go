package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weir/controlplane/api"
	"weir/lab/site"
)

// What the site is like. The last backend has half the weight of the others, so
// that shares are seen to follow weights.
const (
	backends    = 4
	serviceDSR  = "web-dsr"
	serviceIPIP = "web-ipip"
	lightWeight = 50
)

// Bounds of polling while something is awaited, and of what is read then.
const (
	watchInterval = 50 * time.Millisecond
	flowLimit     = 100000
)

// configure replaces the site's services, one for each mode and family, by two
// with both families. Through the tunnels of web-ipip, IPv4 carries both.
func configure(s *site.Site) {
	health := &site.Health{
		HTTP:     &site.HTTPCheck{Path: "/healthz", Port: s.Config.Services[0].Health.HTTP.Port},
		Interval: "500ms", Timeout: "500ms", Rise: 2, Fall: 3,
	}
	dsr := site.Service{Name: serviceDSR, Mode: "dsr", Health: health,
		Addresses: []string{s.DSR4.Addr().String(), s.DSR6.Addr().String()}, Ports: []string{"tcp/80"}}
	ipip := site.Service{Name: serviceIPIP, Mode: "ipip", Health: health,
		Addresses: []string{s.IPIP4.Addr().String(), s.IPIP6.Addr().String()}, Ports: []string{"tcp/80"}}
	for _, b := range s.Backends {
		dsr.Add(b.Addr4)
		ipip.Add(b.Addr4)
	}
	for _, b := range s.Backends {
		dsr.Add(b.Addr6)
	}
	last := s.Backends[len(s.Backends)-1]
	dsr.SetWeight(last.Addr4, lightWeight)
	dsr.SetWeight(last.Addr6, lightWeight)
	ipip.SetWeight(last.Addr4, lightWeight)
	s.Config.Services = []site.Service{dsr, ipip}
}

// brief shortens a configuration: of the backends of a service, the first and
// the last are shown.
func brief(text string) string {
	var out, backends []string // backends have the lines of each from "- address" on
	end := func() {
		if n := len(backends); n > 2 {
			dash := strings.Index(backends[0], "-")
			backends = []string{backends[0], backends[0][:dash] + "...", backends[n-1]}
		}
		out, backends = append(out, backends...), nil
	}
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		n := len(backends)
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "- address:"):
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

// scenario is what happens when: after a third of the time the victim dies,
// after two thirds it comes back.
type scenario struct {
	demo     *Demo
	duration time.Duration
	evidence evidence
}

// begin notes the start. It is called before anything reads the course.
func (s *scenario) begin() {
	d := s.demo
	s.evidence = evidence{
		streams: d.streams, victim: d.site.Backends[victim].Name, reached: make(map[netip.AddrPort]bool),
		course: course{started: time.Now()},
	}
	for _, b := range d.site.Backends {
		s.evidence.backends = append(s.evidence.backends, b.Name)
	}
	d.journal.begin(s.evidence.course.started)
	d.journal.note(plainEvent, "requests to both services, over IPv4 and IPv6")
}

// run goes through the scenario. When weir does not notice something in time,
// it returns early and without an error: the verdict sees it from the course.
func (s *scenario) run(ctx context.Context) error {
	d, e, c := s.demo, &s.evidence, &s.evidence.course
	at := func(thirds time.Duration) time.Time { return c.started.Add(s.duration * thirds / 3) }
	backend := d.site.Backends[victim]

	if err := s.settle(ctx, allUp, at(1)); err != nil {
		return err
	}
	c.stopped = time.Now()
	d.journal.note(badEvent, fmt.Sprintf("backend %s stopped: its link is down, its servers are gone", e.victim))
	if err := backend.Stop(); err != nil {
		return err
	}
	reason, err := s.await(ctx, at(2), false)
	if err != nil {
		return err
	}
	if c.noticed.IsZero() {
		d.journal.note(badEvent, "weir has not noticed")
		return nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("weir noticed after %.1f s: %s", c.noticed.Sub(c.stopped).Seconds(), reason))

	if err := s.settle(ctx, oneDown, at(2)); err != nil {
		return err
	}
	c.returned = time.Now()
	d.journal.note(plainEvent, fmt.Sprintf("backend %s is started again", e.victim))
	if err := backend.Start(); err != nil {
		return err
	}
	if _, err := s.await(ctx, at(3), true); err != nil {
		return err
	}
	if c.restored.IsZero() {
		d.journal.note(badEvent, fmt.Sprintf("weir has not taken %s back", e.victim))
		return nil
	}
	d.journal.note(goodEvent, fmt.Sprintf("weir gives %s new requests again after %.1f s", e.victim, c.restored.Sub(c.returned).Seconds()))

	if err := s.settle(ctx, allBack, at(3)); err != nil {
		return err
	}
	c.ended = time.Now()
	d.journal.note(plainEvent, "no more requests")
	return nil
}

// settle waits for the end of a phase, and asks weir then for the shares that
// were in force.
func (s *scenario) settle(ctx context.Context, p phase, until time.Time) error {
	if err := sleepUntil(ctx, until); err != nil {
		return err
	}
	var rows []api.Backend
	if err := s.demo.site.API().Get(ctx, "backends", &rows); err != nil {
		return err
	}
	s.evidence.shares[p] = sharesOf(s.demo.streams, s.demo.names, rows)
	return nil
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

// await waits until weir sends the victim new flows of all services, or of
// none, and returns the reason that weir gives. It notes the time. Until weir
// has noticed a stop, it collects who is on the way to the victim: after that,
// weir's flow tables move such flows to other backends.
func (s *scenario) await(ctx context.Context, deadline time.Time, up bool) (reason string, err error) {
	b := s.demo.site.Backends[victim]
	for {
		var rows []api.Backend
		if err := s.demo.site.API().Get(ctx, "backends", &rows); err != nil {
			return "", err
		}
		now := time.Now()
		if !up {
			if err := s.collect(ctx, b.Addr4, b.Addr6); err != nil {
				return "", err
			}
		}
		settled := true
		for _, row := range rows {
			if row.Address != b.Addr4 && row.Address != b.Addr6 {
				continue
			}
			settled = settled && (row.Status == "up") == up
			if row.Status != "up" {
				reason = row.Status + ": " + row.Reason
			}
			if row.Status == "down" {
				reason = "health check: " + row.Reason
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

// collect adds the connections in weir's flow tables that lead to the addresses.
func (s *scenario) collect(ctx context.Context, addrs ...netip.Addr) error {
	for _, a := range addrs {
		var list api.Flows
		if err := s.demo.site.API().Get(ctx, fmt.Sprintf("flows?limit=%d&backend=%s", flowLimit, a), &list); err != nil {
			return err
		}
		for _, f := range list.Flows {
			s.evidence.reached[f.Client] = true
		}
	}
	return nil
}

func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-time.After(time.Until(t)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
