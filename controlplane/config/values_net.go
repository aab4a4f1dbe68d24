package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	gossipPort = 7946 // memberlist's own default
	bgpPort    = 179  // RFC 4271 section 8.2.1
	maxASN     = 1<<32 - 2
)

// asn returns what is wrong with an AS number that nobody can have.
func asn(n uint32) string {
	switch n {
	case 23456:
		return "stands for numbers of 32 bits where only 16 fit, RFC 6793"
	case 65535:
		return "is reserved, RFC 7300"
	}
	return ""
}

const wantEndpoint = `an address, and a port if it is not 7946, as 10.0.0.2, 10.0.0.2:7946 or "[2001:db8::2]:7946"`

// parseEndpoint parses an address with a port, or without one for that of port.
func parseEndpoint(text string, port uint16) (netip.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.AddrPort{}, false
		}
		ap = netip.AddrPortFrom(a, port)
	}
	a := ap.Addr()
	return ap, ap.Port() != 0 && a.Zone() == "" && !a.Is4In6()
}

const wantBind = wantEndpoint + `; or ":7946" for all addresses of the box`

// parseBind takes what has a port only for all addresses.
func parseBind(text string) (netip.AddrPort, string) {
	if digits, ok := strings.CutPrefix(text, ":"); ok {
		if port, ok := parseDigits(digits); ok && 1 <= port && port <= 65535 {
			return netip.AddrPortFrom(netip.Addr{}, uint16(port)), ""
		}
	}
	ap, ok := parseEndpoint(text, gossipPort)
	if !ok || ap.Addr().IsMulticast() {
		return netip.AddrPort{}, fmt.Sprintf("%s is not %s", quote(text), wantBind)
	}
	if ap.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.Addr{}, ap.Port()), ""
	}
	return ap, ""
}

func parseAdvertise(text string) (netip.AddrPort, string) {
	ap, ok := parseEndpoint(text, gossipPort)
	if !ok || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
		return netip.AddrPort{}, fmt.Sprintf("%s is not %s", quote(text), wantEndpoint)
	}
	return ap, ""
}

const wantListen = `an address of this box and a port, as 10.0.0.2:179; or for all of its addresses 0.0.0.0:179 or "[::]:179"`

func parseBGPListen(text string) (netip.AddrPort, string) {
	ap, ok := parseEndpoint(text, bgpPort)
	if !ok || ap.Addr().IsMulticast() {
		return netip.AddrPort{}, fmt.Sprintf("%s is not %s", quote(text), wantListen)
	}
	return ap, ""
}

const wantMember = "an address or a host name, and a port if it is not 7946, as 10.0.0.3, lb2 or 10.0.0.3:7946"

// parseMember returns HOST:PORT.
func parseMember(text string) (string, string) {
	host, port := text, uint16(gossipPort)
	if ap, ok := parseEndpoint(text, gossipPort); ok {
		if ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
			return "", fmt.Sprintf("%s is no node; want %s", quote(text), wantMember)
		}
		host, port = ap.Addr().String(), ap.Port()
	} else {
		name, digits, hasPort := strings.Cut(text, ":")
		n, ok := parseDigits(digits)
		if hasPort {
			host, port = name, uint16(n)
		}
		// A name whose last part is a number would be taken for an address.
		end := host[strings.LastIndex(host, ".")+1:]
		_, numeric := parseDigits(end)
		_, problem := parseNode(host)
		if problem != "" || numeric || end == "" || hasPort && (!ok || n < 1 || n > 65535) {
			return "", fmt.Sprintf("%s is not %s", quote(text), wantMember)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), ""
}

// parsePeer is parseAddress, and knows what people write instead of the address
// of a BGP peer.
func parsePeer(text string) (netip.Addr, string) {
	if host, _, ok := splitPort(text); ok {
		return netip.Addr{}, fmt.Sprintf("%s has a port; want %s, the port is the key port next to it", quote(text), host)
	}
	return parseAddress(text)
}

func parsePeerName(text string) (string, string) {
	if text == "" || len(text) > 63 || !printable(text) {
		return "", fmt.Sprintf("%s cannot be the name of a peer; want at most 63 letters without spaces, as router1", quote(text))
	}
	return text, ""
}

// parseSeconds returns a parser of durations that BGP sends as whole seconds.
func parseSeconds(lo, hi time.Duration) func(string) (time.Duration, string) {
	return func(text string) (time.Duration, string) {
		v, problem := parseDuration(lo, hi)(text)
		if problem == "" && v%time.Second != 0 {
			return 0, fmt.Sprintf("%s is not a number of whole seconds, which is what BGP can say", quote(text))
		}
		return v, problem
	}
}

// parseHold does without 0, which RFC 4271 section 4.2 allows: a router that is
// gone would keep its session for ever.
func parseHold(text string) (time.Duration, string) { return parseSeconds(minHold, maxHold)(text) }

const wantCommunity = `a community, as "65000:100", "65000:1:2" (large), no-export, no-advertise, no-peer, blackhole, graceful-shutdown or accept-own`

// wellKnown returns the number of a community that has a name: RFC 1997, RFC
// 3765, RFC 7999, RFC 8326 and RFC 7611.
func wellKnown(name string) string {
	switch name {
	case "no-export":
		return "65535:65281"
	case "no-advertise":
		return "65535:65282"
	case "no-peer":
		return "65535:65284"
	case "blackhole":
		return "65535:666"
	case "graceful-shutdown":
		return "65535:0"
	case "accept-own":
		return "65535:1"
	}
	return ""
}

// parseCommunity returns a community in numbers: two of 16 bits (RFC 1997), or
// three of 32 (RFC 8092).
func parseCommunity(text string) (string, string) {
	if number := wellKnown(text); number != "" {
		return number, ""
	}
	parts := strings.Split(text, ":")
	most := map[int]int{2: 1<<16 - 1, 3: 1<<32 - 1}[len(parts)]
	large := false
	for _, part := range parts {
		n, ok := parseDigits(part)
		switch {
		case most == 0 || !ok || n > 1<<32-1:
			return "", fmt.Sprintf("%s is not %s", quote(text), wantCommunity)
		case n > most:
			large = true
		}
	}
	if large {
		return "", fmt.Sprintf("%s has a number above 65535; want a large community, as \"65000:1:2\" (RFC 8092)", quote(text))
	}
	return text, ""
}
