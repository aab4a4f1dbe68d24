package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/announce"
)

func TestListenerTaken(t *testing.T) {
	at, r := site()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, _ := newSpeaker(t, config(at, r))
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another BGP daemon") {
		t.Errorf("Run: %v", err)
	}
	if err := s.Leave(t.Context()); err != nil {
		t.Errorf("Leave: %v", err)
	}
}

// TestMany announces 1,000 prefixes to four routers.
func TestMany(t *testing.T) {
	const many = 1000
	at, _ := site()
	c := config(at, at.Addr())
	var routers []*fakeRouter
	c.Peers = nil
	for n := range 4 {
		_, r := site()
		c.Peers = append(c.Peers, Peer{Name: fmt.Sprint("r", n), Address: r, ASN: theirs, MED: num(uint32(n)), ConnectRetry: time.Second})
		routers = append(routers, newFakeRouter(t, at, r, theirs))
	}
	s, _ := newSpeaker(t, c)
	start(t, s)
	s.Set(nil)
	until(t, "sessions are up", func() bool {
		return len(s.Sessions()) == 4 && !slices.ContainsFunc(s.Sessions(), func(x Session) bool { return x.State != "established" })
	})
	var all []announce.Advertisement
	for n := range many {
		all = append(all, announce.Advertisement{Address: netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)})})
	}
	has := func(n int) func() bool {
		return func() bool {
			for _, f := range routers {
				if look(f, func() int { return len(f.routes) }) != n {
					return false
				}
			}
			return true
		}
	}
	began := time.Now()
	s.Set(all)
	until(t, "all is told", has(many))
	t.Logf("%d prefixes to %d routers after %v", many, len(routers), time.Since(began))
	began = time.Now()
	s.Set(all[:many/2])
	until(t, "half is withdrawn", has(many/2))
	t.Logf("half withdrawn after %v", time.Since(began))
	for _, f := range routers {
		f.hangUp(false)
	}
	began = time.Now()
	until(t, "all is lost", has(0))
	until(t, "and told again", has(many/2))
	t.Logf("told again %v after the connections were lost", time.Since(began))
}

// TestNoGoroutinesLeft checks that each Run leaves the one goroutine behind that
// gobgp cannot end, and no other.
func TestNoGoroutinesLeft(t *testing.T) {
	count := func() int {
		n := 0
		until(t, "the number of goroutines is steady", func() bool {
			before := n
			time.Sleep(20 * time.Millisecond)
			n = runtime.NumGoroutine()
			return n == before
		})
		return n
	}
	at, r := site()
	f := newFakeRouter(t, at, r, theirs)
	before := count()
	const runs = 3
	for range runs {
		s, _ := newSpeaker(t, config(at, r))
		stop := start(t, s)
		s.Set(ads("203.0.113.10"))
		until(t, "it is told", func() bool { return len(f.told()) == 1 })
		stop()
		until(t, "the session is over", func() bool { return len(f.told()) == 0 })
	}
	if after := count(); after > before+runs {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines before, %d after %d runs\n%s", before, after, runs, buf[:runtime.Stack(buf, true)])
	}
}
