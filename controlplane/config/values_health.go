package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// The parsers of what is in health checks, and of the names that services and
// pools have for each other.

const wantRegexp = "a regular expression as of RE2, at most 4096 bytes"

func parseRegexp(text string) (string, string) {
	if text == "" || len(text) > maxRegexp {
		return "", fmt.Sprintf("is %d bytes long; want %s", len(text), wantRegexp)
	}
	if _, err := regexp.Compile(text); err != nil {
		return "", fmt.Sprintf("%s is not a regular expression as of RE2: %s", quote(text), oneLine(err.Error()))
	}
	return text, ""
}

// oneLine quotes what would break the line of an error.
func oneLine(text string) string {
	text = strings.TrimPrefix(text, "error parsing regexp: ")
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return quote(text)
	}
	return text
}

const (
	wantSend = "text of 1 to 1232 bytes"
	wantHex  = "1 to 1232 bytes in hexadecimal, as 00ff"
)

func parseSend(text string) ([]byte, string) {
	if text == "" || len(text) > maxSend {
		return nil, fmt.Sprintf("is %d bytes long; want %s, which fit into every packet", len(text), wantSend)
	}
	return []byte(text), ""
}

func parseHex(text string) ([]byte, string) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) == 0 || len(b) > maxSend {
		return nil, fmt.Sprintf("%s is not %s", quote(text), wantHex)
	}
	return b, ""
}

const wantDomain = "a domain name, as www.example.com"

// parseDomain accepts a name by the lengths of RFC 1035 section 2.3.4; a dot at
// its end makes no difference.
func parseDomain(text string) (string, string) {
	if text == "." {
		return text, ""
	}
	good := len(text) <= 253
	for _, label := range strings.Split(strings.TrimSuffix(text, "."), ".") {
		good = good && len(label) <= 63 && only(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
	}
	if !good {
		return "", fmt.Sprintf("%s is not %s", quote(text), wantDomain)
	}
	return text, ""
}

func parseData(text string) (string, string) {
	if text == "" || len(text) > 255 || strings.ContainsAny(text, "\n\r\x00") {
		return "", fmt.Sprintf("%s cannot be the data of a record; want for example 192.0.2.1", quote(text))
	}
	return text, ""
}

// parseServerName accepts an address, too, as certificates can be for one.
func parseServerName(text string) (string, string) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return text, ""
	}
	if _, problem := parseDomain(text); problem != "" || text == "." {
		return "", fmt.Sprintf("%s is not a host name; want for example www.example.com", quote(text))
	}
	return text, ""
}

func parseGRPCService(text string) (string, string) {
	if len(text) > 255 || !printable(text) {
		return "", fmt.Sprintf("%s is not the name of a gRPC service; want for example shop.v1.Cart, or nothing for the whole server", quote(text))
	}
	return text, ""
}

func parsePoolName(text string) (string, string) {
	if len(text) > 63 || !only(text, "abcdefghijklmnopqrstuvwxyz0123456789-") {
		return "", fmt.Sprintf("%s cannot be the name of a pool; want lower-case letters, digits and dashes, at most 63", quote(text))
	}
	return text, ""
}

func parseShare(text string) (string, string) {
	if text == "" || len(text) > 63 || !printable(text) {
		return "", fmt.Sprintf("%s cannot be the key of services that share an address; want at most 63 letters without spaces", quote(text))
	}
	return text, ""
}

func parseLabel(text string) (string, string) {
	if text == "" || len(text) > 253 || !printable(text) {
		return "", fmt.Sprintf("%s cannot be a label; want at most 253 letters without spaces, as tier", quote(text))
	}
	return text, ""
}

func parseLabelValue(text string) (string, string) {
	if len(text) > 253 || !printable(text) {
		return "", fmt.Sprintf("%s cannot be the value of a label; want at most 253 letters without spaces, as gold", quote(text))
	}
	return text, ""
}
