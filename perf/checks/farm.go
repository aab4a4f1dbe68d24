package checks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"weir/lab/netlab"
)

// A farm is many backends in one host: their addresses, weir decap, and one
// server on the VIP and on all of them. Weir cannot tell.
type farm struct {
	backends []netip.Addr
	listener net.Listener

	vip, own, answered atomic.Uint64
	serving            sync.WaitGroup
	err                error // that serve has ended with; serve's until it has
}

// served is what servers have seen.
type served struct {
	VIP      uint64 `json:"vip"`      // connections to the VIP, which come by a tunnel
	Own      uint64 `json:"own"`      // connections to an address of a backend
	Answered uint64 `json:"answered"` // requests
}

func (s *served) add(t served) {
	s.VIP += t.VIP
	s.Own += t.Own
	s.Answered += t.Answered
}

func (s served) since(before served) served {
	return served{s.VIP - before.VIP, s.Own - before.Own, s.Answered - before.Answered}
}

// newFarm adds a host with that many backends, and cables it to the router.
func newFarm(ctx context.Context, lab *netlab.Lab, router *netlab.Host, n, backends int, weir string) (_ *farm, err error) {
	f := &farm{}
	host, err := lab.Host(fmt.Sprintf("farm%d", n))
	if err != nil {
		return nil, err
	}
	hop := netip.AddrFrom4([4]byte{10, 0, byte(1 + n), 1})
	gate := hop.Next()
	err = router.ConnectTo(host,
		netlab.Iface{Name: fmt.Sprintf("eth%d", 1+n), Addrs: []netip.Prefix{netip.PrefixFrom(hop, 24)}},
		netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(gate, 24)}})
	if err != nil {
		return nil, err
	}
	network := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + n)}), 16)
	for a := network.Addr().Next(); len(f.backends) < backends; a = a.Next() {
		f.backends = append(f.backends, a)
	}
	err = errors.Join(
		router.AddRoute(network, gate),
		host.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), hop),
		host.ServeVIP(vip.Addr()))
	if err != nil {
		return nil, err
	}
	for _, a := range f.backends {
		if err := host.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return nil, err
		}
	}
	if err := startDecap(host, weir); err != nil { // after the addresses, so that it reads them once
		return nil, err
	}
	if f.listener, err = host.Listen(ctx, "tcp4", fmt.Sprintf(":%d", vip.Port())); err != nil {
		return nil, err
	}
	f.serving.Go(f.serve)
	return f, nil
}

// patience is how long weir decap may take to be ready.
const patience = 10 * time.Second

// startDecap runs weir decap for the VIP until the end of the lab.
func startDecap(host *netlab.Host, weir string) error {
	p, err := host.Start(exec.Command(weir, "decap", "--interface", "eth0", "--vip", vip.Addr().String()))
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); !strings.Contains(p.Output(), "stripping"); {
		select {
		case <-p.Done():
			return fmt.Errorf("weir decap has ended: %w: %s", p.Wait(), p.Output())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("weir decap is not ready after %v: %s", patience, p.Output())
		}
	}
	return nil
}

// serve takes connections until the listener is closed. Each check is one.
func (f *farm) serve() {
	for {
		conn, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.err = fmt.Errorf("serve backends: %w", err)
			return
		}
		if conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() == vip.Addr() {
			f.vip.Add(1)
		} else {
			f.own.Add(1)
		}
		go f.answer(conn)
	}
}

const okay = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"

// gone is after what time a client that says nothing is taken for one that has
// gone: longer than any check.
const gone = 2 * time.Second

// answer answers one request, or waits for the client to go. What weir was asking
// as it ended may never be reset, so nobody waits for this.
func (f *farm) answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(gone)) // of a closed one Read says more
	if n, _ := conn.Read(make([]byte, 512)); n == 0 {
		return
	}
	if _, err := conn.Write([]byte(okay)); err == nil {
		f.answered.Add(1)
	}
}

func (f *farm) served() served { return served{f.vip.Load(), f.own.Load(), f.answered.Load()} }

// close ends the server. Its host is the lab's to remove.
func (f *farm) close() error {
	err := f.listener.Close()
	f.serving.Wait()
	return errors.Join(err, f.err)
}
