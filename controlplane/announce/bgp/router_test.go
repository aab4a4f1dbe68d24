package bgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// ours and theirs are a node's and its router's ASN.
const (
	ours   = 65010
	theirs = 65000
)

// sites counts the pairs of loopback addresses that were given out. Each test has
// its own, so that none meets what another has left behind.
var sites atomic.Uint32

// fakeRouter is the other end of one session. It connects to the speaker by
// itself, again and again, and keeps what it is told. It keeps no secrets: tests
// see the messages as they were on the wire.
type fakeRouter struct {
	speaker netip.AddrPort
	address netip.Addr
	asn     uint32
	id      string
	hold    uint16
	caps    []bgp.ParameterCapabilityInterface
	say     []*bgp.BGPMessage // said after the session is up

	mu       sync.Mutex
	conn     net.Conn
	quiet    bool // does not connect
	mute     bool // sends no keepalives
	rude     bool // closes the connection before it has said anything
	refusal  *bgp.BGPMessage
	open     *bgp.BGPOpen
	up       bool
	routes   map[netip.Prefix]heard
	history  []string // "+prefix" and "-prefix", "eor"
	farewell string   // of the last notification
	sessions int
}

// heard is a route as it came.
type heard struct {
	nextHop     string
	asPath      string
	communities []uint32
	large       []string
	med, pref   *uint32
}

// site gives out a listening address for a speaker and an address of a router.
func site() (speaker netip.AddrPort, router netip.Addr) {
	n := sites.Add(1)
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 9, byte(n), last}) }
	return netip.AddrPortFrom(at(1), 1790), at(2)
}

// newFakeRouter makes a router that connects from address until the test ends.
func newFakeRouter(t *testing.T, speaker netip.AddrPort, address netip.Addr, asn uint32, change ...func(*fakeRouter)) *fakeRouter {
	t.Helper()
	f := &fakeRouter{
		speaker: speaker, address: address, asn: asn, id: address.String(), hold: 90,
		caps: []bgp.ParameterCapabilityInterface{
			bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC),
			bgp.NewCapFourOctetASNumber(asn), bgp.NewCapRouteRefresh(),
			bgp.NewCapGracefulRestart(false, false, 120, nil),
		},
		routes: make(map[netip.Prefix]heard),
	}
	for _, c := range change {
		c(f)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if !f.isQuiet() {
				f.session()
			}
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		f.hangUp(true)
		<-ended
	})
	return f
}

func (f *fakeRouter) isQuiet() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quiet
}

// hangUp closes the connection without a word; with quiet for good.
func (f *fakeRouter) hangUp(quiet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = quiet
	if f.conn != nil {
		_ = f.conn.Close()
	}
}

// session connects and listens until the connection ends.
func (f *fakeRouter) session() {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: f.address.AsSlice()}, Timeout: time.Second}
	conn, err := d.Dial("tcp", f.speaker.String())
	if err != nil {
		return
	}
	defer conn.Close()
	f.mu.Lock()
	if f.quiet {
		f.mu.Unlock()
		return
	}
	f.conn, f.routes = conn, make(map[netip.Prefix]heard)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.up, f.routes = false, make(map[netip.Prefix]heard)
	}()
	as := uint16(bgp.AS_TRANS)
	if f.asn <= 65535 {
		as = uint16(f.asn)
	}
	open := bgp.NewBGPOpenMessage(as, f.hold, f.id, []bgp.OptionParameterInterface{bgp.NewOptionParameterCapability(f.caps)})
	if f.rude || f.write(open) != nil {
		return
	}
	for {
		m, err := read(conn)
		if err != nil {
			return
		}
		if f.take(m) != nil {
			return
		}
	}
}

func (f *fakeRouter) write(messages ...*bgp.BGPMessage) error {
	for _, m := range messages {
		b, err := m.Serialize()
		if err != nil {
			return err
		}
		if _, err := f.conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func read(conn net.Conn) (*bgp.BGPMessage, error) {
	header := make([]byte, 19)
	if _, err := io.ReadFull(conn, header); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(header[16:])-19)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	return bgp.ParseBGPMessage(append(header, body...))
}

func (f *fakeRouter) take(m *bgp.BGPMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch body := m.Body.(type) {
	case *bgp.BGPOpen:
		f.open = body
		if f.refusal != nil {
			_ = f.write(f.refusal)
			return io.EOF
		}
		return f.write(bgp.NewBGPKeepAliveMessage())
	case *bgp.BGPKeepAlive:
		if !f.up {
			f.up = true
			f.sessions++
			return f.write(f.say...)
		}
		if !f.mute {
			return f.write(bgp.NewBGPKeepAliveMessage())
		}
	case *bgp.BGPNotification:
		f.farewell = fmt.Sprintf("%d/%d %s", body.ErrorCode, body.ErrorSubcode, strings.TrimFunc(string(body.Data), func(r rune) bool { return r < ' ' }))
	case *bgp.BGPUpdate:
		f.update(body)
	}
	return nil
}

func (f *fakeRouter) update(u *bgp.BGPUpdate) {
	var h heard
	var gone, come []bgp.AddrPrefixInterface
	for _, p := range u.WithdrawnRoutes {
		gone = append(gone, p)
	}
	for _, p := range u.NLRI {
		come = append(come, p)
	}
	if end, _ := u.IsEndOfRib(); end {
		f.history = append(f.history, "eor")
	}
	for _, a := range u.PathAttributes {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			h.nextHop = a.Value.String()
		case *bgp.PathAttributeMpReachNLRI:
			h.nextHop = a.Nexthop.String()
			come = append(come, a.Value...)
		case *bgp.PathAttributeMpUnreachNLRI:
			gone = append(gone, a.Value...)
		case *bgp.PathAttributeAsPath:
			h.asPath = bgp.AsPathString(a)
		case *bgp.PathAttributeCommunities:
			h.communities = a.Value
		case *bgp.PathAttributeLargeCommunities:
			for _, c := range a.Values {
				h.large = append(h.large, c.String())
			}
		case *bgp.PathAttributeMultiExitDisc:
			h.med = &a.Value
		case *bgp.PathAttributeLocalPref:
			h.pref = &a.Value
		}
	}
	for _, n := range gone {
		p := netip.MustParsePrefix(n.String())
		delete(f.routes, p)
		f.history = append(f.history, "-"+p.String())
	}
	for _, n := range come {
		p := netip.MustParsePrefix(n.String())
		f.routes[p] = h
		f.history = append(f.history, "+"+p.String())
	}
}

// refuse makes the router refuse every OPEN.
func (f *fakeRouter) refuse(subcode uint8) {
	f.refusal = bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, subcode, nil)
}

// told returns the prefixes that the router has now, sorted.
func (f *fakeRouter) told() []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Keys(f.routes), netip.Prefix.Compare)
}

// look returns a part of what the router knows.
func look[T any](f *fakeRouter, what func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return what()
}

func (f *fakeRouter) route(prefix string) (heard, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.routes[netip.MustParsePrefix(prefix)]
	return h, ok
}

func (f *fakeRouter) past() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.history)
}

// until waits for a condition.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

// diary is a log that tests read.
type diary struct {
	mu  sync.Mutex
	all strings.Builder
}

func (d *diary) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all.Write(b)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all.String()
}

func (d *diary) count(text string) int { return strings.Count(d.String(), text) }

func newDiary(t *testing.T) (*diary, *slog.Logger) {
	d := &diary{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(d.String())
		}
	})
	return d, slog.New(slog.NewTextHandler(d, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
