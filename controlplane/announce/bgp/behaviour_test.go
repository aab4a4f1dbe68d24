package bgp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"

	"weir/controlplane/announce"
)

func sessionOf(s *Speaker, name string) Session {
	for _, x := range s.Sessions() {
		if x.Name == name {
			return x
		}
	}
	return Session{}
}

func isUp(s *Speaker, name string) func() bool {
	return func() bool { return sessionOf(s, name).State == "established" }
}

func statusOf(s *Speaker, prefix, to string) announce.Status {
	for _, st := range s.Status() {
		if st.Address.String() == prefix && st.To == to {
			return st
		}
	}
	return announce.Status{}
}

func TestOnTheWire(t *testing.T) {
	at, e := site()
	_, i := site()
	c := config(at, e)
	c.Peers[0].Communities, c.Peers[0].NextHop = []string{"65000:7", "65000:1:2"}, addr("192.0.2.77")
	c.Peers = append(c.Peers, Peer{Name: "i", Address: i, ASN: ours, MED: num(5)})
	c.Pools["a"] = Pool{Communities: []string{"no-export"}, LocalPref: num(300), MED: num(1)}
	s, _ := newSpeaker(t, c)
	external, internal := newFakeRouter(t, at, e, theirs), newFakeRouter(t, at, i, ours)
	start(t, s)
	s.Set(ads("203.0.113.10@a", "2001:db8:1::1@a"))
	until(t, "all is told", func() bool { return len(external.told()) == 2 && len(internal.told()) == 1 })

	h, _ := external.route("203.0.113.10/32")
	if h.nextHop != "192.0.2.77" || h.asPath != fmt.Sprint(ours) || !slices.Equal(h.communities, []uint32{65000<<16 | 7, 0xffffff01}) ||
		!slices.Equal(h.large, []string{"65000:1:2"}) || h.med == nil || *h.med != 1 || h.pref != nil {
		t.Errorf("eBGP: %+v", h)
	}
	if h, _ := external.route("2001:db8:1::1/128"); h.nextHop != "2001:db8::2" || h.asPath != fmt.Sprint(ours) || *h.med != 1 {
		t.Errorf("IPv6 over IPv4: %+v", h)
	}
	h, _ = internal.route("203.0.113.10/32")
	if h.nextHop != at.Addr().String() || h.asPath != "" || !slices.Equal(h.communities, []uint32{0xffffff01}) ||
		*h.med != 5 || h.pref == nil || *h.pref != 300 {
		t.Errorf("iBGP: %+v", h)
	}
	until(t, "all is said to be announced", func() bool {
		return sessionOf(s, "r1").Prefixes == 2 && sessionOf(s, "i").Prefixes == 1
	})
	if x := sessionOf(s, "r1"); !x.GracefulRestart || x.Address != e || x.ASN != theirs || x.Since.IsZero() || x.Flaps != 0 {
		t.Errorf("session %+v", x)
	}
	// End-of-RIB for each family, after all that was set (RFC 4724 section 2).
	if past := external.past(); len(past) != 4 || past[2] != "eor" || past[3] != "eor" {
		// The families come in any order, and each may be ended before the other.
		if slices.Index(past, "eor") < 1 || past[len(past)-1] != "eor" {
			t.Errorf("said %q", past)
		}
	}
}

func TestTwoByteASNsAndLocalASN(t *testing.T) {
	at, r := site()
	c := config(at, r)
	c.ASN = 4200000000
	c.Peers[0].LocalASN = 4200000001
	s, _ := newSpeaker(t, c)
	f := newFakeRouter(t, at, r, theirs)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "it is told", func() bool { return len(f.told()) == 1 })
	if h, _ := f.route("203.0.113.10/32"); h.asPath != "4200000001" {
		t.Errorf("AS path %q", h.asPath)
	}
	if open := look(f, func() *bgp.BGPOpen { return f.open }); open.MyAS != bgp.AS_TRANS || open.ID.String() != "192.0.2.1" {
		t.Errorf("OPEN %+v", open)
	}
}

// TestLeastIsSaid changes one prefix of several, in every way: nothing is said
// about the others, and what is replaced is never withdrawn in between.
func TestLeastIsSaid(t *testing.T) {
	at, r := site()
	c := config(at, r)
	s, _ := newSpeaker(t, c)
	f := newFakeRouter(t, at, r, theirs)
	start(t, s)
	s.Set(ads("203.0.113.10", "203.0.113.11@a"))
	until(t, "both are told", func() bool { return len(f.told()) == 2 })
	said := func(what string, want ...string) {
		t.Helper()
		until(t, what, func() bool {
			past := f.past()
			return len(past) >= len(want) && slices.Equal(past[len(past)-len(want):], want)
		})
	}
	f.mu.Lock()
	f.history = nil
	f.mu.Unlock()

	s.Set(ads("203.0.113.11@a", "203.0.113.10", "203.0.113.12"))
	said("one is added", "+203.0.113.12/32")
	s.Set(ads("203.0.113.11@a", "203.0.113.10"))
	said("and taken away", "+203.0.113.12/32", "-203.0.113.12/32")
	c.Pools["a"] = Pool{MED: num(9)}
	if err := s.Configure(c); err != nil {
		t.Fatal(err)
	}
	said("another MED", "-203.0.113.12/32", "+203.0.113.11/32")
	if h, _ := f.route("203.0.113.11/32"); h.med == nil || *h.med != 9 {
		t.Errorf("route %+v", h)
	}
	c.Pools["a"] = Pool{MED: num(9), Aggregation: 31}
	if err := s.Configure(c); err != nil {
		t.Fatal(err)
	}
	said("an aggregate", "-203.0.113.11/32", "+203.0.113.10/31")
	s.Set(ads("203.0.113.10@a", "203.0.113.11@a"))
	s.Set(ads("203.0.113.11@a"))
	s.Set(ads("203.0.113.10@a"))
	said("the aggregate stays while one of it is in", "-203.0.113.10/32")
	s.Set(nil)
	said("it goes with the last", "-203.0.113.10/32", "-203.0.113.10/31")
	want := []string{"+203.0.113.12/32", "-203.0.113.12/32", "+203.0.113.11/32", "-203.0.113.11/32", "+203.0.113.10/31", "-203.0.113.10/32", "-203.0.113.10/31"}
	if past := f.past(); !slices.Equal(past, want) {
		t.Errorf("said %q, want %q", past, want)
	}
	if n := look(f, func() int { return f.sessions }); n != 1 {
		t.Errorf("%d sessions", n)
	}
}

// TestNothingLeaks has two routers speak: neither hears of the other's routes, and
// a route of theirs to an address of ours changes nothing.
func TestNothingLeaks(t *testing.T) {
	at, a := site()
	_, b := site()
	c := config(at, a)
	c.Peers = append(c.Peers, Peer{Name: "r2", Address: b, ASN: 65001})
	s, _ := newSpeaker(t, c)
	speaks := func(f *fakeRouter) {
		for _, p := range []string{"198.51.100.0", "203.0.113.10"} {
			f.say = append(f.say, bgp.NewBGPUpdateMessage(nil, []bgp.PathAttributeInterface{
				bgp.NewPathAttributeOrigin(0),
				bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, []uint32{f.asn})}),
				bgp.NewPathAttributeNextHop(f.address.String()),
			}, []*bgp.IPAddrPrefix{bgp.NewIPAddrPrefix(32, p)}))
		}
		f.say = append(f.say, bgp.NewEndOfRib(bgp.RF_IPv4_UC))
	}
	f, g := newFakeRouter(t, at, a, theirs, speaks), newFakeRouter(t, at, b, 65001, speaks)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "both are told", func() bool { return len(f.told()) == 1 && len(g.told()) == 1 })
	// What they said has been read when something later is answered.
	s.Set(ads("203.0.113.10", "203.0.113.11"))
	until(t, "both are told more", func() bool { return len(f.told()) == 2 && len(g.told()) == 2 })
	g.hangUp(true)
	until(t, "one is gone", func() bool { return sessionOf(s, "r2").Flaps == 1 })
	s.Set(ads("203.0.113.10", "203.0.113.12"))
	until(t, "the other is told of a change", func() bool { _, ok := f.route("203.0.113.12/32"); return ok })
	for _, r := range []*fakeRouter{f, g} {
		for _, line := range r.past() {
			if strings.Contains(line, "198.51.100") {
				t.Errorf("%s was told of another router's route: %q", r.address, r.past())
			}
		}
		if h, ok := r.route("203.0.113.10/32"); ok && h.asPath != fmt.Sprint(ours) {
			t.Errorf("%s was told %+v", r.address, h)
		}
	}
}

func TestLeave(t *testing.T) {
	at, e := site()
	_, i := site()
	c := config(at, e)
	c.ShutdownDelay = time.Hour // ends with the test's patience, not by itself
	c.Peers = append(c.Peers, Peer{Name: "i", Address: i, ASN: ours, LocalPref: num(200)})
	s, d := newSpeaker(t, c)
	external, internal := newFakeRouter(t, at, e, theirs), newFakeRouter(t, at, i, ours)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "all is announced", func() bool { return len(external.told()) == 1 && len(internal.told()) == 1 && len(s.Status()) == 2 })
	until(t, "and said to be", func() bool { return statusOf(s, "203.0.113.10/32", "r1").State == announce.Announced })
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- s.Leave(ctx) }()
	until(t, "routers are asked for other ways", func() bool {
		a, _ := external.route("203.0.113.10/32")
		b, _ := internal.route("203.0.113.10/32")
		return slices.Contains(a.communities, gracefulShutdown) && slices.Contains(b.communities, gracefulShutdown)
	})
	if h, _ := internal.route("203.0.113.10/32"); h.pref == nil || *h.pref != 0 {
		t.Errorf("local preference %v", h.pref)
	}
	// What is set meanwhile leaves in the same way.
	s.Set(ads("203.0.113.10", "203.0.113.11"))
	until(t, "a late one", func() bool {
		h, _ := external.route("203.0.113.11/32")
		return slices.Contains(h.communities, gracefulShutdown)
	})
	cancel()
	if err := <-left; err == nil {
		t.Error("Leave was cut short, and says nothing")
	}
	for _, f := range []*fakeRouter{external, internal} {
		until(t, "sessions are closed", func() bool { return look(f, func() bool { return f.farewell != "" }) })
		past := f.past()
		if got := look(f, func() string { return f.farewell }); got != "6/2 weir leaves" {
			t.Errorf("farewell %q", got)
		}
		if end := past[max(0, len(past)-2):]; !slices.Contains(end, "-203.0.113.10/32") || !slices.Contains(end, "-203.0.113.11/32") {
			t.Errorf("not withdrawn before: %q", past)
		}
	}
	until(t, "all is over", func() bool {
		return sessionOf(s, "r1").State != "established" && sessionOf(s, "i").State != "established" && len(s.Status()) == 0
	})
	until(t, "and said to be", func() bool { return d.count("bgp session down") >= 2 })
	if n := d.count("bgp session down"); sessionOf(s, "r1").Flaps != 0 || n != 2 {
		t.Errorf("session %+v, %d are said to be down", sessionOf(s, "r1"), n)
	}
}

func TestLeaveTakesItsTime(t *testing.T) {
	at, r := site()
	c := config(at, r)
	c.ShutdownDelay = 300 * time.Millisecond
	s, _ := newSpeaker(t, c)
	f := newFakeRouter(t, at, r, theirs)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "it is announced", func() bool { return statusOf(s, "203.0.113.10/32", "r1").State == announce.Announced })
	began := time.Now()
	if err := s.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < c.ShutdownDelay {
		t.Errorf("left after %v", took)
	}
	until(t, "it is withdrawn", func() bool { past := f.past(); return past[len(past)-1] == "-203.0.113.10/32" })
}

func TestEndClosesSessions(t *testing.T) {
	at, r := site()
	s, _ := newSpeaker(t, config(at, r))
	f := newFakeRouter(t, at, r, theirs)
	stop := start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "it is told", func() bool { return len(f.told()) == 1 })
	stop()
	until(t, "the router hears why", func() bool { return look(f, func() bool { return f.farewell == "6/2 weir ends" }) })
	// The listener is free again, at once.
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

// TestConfigure checks which sessions a new configuration touches.
func TestConfigure(t *testing.T) {
	at, a := site()
	_, b := site()
	c := config(at, a)
	c.Peers = append(c.Peers, Peer{Name: "r2", Address: b, ASN: theirs})
	s, _ := newSpeaker(t, c)
	f, g := newFakeRouter(t, at, a, theirs), newFakeRouter(t, at, b, theirs)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	until(t, "both are told", func() bool { return len(f.told()) == 1 && len(g.told()) == 1 })
	sessions := func(f *fakeRouter) int { return look(f, func() int { return f.sessions }) }
	configure := func(change func(*Config)) {
		t.Helper()
		c.Peers = slices.Clone(c.Peers)
		change(&c)
		if err := s.Configure(c); err != nil {
			t.Fatal(err)
		}
	}
	configure(func(c *Config) { c.Peers[1].Communities = []string{"1:1"} })
	until(t, "a community is added", func() bool { h, _ := g.route("203.0.113.10/32"); return len(h.communities) == 1 })
	configure(func(c *Config) { c.Peers[1].HoldTime = 60 * time.Second })
	until(t, "a new session", func() bool { return sessions(g) == 2 && len(g.told()) == 1 })
	if open := look(g, func() *bgp.BGPOpen { return g.open }); open.HoldTime != 60 {
		t.Errorf("hold time %d", open.HoldTime)
	}
	configure(func(c *Config) { c.Peers = c.Peers[:1] })
	until(t, "the second is let go", func() bool { return look(g, func() bool { return !g.up && g.farewell == "6/3 " }) })
	until(t, "and not spoken of", func() bool { return len(s.Sessions()) == 1 && len(s.Status()) == 1 })
	configure(func(c *Config) { c.Peers = append(c.Peers, Peer{Name: "r3", Address: b, ASN: theirs, MED: num(3)}) })
	until(t, "it is back by another name", func() bool { h, ok := g.route("203.0.113.10/32"); return ok && *h.med == 3 })
	if sessions(f) != 1 || sessionOf(s, "r3").Flaps != 0 {
		t.Errorf("%d sessions with a router that nothing was changed for; %+v", sessions(f), s.Sessions())
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.ASN++ },
		func(c *Config) { c.RouterID = addr("192.0.2.99") },
		func(c *Config) { c.Listen = netip.AddrPortFrom(at.Addr(), 1791) },
	} {
		changed := c
		change(&changed)
		if err := s.Configure(changed); err == nil || !strings.Contains(err.Error(), "restart") {
			t.Errorf("configure what cannot change: %v", err)
		}
	}
	changed := c
	changed.Peers = []Peer{{}}
	if err := s.Configure(changed); err == nil {
		t.Error("a mistake is taken")
	}
}

// TestComesBack loses a session again and again.
func TestComesBack(t *testing.T) {
	at, r := site()
	c := config(at, r)
	c.Peers[0].ConnectRetry = time.Second
	s, d := newSpeaker(t, c)
	f := newFakeRouter(t, at, r, theirs)
	start(t, s)
	s.Set(ads("203.0.113.10"))
	for n := range 3 {
		until(t, "it is announced", func() bool { return len(f.told()) == 1 && sessionOf(s, "r1").Prefixes == 1 })
		st := statusOf(s, "203.0.113.10/32", "r1")
		if st.Sent != uint64(n+1) || st.Err != "" {
			t.Errorf("status %+v", st)
		}
		f.hangUp(false)
		until(t, "the loss is counted", func() bool { return sessionOf(s, "r1").Flaps == uint64(n+1) })
	}
	until(t, "it is up again", isUp(s, "r1"))
	if x := sessionOf(s, "r1"); !strings.Contains(x.LastError, "connection lost") {
		t.Errorf("session %+v", x)
	}
	if d.count("bgp session down") != 3 || d.count("bgp session up") != 4 {
		t.Errorf("log has %d up, %d down", d.count("bgp session up"), d.count("bgp session down"))
	}
}

// TestReasons checks that people are told why there is no session. All are peers
// of one speaker, so that they are waited for together.
func TestReasons(t *testing.T) {
	at, _ := site()
	c := config(at, at.Addr())
	c.Peers = nil
	cases := []struct {
		name   string
		peer   func(*Peer)
		router func(*fakeRouter)
		prefix string
		want   string
	}{
		{"nobody listens", nil, func(f *fakeRouter) { f.quiet = true }, "203.0.113.10/32", "port 1790: refused"},
		{"source that is not here", func(p *Peer) { p.Source = addr("198.51.100.1") }, func(f *fakeRouter) { f.quiet = true },
			"203.0.113.10/32", "source address 198.51.100.1 is not on this node"},
		{"wrong ASN here", func(p *Peer) { p.ASN = 7 }, nil, "203.0.113.10/32", "bad peer AS"},
		{"wrong ASN there", nil, func(f *fakeRouter) { f.refuse(bgp.BGP_ERROR_SUB_BAD_PEER_AS) },
			"203.0.113.10/32", "are the ASNs right on both sides"},
		{"not a neighbour there", nil, func(f *fakeRouter) { f.rude = true }, "203.0.113.10/32", "is this node's address a neighbour there"},
		{"no IPv6 there", nil, func(f *fakeRouter) {
			f.caps = []bgp.ParameterCapabilityInterface{bgp.NewCapFourOctetASNumber(f.asn)}
		}, "2001:db8:1::1/128", "the router does not take IPv6 prefixes"},
		{"it says goodbye", nil, func(f *fakeRouter) {
			f.say = []*bgp.BGPMessage{bgp.NewBGPNotificationMessage(6, 2, append([]byte{4}, "work"...))}
		}, "203.0.113.10/32", `the router ended it: cease: administrative shutdown: "work"`},
		{"it says nothing", func(p *Peer) { p.HoldTime = 3 * time.Second }, func(f *fakeRouter) { f.mute = true },
			"203.0.113.10/32", "this node ended it: hold timer expired"},
	}
	for _, tc := range cases {
		_, r := site()
		p := Peer{Name: tc.name, Address: r, ASN: theirs, Port: 1790, IPv4: true, IPv6: true}
		if tc.peer != nil {
			tc.peer(&p)
		}
		c.Peers = append(c.Peers, p)
		newFakeRouter(t, at, r, theirs, func(f *fakeRouter) {
			if tc.router != nil {
				tc.router(f)
			}
		})
	}
	s, _ := newSpeaker(t, c)
	start(t, s)
	s.Set(ads("203.0.113.10", "2001:db8:1::1"))
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			until(t, "the reason is said: "+tc.want, func() bool {
				st := statusOf(s, tc.prefix, tc.name)
				return st.State == announce.Down && strings.Contains(st.Err, tc.want) ||
					strings.Contains(sessionOf(s, tc.name).LastError, tc.want)
			})
		})
	}
}
