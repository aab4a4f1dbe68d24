package config

import "time"

// Health says how the backends of a service are checked. Exactly one of TCP,
// HTTP, ICMP, UDP, DNS and GRPC is set.
type Health struct {
	TCP  *TCPCheck
	HTTP *HTTPCheck
	ICMP *ICMPCheck
	UDP  *UDPCheck
	DNS  *DNSCheck
	GRPC *GRPCCheck

	Address  CheckAddress  // default CheckVIP, and in ModeNAT CheckBackend, which has no other
	Interval time.Duration // from the start of one check to the next; default 2s
	Timeout  time.Duration // of one check, at most Interval; default 1s, or a shorter Interval
	Rise     int           // successes in a row until a backend is up; default 2
	Fall     int           // failures in a row until a backend is down; default 3
}

// CheckAddress says where the checks of a backend go.
type CheckAddress string

// Where checks can go.
const (
	CheckVIP     CheckAddress = "vip"     // to each VIP, on the way to the backend that traffic takes
	CheckBackend CheckAddress = "backend" // to its own address
)

// TCPCheck succeeds when a connection is established.
type TCPCheck struct {
	Port uint16 // default: the service's first tcp port; but see Backend.CheckPort
}

// HTTPCheck succeeds when the answer's status code is one of Codes, and its body
// matches Body.
type HTTPCheck struct {
	Port   uint16 // default: the service's first tcp port; but see Backend.CheckPort
	Path   string // default "/"
	Host   string // Host header; empty: the address that is checked
	Method string // GET, HEAD or OPTIONS; default GET
	Codes  []Codes
	Body   string // regular expression of package regexp; empty: any body
	TLS    *TLS   // nil: plain HTTP
}

// Codes is a range of HTTP status codes, both ends included.
type Codes struct {
	Lo, Hi int // 100 <= Lo <= Hi <= 599
}

// ICMPCheck succeeds when an echo request (RFC 792, RFC 4443 section 4.1) is
// answered.
type ICMPCheck struct{}

// UDPCheck succeeds when an answer comes, and is as expected. At most one of
// Expect and ExpectBytes is set; with neither any answer will do.
type UDPCheck struct {
	Port        uint16 // default: the service's first udp port; but see Backend.CheckPort
	Send        []byte // 1 to 1232 bytes, which fit into every IPv6 path
	Expect      string // regular expression of package regexp that the answer matches
	ExpectBytes []byte // what the answer is, byte for byte
}

// DNSCheck succeeds when a query is answered with one of Codes and all of Expect.
type DNSCheck struct {
	Port      uint16   // default: the service's first port of Transport, 53 if there is none; but see Backend.CheckPort
	Name      string   // what is asked for; a final dot makes no difference
	Type      string   // as "AAAA"; default "A"
	Transport string   // "udp" or "tcp"; default "udp"
	Codes     []string // as "NXDOMAIN"; default "NOERROR" only
	Expect    []string // data of records that are in the answer, as "192.0.2.1"; may be empty
}

// proto returns the protocol that the query is sent by.
func (q *DNSCheck) proto() Proto {
	if q.Transport == "tcp" {
		return TCP
	}
	return UDP
}

// GRPCCheck succeeds when the gRPC health service says SERVING.
type GRPCCheck struct {
	Port    uint16 // default: the service's first tcp port; but see Backend.CheckPort
	Service string // that is asked about; empty: the server as a whole
	TLS     *TLS   // nil: plain text
}

// TLS is how a check does TLS. The files are there and can be parsed when the
// configuration is loaded.
type TLS struct {
	ServerName  string // for SNI and the certificate; empty: the address that is checked
	Verify      bool   // the certificate of the backend; default true
	CA          string // path of PEM certificates to verify by; empty: those of the system
	Certificate string // path of weir's own certificate, PEM; empty: none
	Key         string // path of its key, PEM; set if Certificate is
	MinVersion  string // "1.0" to "1.3"; default "1.2"
}
