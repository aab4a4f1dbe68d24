package site

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"weir/lab/netlab"
	"weir/lab/traffic"
)

// Backend is a server behind weir: a host that holds the VIPs on lo, but for
// those of mode nat, with HTTP and echo on each of them, and with the same on
// two ports of its own addresses.
type Backend struct {
	Name         string
	Host         *netlab.Host
	Addr4, Addr6 netip.Addr
	MAC          string // of its interface eth0, as it was when it was made

	site   *Site
	server *traffic.Server // nil while it is stopped
	stop   context.CancelFunc
	ended  chan struct{} // closed when the server has
}

func newBackend(s *Site, i int) *Backend {
	number := 11 + i
	segment := 0
	if s.split() {
		segment = 1
	}
	b := &Backend{
		Name:  fmt.Sprintf("b%d", i+1),
		Addr4: netip.AddrFrom4([4]byte{10, 0, byte(segment), byte(number)}),
		Addr6: netip.MustParseAddr(fmt.Sprintf("fd00::%d", number)),
		site:  s,
	}
	if s.split() {
		b.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", number))
	}
	return b
}

func (b *Backend) addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return b.Addr6
	}
	return b.Addr4
}

func (b *Backend) build(ctx context.Context) (err error) {
	if b.Host, err = b.site.Lab.Host(b.Name); err != nil {
		return err
	}
	link, err := b.Host.Connect(b.site.BackNet, netlab.Iface{Name: "eth0", MTU: b.site.opt.HopMTU, Addrs: []netip.Prefix{
		netip.PrefixFrom(b.Addr4, 24), netip.PrefixFrom(b.Addr6, 64),
	}})
	if err != nil {
		return err
	}
	b.MAC = link.MAC.String()
	for _, vip := range b.site.localVIPs() {
		if err := b.Host.ServeVIP(vip.Addr()); err != nil {
			return err
		}
	}
	if err := b.Host.Do(b.routes); err != nil {
		return err
	}
	if err := b.openServers(ctx); err != nil {
		return err
	}
	if b.site.opt.Modes&IPIP == 0 {
		return nil
	}
	return b.startDecap()
}

// startDecap runs weir decap, which stays until the site is closed, and waits
// until it has its program on the interface.
func (b *Backend) startDecap() error {
	p, err := b.Host.Start(exec.Command(b.site.opt.Weir, "decap", "--interface", "eth0",
		"--vip", b.site.IPIP4.Addr().String(), "--vip", b.site.IPIP6.Addr().String()))
	if err != nil {
		return err
	}
	deadline := time.Now().Add(stopGrace)
	for !strings.Contains(p.Output(), "stripping") {
		select {
		case <-p.Done():
			return fmt.Errorf("weir decap on %s: %w: %s", b.Name, exitError(p), p.Output())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("weir decap on %s: not ready in %v: %s", b.Name, stopGrace, p.Output())
		}
	}
	return nil
}

func (b *Backend) openServers(ctx context.Context) error {
	listen := b.site.localVIPs()
	var streams []netip.AddrPort
	for _, vip := range listen {
		streams = append(streams, netip.AddrPortFrom(vip.Addr(), StreamPort))
	}
	for _, own := range []netip.Addr{b.Addr4, b.Addr6} {
		listen = append(listen, netip.AddrPortFrom(own, WebPort), netip.AddrPortFrom(own, HealthPort))
		streams = append(streams, netip.AddrPortFrom(own, StreamPort))
	}
	server, err := traffic.NewServer(ctx, traffic.ServerConfig{
		Name: b.Name, TCP: listen, UDP: listen, Streams: streams,
		Listen: b.Host.Listen, ListenPacket: b.Host.ListenPacket,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	b.server, b.stop, b.ended = server, stop, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = server.Run(running) // an end before closeServers is seen by the clients
	}(b.ended)
	return nil
}

func (b *Backend) closeServers() {
	if b.server == nil {
		return
	}
	b.stop()
	<-b.ended
	b.server = nil
}

// Seen returns how often each address appears in the backend's access log, in
// which every HTTP request since its last start is.
func (b *Backend) Seen() map[netip.Addr]int { return b.server.Seen() }

// SetHealthy decides what the backend answers to health checks.
func (b *Backend) SetHealthy(healthy bool) { b.server.SetHealthy(healthy) }

// Stop makes the backend as silent as a machine that lost its power: first its
// link goes down, and then its servers close.
func (b *Backend) Stop() error {
	err := b.Host.LinkDown("eth0")
	b.closeServers()
	return err
}

// Start brings a backend back that was stopped.
func (b *Backend) Start() error {
	if b.server != nil {
		return errors.New("start backend " + b.Name + ": it is not stopped")
	}
	if err := b.Host.LinkUp("eth0"); err != nil {
		return err
	}
	if err := b.Host.Do(b.routes); err != nil {
		return err
	}
	return b.openServers(context.Background())
}
