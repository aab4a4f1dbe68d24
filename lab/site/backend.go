package site

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"weir/lab/netlab"
	"weir/lab/traffic"
)

// Ports of the backends. On WebPort of its own addresses, and on HealthPort of
// these and of the VIPs that it holds, a backend serves the same as on a VIP's
// own port, and on StreamPort of all its addresses TCP echo.
const (
	WebPort    uint16 = 80
	HealthPort uint16 = 8080
	StreamPort uint16 = 7
)

// BackendSpec says what a backend is like.
type BackendSpec struct {
	Name         string
	Net          *netlab.Switch
	MTU          int // 0: 1500
	Addr4, Addr6 netip.Addr

	// VIPs are what it holds on lo and serves; none in mode nat.
	VIPs []netip.AddrPort

	// Tunnelled are the VIPs of mode ipip, for which it runs weir decap, with the
	// binary Weir.
	Tunnelled []netip.Addr
	Weir      string

	// Routes is run inside the host each time its link has come up; nil: it needs
	// none but those of its link.
	Routes func() error
}

// Backend is a server behind weir: a host that holds the VIPs on lo, but for
// those of mode nat, with HTTP and echo on each of them, and with the same on
// two ports of its own addresses.
type Backend struct {
	Name         string
	Host         *netlab.Host
	Addr4, Addr6 netip.Addr
	MAC          string // of its interface eth0, as it was when it was made

	spec   BackendSpec
	decap  *netlab.Process // nil: it strips nothing
	server *traffic.Server // nil while it is stopped
	stop   context.CancelFunc
	ended  chan struct{} // closed when the server has
}

// NewBackend adds a backend to a lab, and starts its servers.
func NewBackend(ctx context.Context, lab *netlab.Lab, spec BackendSpec) (*Backend, error) {
	b := &Backend{Name: spec.Name, Addr4: spec.Addr4, Addr6: spec.Addr6, spec: spec}
	if err := b.build(ctx, lab); err != nil {
		b.Close()
		return nil, fmt.Errorf("new backend %s: %w", spec.Name, err)
	}
	return b, nil
}

func (b *Backend) build(ctx context.Context, lab *netlab.Lab) (err error) {
	if b.Host, err = lab.Host(b.Name); err != nil {
		return err
	}
	link, err := b.Host.Connect(b.spec.Net, netlab.Iface{Name: "eth0", MTU: b.spec.MTU, Addrs: []netip.Prefix{
		netip.PrefixFrom(b.Addr4, 24), netip.PrefixFrom(b.Addr6, 64),
	}})
	if err != nil {
		return err
	}
	b.MAC = link.MAC.String()
	for _, vip := range b.vips() {
		if err := b.Host.ServeVIP(vip); err != nil {
			return err
		}
	}
	if err := b.routes(); err != nil {
		return err
	}
	if err := b.openServers(ctx); err != nil {
		return err
	}
	if len(b.spec.Tunnelled) == 0 {
		return nil
	}
	return b.StartDecap()
}

// vips returns the addresses it holds, each once.
func (b *Backend) vips() (addrs []netip.Addr) {
	for _, vip := range b.spec.VIPs {
		if !slices.Contains(addrs, vip.Addr()) {
			addrs = append(addrs, vip.Addr())
		}
	}
	return addrs
}

func (b *Backend) routes() error {
	if b.spec.Routes == nil {
		return nil
	}
	return b.Host.Do(b.spec.Routes)
}

// Addr returns its own address of one family.
func (b *Backend) Addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return b.Addr6
	}
	return b.Addr4
}

// StartDecap runs weir decap, which stays until StopDecap or the end of the
// lab, and waits until it has its program on the interface.
func (b *Backend) StartDecap() error {
	args := []string{"decap", "--interface", "eth0"}
	for _, vip := range b.spec.Tunnelled {
		args = append(args, "--vip", vip.String())
	}
	p, err := b.Host.Start(exec.Command(b.spec.Weir, args...))
	if err != nil {
		return err
	}
	b.decap = p
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

// StopDecap ends weir decap: what comes through a tunnel is not taken any more.
func (b *Backend) StopDecap() error {
	if b.decap == nil {
		return nil
	}
	p := b.decap
	b.decap = nil
	return p.Stop(stopGrace)
}

func (b *Backend) openServers(ctx context.Context) error {
	listen := slices.Clone(b.spec.VIPs)
	var streams []netip.AddrPort
	for _, vip := range b.vips() {
		streams = append(streams, netip.AddrPortFrom(vip, StreamPort))
	}
	for _, own := range []netip.Addr{b.Addr4, b.Addr6} {
		listen = append(listen, netip.AddrPortFrom(own, WebPort), netip.AddrPortFrom(own, HealthPort))
		streams = append(streams, netip.AddrPortFrom(own, StreamPort))
	}
	web := slices.Clone(listen)
	for _, vip := range b.vips() {
		web = append(web, netip.AddrPortFrom(vip, HealthPort))
	}
	server, err := traffic.NewServer(ctx, traffic.ServerConfig{
		Name: b.Name, TCP: web, UDP: listen, Streams: streams,
		Listen: b.Host.Listen, ListenPacket: b.Host.ListenPacket,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	b.server, b.stop, b.ended = server, stop, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = server.Run(running) // an end before Close is seen by the clients
	}(b.ended)
	return nil
}

// Close ends its servers. Its host is the lab's to remove.
func (b *Backend) Close() {
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
	b.Close()
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
	if err := b.routes(); err != nil {
		return err
	}
	return b.openServers(context.Background())
}
