package site

// Health is how a service's backends are checked.
type Health struct {
	HTTP *HTTPCheck `yaml:"http,omitempty,flow"`
	TCP  *TCPCheck  `yaml:"tcp,omitempty,flow"`
	ICMP *ICMPCheck `yaml:"icmp,omitempty,flow"`
	UDP  *UDPCheck  `yaml:"udp,omitempty,flow"`
	DNS  *DNSCheck  `yaml:"dns,omitempty,flow"`
	GRPC *GRPCCheck `yaml:"grpc,omitempty,flow"`

	CheckAddress string `yaml:"check_address,omitempty"`
	Interval     string `yaml:"interval,omitempty"`
	Timeout      string `yaml:"timeout,omitempty"`
	Rise         int    `yaml:"rise,omitempty"`
	Fall         int    `yaml:"fall,omitempty"`
}

// HTTPCheck is a check by HTTP, or with TLS by HTTPS.
type HTTPCheck struct {
	Path   string   `yaml:"path,omitempty"`
	Port   uint16   `yaml:"port,omitempty"`
	Host   string   `yaml:"host,omitempty"`
	Method string   `yaml:"method,omitempty"`
	Codes  []string `yaml:"codes,omitempty,flow"`
	Body   string   `yaml:"body,omitempty"`
	TLS    *TLS     `yaml:"tls,omitempty,flow"`
}

// TLS is how a check speaks TLS.
type TLS struct {
	ServerName  string `yaml:"server_name,omitempty"`
	Verify      *bool  `yaml:"verify,omitempty"` // nil: weir's default
	CA          string `yaml:"ca,omitempty"`
	Certificate string `yaml:"certificate,omitempty"`
	Key         string `yaml:"key,omitempty"`
	MinVersion  string `yaml:"min_version,omitempty"`
}

// TCPCheck is a check by TCP.
type TCPCheck struct {
	Port uint16 `yaml:"port,omitempty"`
}

// ICMPCheck is a check by ping.
type ICMPCheck struct{}

// UDPCheck is a check by a datagram.
type UDPCheck struct {
	Port      uint16 `yaml:"port,omitempty"`
	Send      string `yaml:"send,omitempty"`
	SendHex   string `yaml:"send_hex,omitempty"`
	Expect    string `yaml:"expect,omitempty"`
	ExpectHex string `yaml:"expect_hex,omitempty"`
}

// DNSCheck is a check by a DNS query.
type DNSCheck struct {
	Port      uint16   `yaml:"port,omitempty"`
	Name      string   `yaml:"name"`
	Type      string   `yaml:"type,omitempty"`
	Transport string   `yaml:"transport,omitempty"`
	Codes     []string `yaml:"codes,omitempty,flow"`
	Expect    []string `yaml:"expect,omitempty,flow"`
}

// GRPCCheck is a check by gRPC's health service.
type GRPCCheck struct {
	Port    uint16 `yaml:"port,omitempty"`
	Service string `yaml:"service,omitempty"`
	TLS     *TLS   `yaml:"tls,omitempty,flow"`
}
