package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
)

const (
	echoHeader  = 8  // bytes of an echo message before its data, RFC 792 and RFC 4443 section 4
	echoPayload = 32 // random bytes of data in a request
	echoBuffer  = 1 << 20
)

// family is what differs between ICMP for IPv4 and for IPv6.
type family struct {
	network  string // for net.ListenConfig
	any      netip.Addr
	protocol uint8
	request  byte // type of an echo request
	reply    byte // type of the answer
}

var (
	family4 = family{"ip4:icmp", netip.IPv4Unspecified(), packet.ProtoICMPv4, packet.ICMPv4EchoRequest, packet.ICMPv4EchoReply}
	family6 = family{"ip6:ipv6-icmp", netip.IPv6Unspecified(), packet.ProtoICMPv6, packet.ICMPv6EchoRequest, packet.ICMPv6EchoReply}
)

// pinger sends the echo requests of one family over one raw socket and gives
// each answer to who waits for it.
type pinger struct {
	family  family
	options func(fd int) error // of the socket, before it is bound

	mu      sync.Mutex
	socket  *net.IPConn // nil until the first ping; the reader's to read, anybody's to write
	closed  bool
	reader  sync.WaitGroup
	waiting map[uint16]*echo // by identifier; guarded by mu
	last    uint16           // the identifier given out last
}

// echo is a request that has no answer yet.
type echo struct {
	to       netip.Addr
	sequence uint16
	payload  [echoPayload]byte
	answered chan error // capacity 1
}

// ping sends an echo request and waits for its answer. An identifier belongs
// to one request at a time, register is told before anything is sent.
func (p *pinger) ping(ctx context.Context, to, source netip.Addr, register func(local netip.AddrPort) (func(), error)) error {
	e := &echo{to: to.WithZone(""), sequence: uint16(rand.Uint32()), answered: make(chan error, 1)}
	for i := range e.payload {
		e.payload[i] = byte(rand.Uint32())
	}
	socket, id, err := p.enter(e)
	if err != nil {
		return err
	}
	local := source
	if !local.IsValid() {
		local = p.family.any
	}
	release, err := register(netip.AddrPortFrom(local, id))
	defer p.leave(id)
	if release != nil {
		defer release() // first, or another flow could have the identifier
	}
	if err != nil {
		return err
	}
	if err := p.send(socket, e.message(p.family.request, id), source, to); err != nil {
		return fmt.Errorf("ping %v: %w", to, err)
	}
	select {
	case err := <-e.answered:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter gives a request an identifier that no other has, and opens the socket
// if it is the first.
func (p *pinger) enter(e *echo) (*net.IPConn, uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, net.ErrClosed
	}
	if p.socket == nil {
		socket, err := p.open()
		if err != nil {
			return nil, 0, fmt.Errorf("open ICMP socket (needs CAP_NET_RAW): %w: %w", ErrUnable, err)
		}
		p.socket, p.waiting, p.last = socket, map[uint16]*echo{}, uint16(rand.Uint32())
		p.reader.Go(func() { p.read(socket) })
	}
	for range 1 << 16 {
		p.last++
		if p.waiting[p.last] == nil {
			p.waiting[p.last] = e
			return p.socket, p.last, nil
		}
	}
	return nil, 0, fmt.Errorf("more than %d pings under way: %w", 1<<16, ErrUnable)
}

func (p *pinger) leave(id uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, id)
}

// open makes the socket, which takes nothing but echo replies.
func (p *pinger) open() (*net.IPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var result error
		err := raw.Control(func(fd uintptr) { result = p.configure(int(fd)) })
		return errors.Join(err, result)
	}}
	socket, err := config.ListenPacket(context.Background(), p.family.network, p.family.any.String())
	if err != nil {
		return nil, err
	}
	return socket.(*net.IPConn), nil
}

func (p *pinger) configure(fd int) error {
	// As much as the system allows; less is no failure.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, echoBuffer)
	var err error
	if p.family.protocol == unix.IPPROTO_ICMP {
		const icmpFilter = 1 // raw(7); the mask says what not to pass
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << p.family.reply))
	} else {
		var filter unix.ICMPv6Filter // RFC 3542 section 3.2; on Linux a set bit blocks
		for i := range filter.Data {
			filter.Data[i] = ^uint32(0)
		}
		filter.Data[p.family.reply/32] &^= 1 << (p.family.reply % 32)
		err = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &filter)
	}
	if err != nil {
		return fmt.Errorf("set ICMP filter: %w", err)
	}
	return p.options(fd)
}

func (p *pinger) send(socket *net.IPConn, message []byte, source, to netip.Addr) error {
	peer := &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	var control []byte
	if source.IsValid() {
		if p.family.protocol == unix.IPPROTO_ICMP {
			control = (&ipv4.ControlMessage{Src: source.AsSlice()}).Marshal()
		} else {
			control = (&ipv6.ControlMessage{Src: source.AsSlice()}).Marshal()
		}
	}
	_, _, err := socket.WriteMsgIP(message, control, peer)
	return err
}

// read takes answers in until the socket is closed.
func (p *pinger) read(socket *net.IPConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := socket.ReadFromIP(buf) // without the IPv4 header
		if err != nil {
			_ = p.drop(socket, err)
			return
		}
		addr, _ := netip.AddrFromSlice(from.IP)
		p.take(buf[:n], addr.Unmap())
	}
}

// take gives an answer to who waits for it. Everything else is not for us: a
// raw socket gets the answers to all pings of this machine.
func (p *pinger) take(message []byte, from netip.Addr) {
	id, sequence, payload, ok := parseEcho(message, p.family.reply)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.waiting[id]
	if e == nil || e.sequence != sequence || e.to != from || !bytes.Equal(e.payload[:], payload) {
		return
	}
	delete(p.waiting, id)
	e.answered <- nil
}

// close ends the pings under way and the reader.
func (p *pinger) close() error {
	p.mu.Lock()
	socket := p.socket
	p.closed = true
	p.mu.Unlock()
	defer p.reader.Wait()
	if socket == nil {
		return nil
	}
	return p.drop(socket, net.ErrClosed)
}

// drop gives a socket up, and the pings that wait for it. The next ping opens
// another one.
func (p *pinger) drop(socket *net.IPConn, why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket != socket {
		return nil
	}
	p.socket = nil
	for id, e := range p.waiting {
		delete(p.waiting, id)
		e.answered <- fmt.Errorf("receive echo replies: %w: %w", ErrUnable, why)
	}
	return socket.Close()
}

// message returns the request. The kernel fills the checksum in for IPv6, RFC
// 3542 section 3.1.
func (e *echo) message(kind byte, id uint16) []byte {
	m := make([]byte, echoHeader, echoHeader+echoPayload)
	m[0] = kind
	m[4], m[5] = byte(id>>8), byte(id)
	m[6], m[7] = byte(e.sequence>>8), byte(e.sequence)
	m = append(m, e.payload[:]...)
	sum := packet.Checksum(m, 0)
	m[2], m[3] = byte(sum>>8), byte(sum)
	return m
}

// parseEcho reads an echo message of one type and code 0.
func parseEcho(m []byte, kind byte) (id, sequence uint16, payload []byte, ok bool) {
	if len(m) < echoHeader || m[0] != kind || m[1] != 0 {
		return 0, 0, nil, false
	}
	return uint16(m[4])<<8 | uint16(m[5]), uint16(m[6])<<8 | uint16(m[7]), m[echoHeader:], true
}
