// Package l2 tells the stations on a link where the VIPs are, unasked: by
// gratuitous ARP and unsolicited neighbour advertisements.
//
// The problem it solves: a switch forgets which of its ports a MAC address is
// behind, and a router that has just been told of another owner keeps sending
// there until it hears otherwise. Questions are answered by the data plane
// (package forward); this package speaks first, at the start, when a link
// comes up, and again and again.
package l2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	mdpacket "github.com/mdlayher/packet"

	"weir/dataplane/packet"
)

const (
	// Interval is the time between two rounds of announcements, below the
	// 300 s after which most switches forget an address.
	Interval = 60 * time.Second

	// burst and burstInterval: how often, and how far apart, a change is
	// announced, since frames get lost (RFC 5227 section 2.3 asks for 2 at 2 s,
	// RFC 4861 section 7.2.6 allows 3).
	burst         = 3
	burstInterval = time.Second
)

// Interface is a link to announce on.
type Interface struct {
	Name string
	MAC  packet.MAC
	Up   bool
}

// Announcer announces VIPs. Its methods may be called from any goroutine.
type Announcer struct {
	log      *slog.Logger
	announce func(Interface, []netip.Addr) error
	change   chan struct{}

	mu         sync.Mutex
	vips       []netip.Addr
	interfaces []Interface
	status     map[Key]Status
}

// Key names one announcement.
type Key struct {
	Address   netip.Addr
	Interface string
}

// Status is what has become of an announcement.
type Status struct {
	Sent uint64    // announcements sent
	Last time.Time // when the last one was; zero for never
	Err  string    // why the last attempt failed; empty if it did not
}

// New makes an announcer; it starts nothing.
func New(log *slog.Logger) *Announcer {
	return &Announcer{log: log, announce: announce, change: make(chan struct{}, 1), status: make(map[Key]Status)}
}

// Set makes vips and interfaces the set to announce, and keeps both. If it
// differs from the set before (an address, a link that came up, another MAC),
// all of it is announced at once.
func (a *Announcer) Set(vips []netip.Addr, interfaces []Interface) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(a.vips, vips) && slices.Equal(a.interfaces, interfaces) {
		return
	}
	a.vips, a.interfaces = vips, interfaces
	wanted := make(map[Key]Status)
	for _, i := range interfaces {
		for _, v := range vips {
			key := Key{v, i.Name}
			wanted[key] = a.status[key]
		}
	}
	a.status = wanted
	select {
	case a.change <- struct{}{}:
	default:
	}
}

// Status returns what has become of each announcement.
func (a *Announcer) Status() map[Key]Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.status)
}

// Run announces until ctx ends.
func (a *Announcer) Run(ctx context.Context) error {
	for left := burst; ; left-- {
		a.round()
		wait := burstInterval
		if left <= 1 {
			wait = Interval
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.change:
			left = burst + 1
		case <-time.After(wait):
		}
	}
}

// round announces every VIP once on every link that is up.
func (a *Announcer) round() {
	a.mu.Lock()
	vips, interfaces := a.vips, a.interfaces
	a.mu.Unlock()
	for _, i := range interfaces {
		if !i.Up || len(vips) == 0 {
			continue
		}
		err := a.announce(i, vips)
		if err != nil {
			a.log.Warn("cannot announce VIPs", "interface", i.Name, "error", err)
		}
		a.note(i, vips, err)
	}
}

func (a *Announcer) note(i Interface, vips []netip.Addr, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range vips {
		key := Key{v, i.Name}
		s, wanted := a.status[key]
		if !wanted {
			continue
		}
		if err != nil {
			s.Err = err.Error()
		} else {
			s = Status{Sent: s.Sent + 1, Last: time.Now()}
		}
		a.status[key] = s
	}
}

// announce sends one announcement of each VIP. The socket is bound to no
// protocol, so it receives nothing.
func announce(i Interface, vips []netip.Addr) error {
	ifi, err := net.InterfaceByName(i.Name)
	if err != nil {
		return fmt.Errorf("look up interface: %w", err)
	}
	conn, err := mdpacket.Listen(ifi, mdpacket.Raw, 0, nil)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	var errs []error
	for _, v := range vips {
		frame := Frame(v, i.MAC)
		to := packet.Ethernet(frame).Dst()
		if _, err := conn.WriteTo(frame, &mdpacket.Addr{HardwareAddr: to.HardwareAddr()}); err != nil {
			errs = append(errs, fmt.Errorf("announce %s: %w", v, err))
		}
	}
	return errors.Join(append(errs, conn.Close())...)
}

// Frame returns the announcement of a VIP by a station: for IPv4 an ARP
// announcement (RFC 5227 section 3, a broadcast request for one's own address),
// for IPv6 an unsolicited neighbour advertisement to all nodes with the
// override flag (RFC 4861 section 7.2.6).
func Frame(vip netip.Addr, mac packet.MAC) []byte {
	if vip.Is4() {
		frame := make([]byte, packet.EthernetLen+packet.ARPLen)
		packet.Ethernet(frame).Encode(&packet.EthernetFields{
			Dst: packet.BroadcastMAC(), Src: mac, Type: packet.EtherTypeARP,
		})
		packet.ARP(frame[packet.EthernetLen:]).Encode(&packet.ARPFields{
			Operation: packet.ARPRequest,
			SenderMAC: mac, SenderIP: vip.As4(), TargetIP: vip.As4(),
		})
		return frame
	}
	allNodes := netip.IPv6LinkLocalAllNodes().As16()
	frame := make([]byte, packet.EthernetLen+packet.IPv6Len+packet.NeighborAdvertLen)
	packet.Ethernet(frame).Encode(&packet.EthernetFields{
		Dst: packet.MulticastMAC(allNodes), Src: mac, Type: packet.EtherTypeIPv6,
	})
	ip := packet.IPv6(frame[packet.EthernetLen:])
	ip.Encode(&packet.IPv6Fields{
		PayloadLength: packet.NeighborAdvertLen,
		NextHeader:    packet.ProtoICMPv6,
		HopLimit:      packet.NDPHopLimit,
		Src:           vip.As16(), Dst: allNodes,
	})
	packet.ICMPv6(ip.Payload()).EncodeNeighborAdvert(&packet.NeighborAdvertFields{
		Override: true,
		Target:   vip.As16(), TargetMAC: mac,
		Src: vip.As16(), Dst: allNodes,
	})
	return frame
}
