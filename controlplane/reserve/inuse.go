package reserve

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Socket is a socket of the box.
type Socket struct {
	Proto  string         // tcp or udp
	Local  netip.AddrPort // the address is unspecified if it takes packets to any
	Remote netip.AddrPort // zero if there is none
}

func (s Socket) String() string {
	if s.Remote.IsValid() {
		return fmt.Sprintf("%s %s from %s", s.Proto, s.Local, s.Remote)
	}
	return fmt.Sprintf("%s %s", s.Proto, s.Local)
}

// timeWait is a TCP connection that is over (include/net/tcp_states.h).
const timeWait = 6

// InUse returns the sockets in the calling thread's network namespace that have
// a port in ranges: on addresses that are shared with weir, they get no packets
// any more. Connections that are over are left out.
func InUse(ranges []Range) ([]Socket, error) {
	var ports portSet
	for _, r := range ranges {
		ports.add(r)
	}
	var found []Socket
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		file, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("look for sockets on reserved ports: %w", err)
		}
		sockets, err := readSockets(file, name[:3], &ports)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("look for sockets on reserved ports: /proc/net/%s: %w", name, err)
		}
		found = append(found, sockets...)
	}
	return found, nil
}

// readSockets reads a table of the kernel (get_tcp4_sock in net/ipv4/tcp_ipv4.c
// and its siblings): a headline, then a socket in each line.
func readSockets(from io.Reader, proto string, ports *portSet) ([]Socket, error) {
	var found []Socket
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 0 && fields[0] == "sl" {
			continue
		}
		if len(fields) < 4 {
			return nil, fmt.Errorf("%q is no socket", lines.Text())
		}
		local, err := parseAddrPort(fields[1])
		if err != nil {
			return nil, err
		}
		remote, err := parseAddrPort(fields[2])
		if err != nil {
			return nil, err
		}
		state, err := strconv.ParseUint(fields[3], 16, 8)
		if err != nil {
			return nil, fmt.Errorf("state %q: %w", fields[3], err)
		}
		if proto == "tcp" && state == timeWait || !ports.has(local.Port()) {
			continue
		}
		if remote.Port() == 0 && remote.Addr().IsUnspecified() {
			remote = netip.AddrPort{}
		}
		found = append(found, Socket{proto, local, remote})
	}
	return found, lines.Err()
}

// parseAddrPort reads an address and port such as 0100007F:1F90: 127.0.0.1, in
// words of the host's byte order, and port 8080.
func parseAddrPort(text string) (netip.AddrPort, error) {
	words, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(words)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address and port", text)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address and port", text)
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}
