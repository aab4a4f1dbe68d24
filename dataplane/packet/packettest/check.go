package packettest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// CheckWellFormed decodes a frame as far as it goes, through 802.1Q tags and IP
// inside IP, and returns what is wrong with it: any header cut short, any
// length that does not fit what is around it, any wrong checksum of IPv4, TCP,
// UDP, ICMP and ICMPv6. A fragment's transport header is not looked at. A frame
// that is neither IP nor ARP is well-formed if its link header is there. Bytes
// after the IP packet count as Ethernet padding.
func CheckWellFormed(frame []byte) error {
	var eth layers.Ethernet
	if err := eth.DecodeFromBytes(frame, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Errorf("ethernet: %w", err)
	}
	typ, rest := eth.EthernetType, eth.Payload
	for typ == layers.EthernetTypeDot1Q || typ == layers.EthernetTypeQinQ {
		var tag layers.Dot1Q
		if err := tag.DecodeFromBytes(rest, gopacket.NilDecodeFeedback); err != nil {
			return fmt.Errorf("vlan tag: %w", err)
		}
		typ, rest = tag.Type, tag.Payload
	}
	switch typ {
	case layers.EthernetTypeIPv4:
		_, err := checkIPv4(rest)
		return err
	case layers.EthernetTypeIPv6:
		_, err := checkIPv6(rest)
		return err
	case layers.EthernetTypeARP:
		return checkARP(rest)
	}
	return nil
}

func checkARP(b []byte) error {
	// gopacket panics on some address lengths, so it is given only the right
	// ones. It takes the hardware type for one byte long.
	if len(b) < 8 || b[0] != 0 || b[4] != 6 || b[5] != 4 {
		return errors.New("arp: cut short, or not for IPv4 over Ethernet")
	}
	var arp layers.ARP
	if err := arp.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Errorf("arp: %w", err)
	}
	if arp.AddrType != layers.LinkTypeEthernet || arp.Protocol != layers.EthernetTypeIPv4 {
		return errors.New("arp: not for IPv4 over Ethernet")
	}
	return nil
}

// checkIPv4 returns the packet's length: it may be shorter than b.
func checkIPv4(b []byte) (int, error) {
	var ip layers.IPv4
	var cut feedback
	if err := ip.DecodeFromBytes(b, &cut); err != nil {
		return 0, fmt.Errorf("ipv4: %w", err)
	}
	// gopacket takes a length of 0 for an offloaded one.
	n := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case ip.Version != 4:
		return 0, fmt.Errorf("ipv4: version %d", ip.Version)
	case bool(cut) || n != len(ip.Contents)+len(ip.Payload):
		return 0, fmt.Errorf("ipv4: total length %d, but there are %d bytes", n, len(b))
	case !sumOK(0, ip.Contents):
		return 0, fmt.Errorf("ipv4: wrong header checksum %#04x", ip.Checksum)
	}
	if ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0 {
		return n, nil
	}
	pseudo := naiveSum(naiveSum(0, ip.SrcIP), ip.DstIP)
	if err := checkTransport(ip.Protocol, ip.Payload, pseudo, false); err != nil {
		return 0, fmt.Errorf("ipv4: %w", err)
	}
	return n, nil
}

// checkIPv6 returns the packet's length: it may be shorter than b.
func checkIPv6(b []byte) (int, error) {
	// gopacket's IPv6 takes the payload length wrong when there are hop-by-hop
	// options. So it is given the fixed header only to read the fields, with
	// the options hidden from it.
	if len(b) < 40 {
		return 0, fmt.Errorf("ipv6: %d bytes, less than the header", len(b))
	}
	header := append([]byte(nil), b[:40]...)
	n := int(binary.BigEndian.Uint16(header[4:]))
	next := layers.IPProtocol(header[6])
	header[6] = byte(layers.IPProtocolNoNextHeader)
	var ip layers.IPv6
	if err := ip.DecodeFromBytes(header, gopacket.NilDecodeFeedback); err != nil && n != 0 {
		return 0, fmt.Errorf("ipv6: %w", err)
	}
	switch {
	case ip.Version != 6:
		return 0, fmt.Errorf("ipv6: version %d", ip.Version)
	case 40+n > len(b):
		return 0, fmt.Errorf("ipv6: payload length %d, but there are %d bytes", n, len(b)-40)
	}
	rest := b[40 : 40+n]
	for layers.LayerClassIPv6Extension.Contains(next.LayerType()) {
		if next == layers.IPProtocolIPv6Fragment {
			if len(rest) < 8 {
				return 0, errors.New("ipv6: fragment header cut short")
			}
			if binary.BigEndian.Uint16(rest[2:])&^0x6 != 0 {
				return 40 + n, nil
			}
			next, rest = layers.IPProtocol(rest[0]), rest[8:]
			continue
		}
		var ext layers.IPv6ExtensionSkipper
		if err := ext.DecodeFromBytes(rest, gopacket.NilDecodeFeedback); err != nil {
			return 0, fmt.Errorf("ipv6: extension header %d: %w", next, err)
		}
		next, rest = ext.NextHeader, ext.Payload
	}
	pseudo := naiveSum(naiveSum(0, ip.SrcIP), ip.DstIP)
	if err := checkTransport(next, rest, pseudo, true); err != nil {
		return 0, fmt.Errorf("ipv6: %w", err)
	}
	return 40 + n, nil
}

// checkTransport judges what an IP packet carries, given the sum of its
// addresses.
func checkTransport(proto layers.IPProtocol, b []byte, addrs uint64, v6 bool) error {
	var cut feedback
	pseudo := addrs + uint64(proto) + uint64(len(b))
	switch proto {
	case layers.IPProtocolTCP:
		var tcp layers.TCP
		if err := tcp.DecodeFromBytes(b, &cut); err != nil {
			return fmt.Errorf("tcp: %w", err)
		}
		if !sumOK(pseudo, b) {
			return fmt.Errorf("tcp: wrong checksum %#04x", tcp.Checksum)
		}
	case layers.IPProtocolUDP:
		var udp layers.UDP
		if err := udp.DecodeFromBytes(b, &cut); err != nil {
			return fmt.Errorf("udp: %w", err)
		}
		n := int(udp.Length)
		switch {
		case n < 8 || n > len(b):
			return fmt.Errorf("udp: length %d in %d bytes", n, len(b))
		case udp.Checksum == 0 && v6:
			return errors.New("udp: no checksum over IPv6")
		case udp.Checksum != 0 && !sumOK(addrs+uint64(proto)+uint64(n), b[:n]):
			return fmt.Errorf("udp: wrong checksum %#04x", udp.Checksum)
		}
	case layers.IPProtocolICMPv4:
		var icmp layers.ICMPv4
		if v6 {
			return nil
		}
		if err := icmp.DecodeFromBytes(b, &cut); err != nil {
			return fmt.Errorf("icmp: %w", err)
		}
		if !sumOK(0, b) {
			return fmt.Errorf("icmp: wrong checksum %#04x", icmp.Checksum)
		}
	case layers.IPProtocolICMPv6:
		if v6 {
			return checkICMPv6(b, pseudo)
		}
	case layers.IPProtocolIPv4:
		return checkInner(checkIPv4, b)
	case layers.IPProtocolIPv6:
		return checkInner(checkIPv6, b)
	}
	return nil
}

func checkICMPv6(b []byte, pseudo uint64) error {
	var icmp layers.ICMPv6
	if err := icmp.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Errorf("icmpv6: %w", err)
	}
	if len(b) < 8 {
		return fmt.Errorf("icmpv6: %d bytes, less than any message has", len(b))
	}
	if !sumOK(pseudo, b) {
		return fmt.Errorf("icmpv6: wrong checksum %#04x", icmp.Checksum)
	}
	var message gopacket.DecodingLayer
	switch icmp.TypeCode.Type() {
	case layers.ICMPv6TypeEchoRequest, layers.ICMPv6TypeEchoReply:
		message = &layers.ICMPv6Echo{}
	case layers.ICMPv6TypeNeighborSolicitation:
		message = &layers.ICMPv6NeighborSolicitation{}
	case layers.ICMPv6TypeNeighborAdvertisement:
		message = &layers.ICMPv6NeighborAdvertisement{}
	default:
		return nil
	}
	if err := message.DecodeFromBytes(icmp.Payload, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Errorf("icmpv6: %w", err)
	}
	return nil
}

// checkInner judges a packet inside another one, which it must fill.
func checkInner(check func([]byte) (int, error), b []byte) error {
	n, err := check(b)
	if err != nil {
		return fmt.Errorf("inner %w", err)
	}
	if n != len(b) {
		return fmt.Errorf("inner packet has %d bytes of the %d that carry it", n, len(b))
	}
	return nil
}

// feedback is set when gopacket finds a packet cut short.
type feedback bool

func (f *feedback) SetTruncated() { *f = true }

// naiveSum is RFC 1071 word by word, without folding.
func naiveSum(sum uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(b[0])<<8 | uint64(b[1])
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// sumOK reports whether b with its checksum, on top of sum, adds up to
// 0xffff.
func sumOK(sum uint64, b []byte) bool {
	sum = naiveSum(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}
