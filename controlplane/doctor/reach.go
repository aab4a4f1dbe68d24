package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/packet"
)

// reach asks the backend at its own address. For modes dsr and ipip what it does
// not answer there is judged only once the VIP was asked: it need not listen there,
// and may filter pings.
func (e *examination) reach(ctx context.Context) []Diagnosis {
	s := &e.subject
	ping := e.ping(ctx, e.plain, s.Backend, "")
	pinged := e.pinged(&ping)
	all := []Diagnosis{pinged}
	if ping.outcome == answered {
		mtu := e.pathMTU(ctx)
		all = append(all, mtu)
		if mtu.Status == Fail {
			return all
		}
	} else {
		all = append(all, skipped(PathMTU, "it is found by pings, and %s answers none", s.Backend))
	}
	if s.Port == 0 {
		e.alive = ping.outcome == answered
		return all
	}
	to := netip.AddrPortFrom(s.Backend, s.Port)
	tcp := e.tcp(ctx, e.plain, to, "")
	e.alive = ping.outcome == answered || tcp.outcome == answered || tcp.outcome == refused
	return append(all, e.port(to, &tcp))
}

func (e *examination) pinged(r *result) Diagnosis {
	s := &e.subject
	switch r.outcome {
	case answered:
		return ok(Ping, "%s answers in %v", s.Backend, r.took.Round(10*time.Microsecond))
	case unable:
		return skipped(Ping, "cannot ping: %v", r.err)
	case rejected:
		by := r.find(func(s *seen) bool { return s.kind == problem })
		text := fmt.Sprintf("no answer: %v", r.err)
		if by != nil {
			text = fmt.Sprintf("%s says that %s cannot be reached (ICMP type %d code %d)", by.from, s.Backend, by.icmpType, by.icmpCode)
		}
		return warn(Ping, text, fmt.Sprintf("ping %s; a firewall may keep pings out, which does no harm if all else works", s.Backend))
	}
	return warn(Ping, fmt.Sprintf("%s answers no ping within %v", s.Backend, e.timeout),
		fmt.Sprintf("ping %s; a firewall may keep pings out, which does no harm if all else works", s.Backend))
}

// port judges a connection to the backend's own address.
func (e *examination) port(to netip.AddrPort, r *result) Diagnosis {
	s := &e.subject
	status := warn
	if s.Mode == NAT {
		status = fail
	}
	listeners := fmt.Sprintf("on the backend: ss -ltn 'sport = :%d'", to.Port())
	switch r.outcome {
	case answered:
		return ok(Port, "%s accepts connections", to)
	case unable:
		return skipped(Port, "cannot connect: %v", r.err)
	case refused:
		return status(Port, fmt.Sprintf("%s refuses connections: nothing listens there%s", to, e.perhapsVIP()), listeners)
	case rejected:
		return status(Port, fmt.Sprintf("%s is rejected by an ICMP error: %v", to, r.err), "allow it in the firewall that sends it: nft list ruleset")
	}
	return status(Port, fmt.Sprintf("%s is silent: a firewall drops packets, or the accept queue is full%s", to, e.perhapsVIP()),
		"on the backend: nft list ruleset; nstat -az TcpExtListenOverflows; ss -ltn")
}

func (e *examination) perhapsVIP() string {
	if e.subject.Mode == NAT {
		return ""
	}
	return ", or only at the VIP"
}

// clients reminds of what cannot be seen from here.
func (e *examination) clients(context.Context) []Diagnosis {
	if e.subject.Mode != NAT || !e.subject.KeepClient {
		return nil
	}
	return []Diagnosis{warn(Client, "with client_address: keep, the backend's answers to clients have to pass this box; that cannot be seen from here",
		"on the backend: ip route get CLIENT has to name an address of this box as the gateway")}
}

// pathMTU sends an echo request as long as weir's longest packets, which nobody
// may fragment.
func (e *examination) pathMTU(ctx context.Context) Diagnosis {
	s := &e.subject
	size := s.MTU
	if size == 0 {
		size = e.device.Attrs().MTU
	}
	size = min(size, 65535)
	for range 2 { // one may get lost
		if ctx.Err() != nil {
			break
		}
		err := e.longPing(size)
		if err == nil {
			return ok(PathMTU, "packets of %d bytes arrive", size)
		}
		if errors.Is(err, unix.EMSGSIZE) {
			return warn(PathMTU, fmt.Sprintf("packets of %d bytes do not fit %s, whose MTU is %d", size, e.device.Attrs().Name, e.device.Attrs().MTU),
				fmt.Sprintf("ip link set %s mtu %d, or a smaller mtu for this backend in weir.yaml", e.device.Attrs().Name, size))
		}
		_, all := e.watch.probe()
		for i := range all {
			if all[i].mtu != 0 {
				return warn(PathMTU, fmt.Sprintf("%s says that packets to %s may have %d bytes at most, and weir sends up to %d", all[i].from, s.Backend, all[i].mtu, size),
					fmt.Sprintf("raise the MTU behind %s, or set mtu: %d for this backend in weir.yaml; with path_mtu: learn weir finds out by itself", all[i].from, all[i].mtu))
			}
		}
		if !errors.Is(err, unix.EAGAIN) {
			return skipped(PathMTU, "cannot ping: %v", err)
		}
	}
	return fail(PathMTU, fmt.Sprintf("packets of %d bytes get lost on the way to %s, and nobody says so", size, s.Backend),
		fmt.Sprintf("ping -M do -s %d %s, with smaller and smaller sizes; then the same MTU on all of the link, or mtu: for this backend in weir.yaml", size-echoOverhead(s.Backend), s.Backend))
}

func echoOverhead(a netip.Addr) int {
	if a.Is6() {
		return packet.IPv6Len + packet.ICMPLen
	}
	return packet.IPv4MinLen + packet.ICMPLen
}

// longPing sends one echo request in a packet of size bytes and waits for the
// answer. The errors are EMSGSIZE if it does not fit the interface, and EAGAIN if
// there was no answer.
func (e *examination) longPing(size int) error {
	to := e.subject.Backend
	domain, protocol, level := unix.AF_INET, unix.IPPROTO_ICMP, unix.IPPROTO_IP
	discover, probe, request := unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, packet.ICMPv4EchoRequest
	if to.Is6() {
		domain, protocol, level = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.IPPROTO_IPV6
		discover, probe, request = unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, packet.ICMPv6EchoRequest
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open ICMP socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	// What the kernel has learned about the path before is not asked.
	if err := unix.SetsockoptInt(fd, level, discover, probe); err != nil {
		return fmt.Errorf("forbid fragmentation: %w", err)
	}
	id := uint16(rand.Uint32())
	flow := health.Flow{Protocol: uint8(protocol), Local: netip.AddrPortFrom(netip.Addr{}, id), Remote: netip.AddrPortFrom(to, 0)}
	if err := e.watch.focus(flow); err != nil {
		return err
	}
	m := packet.ICMPv4(make([]byte, size-echoOverhead(to)+packet.ICMPLen))
	m.SetType(request)
	m.SetIdent(id)
	m.SetChecksum(m.ComputeChecksum()) // that of ICMPv6 is the kernel's (RFC 3542 section 3.1)
	if err := unix.Sendto(fd, m, 0, sockaddr(to)); err != nil {
		return fmt.Errorf("send echo request: %w", err)
	}
	there := e.watch.await(e.timeout, func(f health.Flow, s *seen) bool {
		return s.kind == reply && s.from == to || s.mtu != 0
	})
	if _, all := e.watch.probe(); !there || all[0].kind != reply {
		return unix.EAGAIN
	}
	return nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}
