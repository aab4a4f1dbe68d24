package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sessionState is a state of BGP's finite state machine (RFC 4271 section 8.2.2).
type sessionState int

// The states, by gobgp's numbers.
const (
	unknown     sessionState = 0
	idle        sessionState = 1
	connect     sessionState = 2
	active      sessionState = 3
	openSent    sessionState = 4
	openConfirm sessionState = 5
	established sessionState = 6
)

func (s sessionState) String() string {
	switch s {
	case unknown, idle:
		return "idle"
	case connect:
		return "connect"
	case active:
		return "active"
	case openSent:
		return "opensent"
	case openConfirm:
		return "openconfirm"
	case established:
		return "established"
	}
	return fmt.Sprintf("state %d", int(s))
}

// notification returns the meaning of a NOTIFICATION's code and subcode (RFC 4271
// section 4.5; Cease: RFC 4486, RFC 8538, RFC 9384).
func notification(code, subcode uint8) string {
	var group string
	var names []string
	switch code {
	case 1:
		group, names = "message header error", []string{"", "connection not synchronized", "bad message length", "bad message type"}
	case 2:
		group, names = "OPEN message error", []string{"", "unsupported version number", "bad peer AS", "bad BGP identifier (router id)",
			"unsupported optional parameter", "authentication failure", "unacceptable hold time", "unsupported capability"}
	case 3:
		group, names = "UPDATE message error", []string{"", "malformed attribute list", "unrecognized well-known attribute",
			"missing well-known attribute", "attribute flags error", "attribute length error", "invalid ORIGIN", "AS routing loop",
			"invalid NEXT_HOP", "optional attribute error", "invalid network field", "malformed AS_PATH"}
	case 4:
		return "hold timer expired"
	case 5:
		return "finite state machine error"
	case 6:
		group, names = "cease", []string{"", "maximum number of prefixes reached (weir uses none: have the router send none)", "administrative shutdown", "peer de-configured",
			"administrative reset", "connection rejected", "other configuration change", "connection collision resolution",
			"out of resources", "hard reset", "BFD down"}
	default:
		return fmt.Sprintf("notification %d/%d", code, subcode)
	}
	if subcode == 0 {
		return group
	}
	if int(subcode) < len(names) {
		return group + ": " + names[subcode]
	}
	return fmt.Sprintf("%s: subcode %d", group, subcode)
}

// connectError says in words why a TCP connection could not be opened, and what
// to look at. A router that does not like the MD5 signature drops the packet
// without a word, so a wrong password looks as if nobody was there.
func connectError(p *preparedPeer, err error) string {
	to := fmt.Sprintf("TCP connect to %s port %d", p.Address, p.Port)
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return to + ": refused: no BGP listens there, or it does not expect this node's address"
	case errors.Is(err, unix.EHOSTUNREACH):
		words := to + ": no route to host: the router does not answer ARP or NDP, or a router on the way has no route"
		if !p.ibgp && p.Multihop == 0 {
			words += "; if it is not on this node's link, set multihop"
		}
		return words
	case errors.Is(err, unix.ENETUNREACH):
		return to + ": network unreachable: this node has no route there"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: source address %s is not on this node", to, p.Source)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT),
		errors.As(err, &timeout) && timeout.Timeout():
		return "no answer to " + to + "; wrong address, port, firewall, or MD5 password mismatch"
	case errors.Is(err, unix.ENOPROTOOPT) && p.Password != "":
		return to + ": this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG)"
	}
	return to + ": " + err.Error()
}
