package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"weir/lab/site"
)

// TestFragments sends datagrams of 4 KB through every mode and family, in order
// and reversed. They come back whole, and every flow from one backend.
func TestFragments(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{
			Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.DSR | site.IPIP | site.NAT, FullMSS: true,
		}, nil)
		client := tap(t, s.ClientHost, "eth0")
		for _, vip := range s.VIPs() {
			t.Run(vip.String(), func(t *testing.T) {
				s := s.in(t)
				for range 8 {
					flow := s.newFlow(vip)
					// Where IPv6 gets longer on the way, the kernel is told with the
					// first datagram what fits, and loses it.
					s.await("a datagram comes back", func() error {
						ctx, cancel := context.WithTimeout(s.ctx, 500*time.Millisecond)
						defer cancel()
						return flow.Echo(ctx, large()).Err
					})
					first := flow.Echo(s.ctx, []byte("which backend"))
					for range 4 {
						if r := flow.Echo(s.ctx, large()); r.Err != nil || r.Backend != first.Backend {
							t.Errorf("after %v in one piece: %v", first, r)
						}
					}
				}
				for range 8 {
					s.reversed(client, vip)
				}
			})
		}
		drops := s.drops()
		if n := drops["too_big"]; n > 1 {
			t.Errorf("%d packets were too big, want no more than the second fragment of one datagram", n)
		}
		delete(drops, "too_big")
		if len(drops) > 0 {
			t.Errorf("weir has dropped frames: %v", drops)
		}
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 4})
}

// reversed sends one datagram of a new flow in reversed fragments and reads what
// the backend has made of it.
func (s *testSite) reversed(client *wire, vip netip.AddrPort) {
	s.t.Helper()
	*s.port++
	local := netip.AddrPortFrom(s.clientOf(vip), *s.port)
	conn, err := s.ClientHost.DialFrom(local)(s.ctx, "udp", vip.String())
	s.must(err)
	defer conn.Close()
	d := &datagram{s.link(s.ClientHost, "eth0"), s.link(s.WeirHost, site.Front), local, vip, large()}
	s.must(client.sendReversed(d))
	s.wantDatagram(conn, d.payload)
}

// wantDatagram reads a datagram that ends with a payload.
func (s *testSite) wantDatagram(conn net.Conn, payload []byte) {
	s.t.Helper()
	s.must(conn.SetReadDeadline(time.Now().Add(5 * time.Second)))
	answer := make([]byte, 1<<16)
	n, err := conn.Read(answer)
	if err != nil {
		s.t.Errorf("no answer to a datagram of %d bytes: %v", len(payload), err)
	} else if !bytes.HasSuffix(answer[:n], payload) {
		s.t.Errorf("the answer of %d bytes does not have the %d that were sent", n, len(payload))
	}
}

// TestFragmentedAnswers has the backend send its answers in reversed fragments.
// In mode nat they pass weir.
func TestFragmentedAnswers(t *testing.T) {
	t.Parallel()
	const port = 9999
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{Backends: 1, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT}, func(c *site.Config) {
			for i := range c.Services {
				c.Services[i].SetPort(port)
			}
		})
		b := s.Backends[0]
		wire := tap(t, b.Host, "eth0")
		for _, n := range s.natCases() {
			t.Run(n.service, func(t *testing.T) {
				s := s.in(t)
				own := netip.AddrPortFrom(addrOf(b, n.ipv6), port)
				socket, err := b.Host.ListenPacket(s.ctx, "udp", own.String())
				s.must(err)
				defer socket.Close()
				for range 4 {
					flow := s.newFlowConn(n.vip)
					payload := large()
					_, err := flow.Write(payload[:100])
					s.must(err)
					s.must(socket.SetReadDeadline(time.Now().Add(5 * time.Second)))
					_, from, err := socket.ReadFrom(make([]byte, 1500))
					s.must(err)
					peer := from.(*net.UDPAddr).AddrPort()
					s.must(wire.sendReversed(&datagram{
						macOf(t, b.MAC), s.link(s.WeirHost, site.Front), own, netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port()), payload,
					}))
					s.wantDatagram(flow, payload)
				}
			})
		}
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// newFlowConn is newFlow for those who write and read by themselves.
func (s *testSite) newFlowConn(vip netip.AddrPort) net.Conn {
	s.t.Helper()
	*s.port++
	conn, err := s.ClientHost.DialFrom(netip.AddrPortFrom(s.clientOf(vip), *s.port))(s.ctx, "udp", vip.String())
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// TestBadFragments sends what RFC 1858 and RFC 5722 warn of. It is dropped and
// counted, and hurts no other datagram.
func TestBadFragments(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR}, nil)
		client := tap(t, s.ClientHost, "eth0")
		for i, vip := range s.VIPs() {
			d := &datagram{s.link(s.ClientHost, "eth0"), s.link(s.WeirHost, site.Front), netip.AddrPortFrom(s.clientOf(vip), 7), vip, large()}
			frames, err := d.fragments(fragmentSize(vip.Addr()))
			s.must(err)
			s.must(client.send(frames[0]))
			s.must(client.send(shifted(frames[1], -8)))
			s.await("an overlap is counted", func() error {
				if n := s.drops()["fragment_overlap"]; n < uint64(i+1) {
					return fmt.Errorf("it is %d times: %v", n, s.drops())
				}
				return nil
			})
			if r := s.Client.Echo(s.ctx, vip, large()); r.Err != nil {
				t.Error(r)
			}
		}
	}, xdpCopy, afPacket)
}
