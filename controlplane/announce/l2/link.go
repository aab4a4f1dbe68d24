package l2

import (
	"errors"
	"fmt"
	"net"
	"time"

	mdpacket "github.com/mdlayher/packet"

	"weir/dataplane/packet"
)

// link sends frames out of an interface.
type link interface {
	send(name string, frames []message) error
}

// sendTime bounds how long one call of packetLink.send takes.
const sendTime = 50 * time.Millisecond

// packetLink is the link by AF_PACKET. The kernel sends such frames past the XDP
// program and the workers. A socket lives for one call, so that an interface that
// was made anew under its name is no other case.
type packetLink struct{}

func (packetLink) send(name string, frames []message) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("look up interface: %w", err)
	}
	// Bound to no protocol, the socket receives nothing.
	conn, err := mdpacket.Listen(ifi, mdpacket.Raw, 0, nil)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	// A queue that does not drain must not hang all that this node says elsewhere.
	if err := conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return errors.Join(fmt.Errorf("set deadline: %w", err), conn.Close())
	}
	var errs []error
	for _, m := range frames {
		to := packet.Ethernet(m.frame).Dst()
		if _, err := conn.WriteTo(m.frame, &mdpacket.Addr{HardwareAddr: to.HardwareAddr()}); err != nil {
			errs = append(errs, fmt.Errorf("send for %s: %w", m.addr, err))
			break // the rest would fail likewise
		}
	}
	return errors.Join(append(errs, conn.Close())...)
}
