package generator

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
)

const (
	// FrameLen is the least length that a frame has in bytes: that of Ethernet,
	// without the frame check sequence.
	FrameLen = 60

	// MaxFrameLen is the greatest, for an MTU of 1500 bytes.
	MaxFrameLen = 1514

	// MaxFlows is how many flows there can be: all addresses of FlowSources,
	// each with 16384 source ports from 1024 on.
	MaxFlows = 1 << (17 + 14)
)

// Unlimited is the rate that is as fast as possible.
const Unlimited = math.MaxInt64

// FlowSources returns the addresses that flows come from, those that are for
// measurements (RFC 2544, appendix C.2.2).
func FlowSources() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15) }

// FlowSourcesIPv6 returns the addresses that flows of IPv6 come from: of those
// that are for measurements (RFC 5180, section 8), the first subnet.
func FlowSourcesIPv6() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0, 2}), 64)
}

// OpeningSources returns the addresses that new connections beside the flows
// come from: those that providers share (RFC 6598), for flows may take all that
// there are for measurements.
func OpeningSources() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) }

// OpeningSourcesIPv6 is the same for IPv6: the second subnet of the addresses
// for measurements.
func OpeningSourcesIPv6() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0, 2, 0, 0, 0, 1}), 64)
}

// Options says what to send and where. All of it is needed but what says
// otherwise.
type Options struct {
	Interface   int // index of the interface to send from; on a veth the other end needs GRO or an XDP program in the driver
	Source      net.HardwareAddr
	Destination net.HardwareAddr
	To          netip.AddrPort // IPv4 or IPv6; a flood's is IPv4
	CPU         int            // that Run is pinned to
	Equal       bool           // it has its share of that CPU, and does not give way to all others

	// FrameLen, optional, is the length of every frame in bytes, without the
	// frame check sequence: at least [FrameLen], and what there is to carry,
	// which is what 0 stands for; at most MaxFrameLen. Connection requests
	// carry nothing but their stamp: the rest of the frame is padding.
	FrameLen int

	// At most one of these. With neither it is UDP.
	SYN bool // TCP connection requests, with pseudo-random sequence numbers
	TCP bool // TCP segments with data of connections that are open: each with ACK and the number of its flow as sequence number

	// Flows is how many flows there are, at most MaxFlows; flow n has the n-th
	// source address and port. It is 0 for a flood.
	Flows uint32

	// Zipf, optional, is the exponent of how popular flows are: flow n is drawn
	// with a probability in proportion to (n+1)^-Zipf. With 0 they take turns.
	Zipf float64

	// SYNShare, optional with TCP, is which share of the frames, drawn at
	// random, open new connections instead: from OpeningSources, each from an
	// address and port of its own until all 2^36 were used.
	SYNShare float64

	// Flood, instead of Flows, has every frame come from another address of
	// this IPv4 prefix and another port from 1024 on, both pseudo-random.
	Flood netip.Prefix

	// Beside, optional with a Flood that has SYN, is how many TCP connections
	// to the same address and port there are beside it, from the sources of
	// Flows. They have a rate of their own, and go before the flood.
	Beside uint32

	Seed uint64 // of all that is drawn: the same for the same Seed

	// Stamp, optional but not with Beside, has each frame begin its payload
	// with a magic number, its number among those sent, from 1 on, and the time
	// (bpf/stamp.h): so does a connection request, which may carry data (RFC
	// 9293, section 3.4).
	Stamp bool

	// Batch, optional, is how many frames are made before they are handed to the
	// interface together, at most 256; with 0 it is the kernel's 64. A stamp is
	// as old then as the rest of its batch took to make, which is what a small
	// batch makes short.
	Batch int
}

// check returns what is wrong.
func (opt *Options) check() error {
	if len(opt.Source) != 6 || len(opt.Destination) != 6 {
		return errors.New("source and destination have to be Ethernet addresses")
	}
	if !opt.To.IsValid() || opt.To.Addr().Is4In6() {
		return fmt.Errorf("send to %s: not an IPv4 or IPv6 address and port", opt.To)
	}
	switch {
	case opt.SYN && opt.TCP:
		return errors.New("send connection requests and data: SYNShare is for both")
	case !(opt.SYNShare >= 0 && opt.SYNShare <= 1):
		return fmt.Errorf("share %g of connection requests: it is from 0 to 1", opt.SYNShare)
	case opt.SYNShare > 0 && !opt.TCP:
		return errors.New("a share of connection requests: it is one of TCP")
	case !(opt.Zipf >= 0) || math.IsInf(opt.Zipf, 1):
		return fmt.Errorf("flows by Zipf's law with exponent %g: it is finite and not below 0", opt.Zipf)
	case opt.Batch < 0 || opt.Batch > 256:
		return fmt.Errorf("batches of %d frames: up to 256 are possible", opt.Batch)
	}
	if opt.Flood == (netip.Prefix{}) {
		switch {
		case opt.Flows < 1 || opt.Flows > MaxFlows:
			return fmt.Errorf("%d flows: from 1 to %d are possible", opt.Flows, MaxFlows)
		case opt.Beside != 0:
			return fmt.Errorf("%d flows beside a flood: there is none", opt.Beside)
		}
		return nil
	}
	return opt.checkFlood()
}

func (opt *Options) checkFlood() error {
	switch {
	case !opt.Flood.IsValid() || !opt.Flood.Addr().Is4():
		return fmt.Errorf("flood from %s: not an IPv4 prefix", opt.Flood)
	case !opt.To.Addr().Is4():
		return fmt.Errorf("flood to %s: not an IPv4 address", opt.To)
	case opt.Flows != 0:
		return fmt.Errorf("%d flows: a flood has none", opt.Flows)
	case opt.TCP || opt.Zipf != 0:
		return errors.New("open connections or popular flows: a flood has none")
	case opt.Beside == 0:
		return nil
	case !opt.SYN:
		return fmt.Errorf("%d flows beside a flood: it is not one of TCP connection requests", opt.Beside)
	case opt.Beside > MaxFlows:
		return fmt.Errorf("%d flows beside the flood: %d are possible", opt.Beside, MaxFlows)
	case opt.Flood.Overlaps(FlowSources()):
		return fmt.Errorf("flood from %s: the flows beside it are from %s", opt.Flood, FlowSources())
	case opt.Stamp:
		return errors.New("stamps: flows beside a flood carry none")
	}
	return nil
}
