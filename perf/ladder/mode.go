package ladder

import "weir/dataplane/snapshot"

// Mode is what is done to packets, and in which direction.
type Mode string

// The modes. The numbers are IP versions, of the client's packets and of what
// weir makes of them.
const (
	DSR4     Mode = "dsr4"
	DSR6     Mode = "dsr6"
	IPIP4in4 Mode = "ipip4in4"
	IPIP6in6 Mode = "ipip6in6"
	NAT44    Mode = "nat44"
	NAT66    Mode = "nat66"
	NAT46    Mode = "nat46"
	NAT64    Mode = "nat64"

	// The answers of backends, on their way back to the client.
	NAT44Answer Mode = "nat44-answer"
	NAT66Answer Mode = "nat66-answer"
	NAT46Answer Mode = "nat46-answer"
	NAT64Answer Mode = "nat64-answer"
)

// Modes returns all modes.
func Modes() []Mode {
	return []Mode{
		DSR4, DSR6, IPIP4in4, IPIP6in6, NAT44, NAT66, NAT46, NAT64,
		NAT44Answer, NAT66Answer, NAT46Answer, NAT64Answer,
	}
}

// client6 tells whether clients use IPv6.
func (m Mode) client6() bool {
	switch m {
	case DSR6, IPIP6in6, NAT66, NAT64, NAT66Answer, NAT64Answer:
		return true
	}
	return false
}

// backend6 tells whether backends, or tunnels to them, do.
func (m Mode) backend6() bool {
	switch m {
	case DSR6, IPIP6in6, NAT66, NAT46, NAT66Answer, NAT46Answer:
		return true
	}
	return false
}

func (m Mode) tunnel() bool { return m == IPIP4in4 || m == IPIP6in6 }

func (m Mode) answer() bool {
	switch m {
	case NAT44Answer, NAT66Answer, NAT46Answer, NAT64Answer:
		return true
	}
	return false
}

func (m Mode) nat() bool {
	switch m {
	case NAT44, NAT66, NAT46, NAT64:
		return true
	}
	return m.answer()
}

func (m Mode) service() snapshot.Mode {
	if m.nat() {
		return snapshot.NAT
	}
	return snapshot.Direct
}
