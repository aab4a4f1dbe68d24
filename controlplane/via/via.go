// Package via lets kernel sockets talk to a VIP on one given backend, by the way
// that weir's own frames take to it.
//
// The problem it solves: a health check has to prove what a client will find, so
// it has to ask for the VIP and not for the backend's own address. But many
// backends share the VIP, nobody on the link answers ARP for it, and a kernel
// that is asked to send to it would look for whoever does. So the packets of such
// a socket, marked with SO_MARK, are led by one routing rule into a TUN device
// that nothing else ever enters. This package reads them from there, finds out by
// their source port which backend they are meant for, does to them what the data
// plane does to a client's packets (package rewrite), and sends the frame by a
// packet socket. The answer comes in the ordinary way, addressed to the box, and
// the kernel gives it to the socket: TCP, TLS and HTTP are the kernel's and Go's.
//
//	socket, mark ─▶ rule ─▶ table ─▶ weir0 (TUN) ─▶ Run: port ─▶ Way, Rewrite ─▶ NIC
//	   ▲                                                                          │
//	   └───────────── kernel, source VIP, to the box's address ◀─ backend ◀───────┘
//
// What has to be true of the box: it has an address of the VIP's family, and
// strict reverse-path filtering (rp_filter 1) is off, or the way back to the VIP
// leaves by the interface that answers come in by, which it does for a VIP of a
// connected network and for the side of the default route. With loose filtering
// (2) it is enough that there is any route to the VIP. IPv6 has no such filter.
// The mark plays no part in it, whatever src_valid_mark says: answers carry none.
//
// What it cannot do: an answer that comes after its socket has given up and closed
// is reset by the kernel itself, and that reset has no mark, so it takes the
// kernel's routes to the VIP. And a backend that does not have the VIP but forwards
// packets for it (ip_forward) may pass them to somebody who answers; package doctor
// finds that out.
package via

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
)

// ErrClosed is returned by what needs a Network that has been closed.
var ErrClosed = errors.New("via: closed")

// sendBuffer is how many bytes of frames may be under way to the NICs.
const sendBuffer = 1 << 20

// Way is how packets for a VIP reach one backend. It is comparable.
type Way struct {
	// Interface is the name of the NIC that frames leave by. The Egress of the
	// rewrites is not looked at.
	Interface string

	// IPv4 and IPv6 are what is done to packets of that family, if Has4 and Has6.
	IPv4, IPv6 rewrite.Rewrite
	Has4, Has6 bool

	// Source4 and Source6 are the box's addresses to ask from. Invalid means one
	// is chosen, of Interface if it has any.
	Source4, Source6 netip.Addr

	// Reason says why there is no way; empty if there is one.
	Reason string

	// Unreachable says that Reason is the backend's fault: it does not answer on
	// the link. Checks by such a way fail. By any other without a way they cannot
	// be made (health.ErrUnable), which counts against nobody.
	Unreachable bool
}

// Stats counts packets of marked sockets since Open.
type Stats struct {
	Sent      uint64 // frames that the kernel took
	Stray     uint64 // of no socket that is known here: noise of the TUN device, or of somebody else's mark
	Unfit     uint64 // not to be decoded, or refused by the rewrite, as one that is too long
	NotSent   uint64 // the interface is down, gone or full
	LastError string // of the latest that was not sent; empty for none
}

// Network is the way in. Its methods may be called from any goroutine.
type Network struct {
	log     *slog.Logger
	netlink *netlink.Handle
	routing *routing // device, rules and routes
	sources *sources
	flows   *flows
	packets int // AF_PACKET socket, for Run alone

	plain   *health.Kernel                // for the way ""
	steered atomic.Pointer[health.Kernel] // its sockets are marked; another one after each loss of the device
	losses  atomic.Uint64                 // of the device, so far

	waysMu sync.RWMutex
	ways   map[string]*Way // guarded by waysMu; what it leads to is never written

	sent, stray, unfit, notSent atomic.Uint64
	lastError                   atomic.Pointer[string]

	waker    *queue.Waker
	troubled [2]bool // Run's own, by family: a loss of its way has been logged

	mu      sync.Mutex
	running chan struct{} // closed when Run has ended; nil before it
	closed  bool
}

// Open makes the TUN device, its routes and its rules in the network namespace of
// the calling thread, and takes over what a process that was killed has left. It
// starts nothing. The error names what is missing: /dev/net/tun, or
// CAP_NET_ADMIN and CAP_NET_RAW.
//
// A box without IPv6 gets no IPv6 until it has some; checks over it are unable.
func Open(log *slog.Logger) (*Network, error) {
	n := &Network{log: log, packets: -1, plain: health.NewKernel(nil)}
	n.steered.Store(health.NewKernel(n))
	n.ways = make(map[string]*Way)
	if err := n.open(); err != nil {
		n.release()
		return nil, fmt.Errorf("open a way to VIPs on single backends: %w", err)
	}
	return n, nil
}

func (n *Network) open() (err error) {
	if n.waker, err = queue.NewWaker(); err != nil {
		return err
	}
	n.flows = newFlows(n.waker.Wake)
	n.packets, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("open packet socket (run as root or with CAP_NET_RAW): %w", err)
	}
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	// The system's default holds a few hundred small frames. Less is no failure.
	_ = unix.SetsockoptInt(n.packets, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err)
	}
	n.netlink = handle
	if n.sources, err = newSources(handle); err != nil {
		return err
	}
	n.routing = newRouting(handle)
	return n.routing.open()
}

// SetWays replaces all ways. The key of one is what Dial and Ping are given. A
// connection that is open goes on by the way it began with.
func (n *Network) SetWays(ways map[string]Way) {
	n.waysMu.Lock()
	defer n.waysMu.Unlock()
	n.ways = make(map[string]*Way, len(ways))
	for key, w := range ways {
		n.ways[key] = &w
	}
}

// ChangeWays replaces some ways, and takes those that are gone away; the others
// stay as they are.
func (n *Network) ChangeWays(ways map[string]Way, gone []string) {
	n.waysMu.Lock()
	defer n.waysMu.Unlock()
	for _, key := range gone {
		delete(n.ways, key)
	}
	for key, w := range ways {
		n.ways[key] = &w
	}
}

func (n *Network) wayOf(key string) *Way {
	n.waysMu.RLock()
	defer n.waysMu.RUnlock()
	return n.ways[key]
}

// Stats returns what has become of packets so far. It reads a few counters: it may
// be called as often as one likes.
func (n *Network) Stats() Stats {
	s := Stats{Sent: n.sent.Load(), Stray: n.stray.Load(), Unfit: n.unfit.Load(), NotSent: n.notSent.Load()}
	if text := n.lastError.Load(); text != nil {
		s.LastError = *text
	}
	return s
}

// Device returns the name of the TUN device, as it was last.
func (n *Network) Device() string { return n.routing.now.Load().device }

// Run moves packets until ctx is done or Close is called, and returns nil then. It
// may be called once, in the namespace of Open. Without it, what is dialled by a
// way gets no answer.
//
// If somebody deletes the device, it makes another one; until then, checks by a
// way are unable. An error is returned only for a second call.
func (n *Network) Run(ctx context.Context) error {
	n.mu.Lock()
	if n.closed || n.running != nil {
		n.mu.Unlock()
		return fmt.Errorf("run: %w, or running already", ErrClosed)
	}
	ended := make(chan struct{})
	n.running = ended
	n.mu.Unlock()
	defer close(ended)
	defer context.AfterFunc(ctx, n.waker.Wake)()
	n.serve(ctx)
	return nil
}

// Close ends Run, closes the sockets that are still being wound up, and takes
// device, routes and rules away. It may be called twice. Connections that are
// still open lose their way.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	running := n.running
	n.mu.Unlock()
	n.flows.stop() // wakes Run
	if running != nil {
		<-running
	}
	return errors.Join(n.steered.Load().Close(), n.plain.Close(), n.release())
}

// release frees what Open has made, as far as it came.
func (n *Network) release() error {
	var errs []error
	if n.routing != nil {
		errs = append(errs, n.routing.Close())
	}
	if n.sources != nil {
		n.sources.Close()
	}
	if n.netlink != nil {
		n.netlink.Close()
	}
	if n.packets >= 0 {
		errs = append(errs, unix.Close(n.packets))
	}
	if n.waker != nil {
		errs = append(errs, n.waker.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close via: %w", err)
	}
	return nil
}
