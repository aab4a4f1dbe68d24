package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/lab/site"
)

// reporter is a UDP socket that asks its kernel for the ICMP errors about what
// it has sent (ip(7) and ipv6(7), IP_RECVERR and IPV6_RECVERR).
type reporter struct{ fd int }

func openReporter(t *testing.T, h *netlab.Host, addr netip.AddrPort) *reporter {
	t.Helper()
	r := &reporter{fd: -1}
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVERR
	var local unix.Sockaddr
	if addr.Addr().Is6() {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVERR
		local = &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
	} else {
		local = &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	}
	err := h.Do(func() (err error) {
		if r.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(int64(5 * time.Second))
		return errors.Join(
			unix.SetsockoptInt(r.fd, level, option, 1),
			unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
			unix.Bind(r.fd, local))
	})
	t.Cleanup(func() { unix.Close(r.fd) })
	if err != nil {
		t.Fatalf("open socket on %s of %s: %v", addr, h.Name(), err)
	}
	return r
}

// report is an ICMP error as a socket gets it.
type report struct {
	errno       unix.Errno
	origin      byte       // unix.SO_EE_ORIGIN_ICMP or its like for IPv6
	destination netip.Addr // of the packet that caused it
	port        int
}

// errNoReport says that there is no report yet.
var errNoReport = errors.New("no ICMP error has arrived")

// report returns the next report (linux/errqueue.h, struct sock_extended_err).
func (r *reporter) report() (report, error) {
	buf, oob := make([]byte, 256), make([]byte, 256)
	_, n, _, to, err := unix.Recvmsg(r.fd, buf, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return report{}, errNoReport
	}
	if err != nil {
		return report{}, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return report{}, err
	}
	for _, m := range messages {
		if m.Header.Type != unix.IP_RECVERR && m.Header.Type != unix.IPV6_RECVERR || len(m.Data) < 16 {
			continue
		}
		got := report{errno: unix.Errno(binary.NativeEndian.Uint32(m.Data)), origin: m.Data[4]}
		switch a := to.(type) {
		case *unix.SockaddrInet4:
			got.destination, got.port = netip.AddrFrom4(a.Addr), a.Port
		case *unix.SockaddrInet6:
			got.destination, got.port = netip.AddrFrom16(a.Addr), a.Port
		}
		return got, nil
	}
	return report{}, fmt.Errorf("no IP_RECVERR in %v", messages)
}

// unreachable makes the router say that a host is unreachable, or not any more.
func (s *testSite) unreachable(addr netip.Addr, yes bool) {
	s.t.Helper()
	s.must(s.Router.Do(func() error {
		route := &netlink.Route{Type: unix.RTN_UNREACHABLE, Dst: &net.IPNet{
			IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen()),
		}}
		if yes {
			return netlink.RouteAdd(route)
		}
		return netlink.RouteDel(route)
	}))
}

// TestUnreachable has a router on the clients' side say that the client is not
// there any more, just when a backend answers. The backend's socket gets to know
// it, about a packet that it has sent itself.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	const port = 9
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{
			Backends: 1, FarMTU: 1500, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.DSR | site.IPIP | site.NAT,
		}, func(c *site.Config) {
			for i := range c.Services {
				c.Services[i].Ports = append(c.Services[i].Ports, fmt.Sprintf("udp/%d", port))
				c.Services[i].SetPort(0)
			}
		})
		b := s.Backends[0]
		for _, v := range []struct {
			name  string
			vip   netip.Addr // or the backend itself, to compare with
			local netip.Addr // of the backend's socket
		}{
			{"without-weir-4", b.Addr4, b.Addr4}, {"without-weir-6", b.Addr6, b.Addr6},
			{"dsr-4", s.DSR4.Addr(), s.DSR4.Addr()}, {"dsr-6", s.DSR6.Addr(), s.DSR6.Addr()},
			{"ipip-4in4", s.IPIP4.Addr(), s.IPIP4.Addr()}, {"ipip-6in6", s.IPIP6.Addr(), s.IPIP6.Addr()},
			{"nat-4", s.NAT4.Addr(), b.Addr4}, {"nat-6", s.NAT6.Addr(), b.Addr6},
			{"nat-46", s.NAT46.Addr(), b.Addr6}, {"nat-64", s.NAT64.Addr(), b.Addr4},
		} {
			t.Run(v.name, func(t *testing.T) {
				s := s.in(t)
				far, want := s.Far4, unix.EHOSTUNREACH
				if v.vip.Is6() {
					far = s.Far6
				}
				if v.local.Is6() {
					want = unix.ENETUNREACH // no route to destination, RFC 4443 section 3.1 and RFC 7915 section 4.2
				}
				backend := openReporter(t, b.Host, netip.AddrPortFrom(v.local, port))
				client, err := s.FarHost.DialContext(s.ctx, "udp", netip.AddrPortFrom(v.vip, port).String())
				s.must(err)
				defer client.Close()
				_, err = client.Write([]byte("question"))
				s.must(err)
				_, peer, err := unix.Recvfrom(backend.fd, make([]byte, 100), 0)
				if err != nil {
					t.Fatalf("the question does not arrive: %v", err)
				}
				s.unreachable(far, true)
				defer s.unreachable(far, false)
				s.must(unix.Sendto(backend.fd, []byte("answer"), 0, peer))
				var got report
				s.await("the error arrives", func() (err error) {
					got, err = backend.report()
					return err
				})
				destination, destinationPort := hostPort(peer)
				if got.errno != want || got.destination != destination || got.port != destinationPort {
					t.Errorf("the backend gets %+v, want %v about a packet to %v port %d", got, want, destination, destinationPort)
				}
			})
		}
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

func hostPort(a unix.Sockaddr) (netip.Addr, int) {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), a.Port
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr), a.Port
	}
	return netip.Addr{}, 0
}

// TestRefusedBehindNAT has the backends listen on no such port. Their kernels say
// so by ICMP for UDP and by a reset for TCP, and the client's get it.
func TestRefusedBehindNAT(t *testing.T) {
	t.Parallel()
	const closed = 4711
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT}, func(c *site.Config) {
			for i := range c.Services {
				c.Services[i].SetPort(closed)
			}
		})
		for _, n := range s.natCases() {
			for range 8 { // on various workers
				conn := s.newFlowConn(n.vip)
				s.must(conn.SetDeadline(time.Now().Add(5 * time.Second)))
				_, err := conn.Write([]byte("anybody there?"))
				s.must(err)
				if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s, udp: %v, want refused", n.service, err)
				}
				tcp, err := s.ClientHost.DialContext(contextFor(t, 5*time.Second), "tcp", n.vip.String())
				if !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s, tcp: %v, want refused", n.service, err)
				}
				if err == nil {
					tcp.Close()
				}
			}
		}
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}
