package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The parsers below take the text of one value and return it, or what is wrong
// with it; and what would be right.

const wantAddress = `an IP address, as 203.0.113.10 or (always in quotes) "2001:db8::10"`

func parseAddress(text string) (netip.Addr, string) {
	a, err := netip.ParseAddr(text)
	if err == nil {
		if a.Zone() != "" {
			return netip.Addr{}, fmt.Sprintf("%s has a zone; want a global address", quote(text))
		}
		return a, ""
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return netip.Addr{}, fmt.Sprintf("%s is a prefix; want one address, as %s", quote(text), p.Addr())
	}
	return netip.Addr{}, fmt.Sprintf("%s is not %s", quote(text), wantAddress)
}

// parseVIP is parseAddress, and knows what people write instead of a VIP.
func parseVIP(text string) (netip.Addr, string) {
	if host, _, ok := splitPort(text); ok {
		return netip.Addr{}, fmt.Sprintf("%s has a port; want %s, ports are listed under ports of the service", quote(text), host)
	}
	if lo, hi, ok := strings.Cut(text, "-"); ok && isAddress(lo) && isAddress(hi) {
		return netip.Addr{}, fmt.Sprintf("%s is a range; want one entry for each address", quote(text))
	}
	return parseAddress(text)
}

// parseBackend is parseAddress, and knows what people write instead of the
// address of a backend.
func parseBackend(text string) (netip.Addr, string) {
	if host, _, ok := splitPort(text); ok {
		return netip.Addr{}, fmt.Sprintf("%s has a port; want %s, in mode nat a port is the key port next to it", quote(text), host)
	}
	return parseAddress(text)
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// splitPort takes ADDRESS:PORT or [ADDRESS]:PORT apart.
func splitPort(text string) (addr netip.Addr, port uint16, ok bool) {
	ap, err := netip.ParseAddrPort(text)
	return ap.Addr(), ap.Port(), err == nil
}

func parsePrefix(text string) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Sprintf("%s is not a prefix, as 172.16.0.0/16 or \"2001:db8:100::/64\"", quote(text))
	case p.Masked() != p:
		return netip.Prefix{}, fmt.Sprintf("%s has bits set after its length; want %s", quote(text), p.Masked())
	}
	return p, ""
}

const wantClients = "a prefix or an address, as 192.0.2.0/24 or 192.0.2.7"

// parseClients takes an address for the prefix that holds nothing else.
func parseClients(text string) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(text)
	if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Sprintf("%s is not %s", quote(text), wantClients)
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Sprintf("%s has an IPv4-mapped IPv6 address, which no client has; want the IPv4 prefix", quote(text))
	case p.Masked() != p:
		return netip.Prefix{}, fmt.Sprintf("%s has bits set after its length; want %s", quote(text), p.Masked())
	}
	return p, ""
}

const wantPorts = "a range of ports from 1024 to 65535, as 50000-59999"

func parsePorts(text string) (PortRange, string) {
	lo, hi, ok := parseRange(text, minSNATPort, 65535)
	if !ok {
		return PortRange{}, fmt.Sprintf("%s is not %s", quote(text), wantPorts)
	}
	return PortRange{uint16(lo), uint16(hi)}, ""
}

const wantPort = "PROTOCOL/PORT, as tcp/80, udp/5000-5999 or tcp/*"

func parsePort(text string) (Port, string) {
	proto, ports, ok := strings.Cut(text, "/")
	p := Port{}
	switch proto {
	case "tcp":
		p.Proto = TCP
	case "udp":
		p.Proto = UDP
	default:
		ok = false
	}
	if !ok {
		return Port{}, fmt.Sprintf("%s is not a port of tcp or udp; want %s", quote(text), wantPort)
	}
	if ports == "*" {
		p.Lo, p.Hi = 1, 65535
		return p, ""
	}
	lo, hi, ok := parseRange(ports, 1, 65535)
	if !ok {
		return Port{}, fmt.Sprintf("%s has no port or range of ports from 1 to 65535; want %s", quote(text), wantPort)
	}
	p.Lo, p.Hi = uint16(lo), uint16(hi)
	return p, ""
}

const wantCodes = "a status code or a range of them, as 204 or 200-399"

func parseCodes(text string) (Codes, string) {
	lo, hi, ok := parseRange(text, 100, 599)
	if !ok {
		return Codes{}, fmt.Sprintf("%s is not %s", quote(text), wantCodes)
	}
	return Codes{lo, hi}, ""
}

// parseRange parses N or N-M, both from least to most, N <= M.
func parseRange(text string, least, most int) (lo, hi int, ok bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	lo, ok1 := parseDigits(first)
	hi, ok2 := parseDigits(last)
	return lo, hi, ok1 && ok2 && least <= lo && lo <= hi && hi <= most
}

// parseDigits parses a decimal number without sign or leading zeros.
func parseDigits(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && strconv.Itoa(n) == text && n >= 0
}

// parseDuration returns a parser of durations from lo to hi.
func parseDuration(lo, hi time.Duration) func(string) (time.Duration, string) {
	return func(text string) (time.Duration, string) {
		v, err := time.ParseDuration(text)
		if _, isNumber := parseDigits(text); isNumber {
			return 0, fmt.Sprintf("%s has no unit; want %s", quote(text), quote(text+"s"))
		}
		if err != nil {
			return 0, fmt.Sprintf("%s is not a duration; want a number and a unit, as 500ms, 2s or 5m", quote(text))
		}
		if v < lo || v > hi {
			return 0, fmt.Sprintf("%s is out of bounds; want %s to %s", quote(text), short(lo), short(hi))
		}
		return v, ""
	}
}

// parseSlowStart knows that 0 is none at all.
func parseSlowStart(text string) (time.Duration, string) {
	if v, err := time.ParseDuration(text); err == nil && v == 0 {
		return 0, ""
	}
	return parseDuration(minSlow, maxSlow)(text)
}

// short is d without the zero units that Duration.String leaves at the end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseQueues(text string) (Queues, string) {
	if text == "all" {
		return AllQueues, ""
	}
	n, ok := parseDigits(text)
	if !ok || n < 1 || n > 1024 {
		return 0, fmt.Sprintf("%s is not a number of queues; want all, or a whole number from 1 to 1024", quote(text))
	}
	return Queues(n), ""
}

// parseInterface follows the kernel's dev_valid_name (net/core/dev.c), less the
// names that are not printable.
func parseInterface(text string) (string, string) {
	if text == "" || text == "." || text == ".." || len(text) > 15 || strings.ContainsAny(text, "/:") || !printable(text) {
		return "", fmt.Sprintf("%s cannot be the name of an interface; want 1 to 15 bytes without space, colon or slash, as eth1", quote(text))
	}
	return text, ""
}

// parseNode accepts what a host name may be, RFC 1123 section 2.1.
func parseNode(text string) (string, string) {
	if len(text) > 253 || !only(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") {
		return "", fmt.Sprintf("%s cannot be the name of a node; want letters, digits, dots and dashes, as lb1", quote(text))
	}
	return text, ""
}

func parseServiceName(text string) (string, string) {
	if len(text) > 63 || !only(text, "abcdefghijklmnopqrstuvwxyz0123456789-") {
		return "", fmt.Sprintf("%s cannot be the name of a service; want lower-case letters, digits and dashes, at most 63", quote(text))
	}
	return text, ""
}

func only(text, alphabet string) bool {
	return text != "" && strings.Trim(text, alphabet) == ""
}

// parseSocket accepts a path that fits sun_path of unix(7), 108 bytes with the
// zero at its end.
func parseSocket(text string) (string, string) {
	if !strings.HasPrefix(text, "/") || len(text) > 107 || strings.ContainsRune(text, 0) {
		return "", fmt.Sprintf("%s cannot be the path of a socket; want an absolute path of at most 107 bytes, as /run/weir/weir.sock", quote(text))
	}
	return text, ""
}

// parseFolder accepts an absolute path, since a daemon has no folder of its own,
// but not that of all files.
func parseFolder(text string) (string, string) {
	clean := filepath.Clean(text)
	switch {
	case !filepath.IsAbs(text) || strings.ContainsFunc(text, unicode.IsControl):
		return "", fmt.Sprintf("%s is not an absolute path; want one, as %s", quote(text), stateDir)
	case len(clean) > maxFolder:
		return "", fmt.Sprintf("%s is %d bytes long; want at most %d", quote(clean), len(clean), maxFolder)
	case clean == "/":
		return "", fmt.Sprintf("%s is no folder for files of weir; want one of its own, as %s", quote(text), stateDir)
	}
	return clean, ""
}

func parseListen(text string) (string, string) {
	if text == "" {
		return "", ""
	}
	host, port, err := net.SplitHostPort(text)
	n, ok := parseDigits(port)
	if err != nil || !ok || n < 1 || n > 65535 || strings.Contains(host, "/") || !printable(host) {
		return "", fmt.Sprintf(`%s is not HOST:PORT; want for example "127.0.0.1:9090"`, quote(text))
	}
	return text, ""
}

func parsePath(text string) (string, string) {
	if !strings.HasPrefix(text, "/") || !printable(text) {
		return "", fmt.Sprintf("%s is not the path of a URL; want it to begin with a slash and to have no spaces, as /healthz", quote(text))
	}
	return text, ""
}

func parseHost(text string) (string, string) {
	if text == "" || !printable(text) || strings.ContainsAny(text, "/@?#\\") {
		return "", fmt.Sprintf("%s is not a host; want for example www.example.com", quote(text))
	}
	return text, ""
}

// printable says whether text is ASCII without spaces and control characters:
// what can be sent in an HTTP request line or header as it is.
func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
