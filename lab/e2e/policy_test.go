package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/site"
)

// TestPing asks VIPs for an echo as the policy of each allows.
func TestPing(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Health: true, Modes: site.DSR}, announceAlways)
		set := func(policy string) {
			s.reload(func(c *site.Config) {
				for i := range c.Services {
					c.Services[i].Ping = policy
				}
			})
		}
		want := func(when string, answered bool) {
			t.Helper()
			for _, vip := range s.VIPs() {
				s.await(fmt.Sprintf("%s, ping of %s is answered: %v", when, vip.Addr(), answered), func() error {
					ctx, cancel := context.WithTimeout(s.ctx, 100*time.Millisecond)
					defer cancel()
					if err := s.ClientHost.Ping(ctx, vip.Addr()); (err == nil) != answered {
						return fmt.Errorf("ping ends with %v", err)
					}
					return nil
				})
			}
		}
		healthy := func(yes bool) {
			for _, b := range s.Backends {
				b.SetHealthy(yes)
			}
		}
		set("never")
		want("never", false)
		if n := s.drops()["ping_refused"]; n == 0 {
			t.Errorf("refused pings are not counted: %v", s.drops())
		}
		set("healthy")
		want("healthy, and all are", true)
		healthy(false)
		want("healthy, and nobody is", false)
		set("always")
		want("always", true)
		healthy(true)
		set("healthy")
		want("healthy, and all are again", true)
	}, xdpCopy, afPacket)
}

// TestReject connects to a port of a VIP that no service has.
func TestReject(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR | site.NAT}, nil)
		for _, c := range []struct {
			policy   string
			tcp, udp error
		}{
			{"drop", context.DeadlineExceeded, context.DeadlineExceeded},
			{"icmp", unix.ECONNREFUSED, unix.ECONNREFUSED},
			{"rst", unix.ECONNREFUSED, nil},
		} {
			s.reload(func(conf *site.Config) {
				for i := range conf.Services {
					conf.Services[i].Reject = c.policy
				}
			})
			for _, vip := range []netip.AddrPort{s.DSR4, s.DSR6, s.NAT4, s.NAT64} {
				t.Run(c.policy+"-"+vip.Addr().String(), func(t *testing.T) {
					s := s.in(t)
					closed := netip.AddrPortFrom(vip.Addr(), 81)
					wait := patience
					if c.policy == "drop" {
						wait = shortly
					}
					if err := s.connect(contextFor(t, wait), "tcp", closed); !refusal(err, c.tcp) {
						t.Errorf("connect: %v, want %v", err, c.tcp)
					}
					if c.udp == nil {
						return // a reset is for TCP
					}
					if err := s.connect(contextFor(t, wait), "udp", closed); !refusal(err, c.udp) {
						t.Errorf("datagram: %v, want %v", err, c.udp)
					}
				})
			}
		}
		if n := s.drops()["no_service"]; n == 0 {
			t.Errorf("rejected packets are not counted: %v", s.drops())
		}
	}, xdpCopy, afPacket)
}

// refusal says whether an error is the one wanted; a deadline shows in two ways.
func refusal(err, want error) bool {
	if errors.Is(want, context.DeadlineExceeded) {
		var timeout interface{ Timeout() bool }
		return errors.As(err, &timeout) && timeout.Timeout()
	}
	return errors.Is(err, want)
}

// connect opens a connection over tcp, or sends a datagram and waits for an
// answer, until ctx is done.
func (s *testSite) connect(ctx context.Context, network string, target netip.AddrPort) error {
	conn, err := s.ClientHost.DialContext(ctx, network, target.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if network == "tcp" {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		s.must(conn.SetDeadline(deadline))
	}
	if _, err := conn.Write([]byte("anybody there?")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 100))
	return err
}

// TestAccess lets one client in and not the other.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{FarMTU: 1500, Modes: site.DSR | site.NAT}, nil)
	far := []string{s.Far4.String(), s.Far6.String()}
	for i, acl := range []*site.ACL{
		{Deny: far},
		{Allow: []string{"10.0.0.0/24", "fd00::/64"}},
		{Allow: []string{"10.0.0.0/16", "fd00::/16"}, Deny: far}, // the longest prefix wins
	} {
		s.reload(func(c *site.Config) {
			for j := range c.Services {
				c.Services[j].ACL = acl
			}
		})
		for _, vip := range s.VIPs() {
			if r := s.echo(vip); r.Err != nil {
				t.Errorf("list %d: %v", i, r)
			}
			if r := s.FarClient.Echo(contextFor(t, shortly), vip, []byte("hello")); r.Err == nil {
				t.Errorf("list %d: %s was let in: %v", i, r.Local, r)
			}
		}
	}
	if n := s.drops()["denied"]; n < uint64(3*len(s.VIPs())) {
		t.Errorf("%d packets are counted as denied: %v", n, s.drops())
	}
}

// TestSourceLimit has one client open more flows than the limit allows it. What
// it has goes on, and the other is not concerned.
func TestSourceLimit(t *testing.T) {
	t.Parallel()
	const allowed = 10
	s := startSite(t, site.Options{FarMTU: 1500, Modes: site.DSR}, func(c *site.Config) {
		for i := range c.Services {
			c.Services[i].Limits = &site.Limits{PerSource: &site.SourceLimits{Prefix: 24, Prefix6: 64, NewFlows: allowed}}
		}
	})
	for _, vip := range s.VIPs() {
		first := s.newFlow(vip)
		if r := first.Echo(s.ctx, []byte("first")); r.Err != nil {
			t.Fatal(r)
		}
		for range 20 * allowed {
			_, err := s.newFlowConn(vip).Write([]byte("one more"))
			s.must(err)
		}
		if r := first.Echo(s.ctx, []byte("goes on")); r.Err != nil {
			t.Error(r)
		}
		if r := s.FarClient.Echo(s.ctx, vip, []byte("not concerned")); r.Err != nil {
			t.Error(r)
		}
	}
	if n := s.drops()["source_limit"]; n == 0 {
		t.Errorf("nothing is counted as above the limit: %v", s.drops())
	}
	s.await("flows of the client are taken again", func() error { return s.echo(s.DSR4).Err })
}

// TestSourceAffinity sends all flows from a prefix to one backend.
func TestSourceAffinity(t *testing.T) {
	t.Parallel()
	s := newSite(t, site.Options{Backends: 4, Modes: site.DSR | site.NAT})
	for i := range s.Config.Services {
		v := &s.Config.Services[i]
		v.Affinity, v.AffinityPrefix, v.AffinityPrefix6 = "source", 24, 64
	}
	s.must(s.ClientHost.AddAddr("eth0", netip.MustParsePrefix("10.0.0.111/24")))
	s.must(s.ClientHost.AddAddr("eth0", netip.MustParsePrefix("fd00::111/64")))
	s.start()
	for _, vip := range s.VIPs() {
		seen := make(map[string]int)
		for _, from := range []string{"10.0.0.100", "10.0.0.111", "fd00::100", "fd00::111"} {
			if addr := netip.MustParseAddr(from); addr.Is4() == vip.Addr().Is4() {
				client := *s.Client
				client.Dial = s.ClientHost.DialFrom(netip.AddrPortFrom(addr, 0))
				for range 8 {
					r := client.Echo(s.ctx, vip, []byte("who"))
					if r.Err != nil {
						t.Error(r)
					}
					seen[r.Backend]++
				}
			}
		}
		if len(seen) != 1 {
			t.Errorf("one prefix's flows to %s went to %v", vip, seen)
		}
	}
}
