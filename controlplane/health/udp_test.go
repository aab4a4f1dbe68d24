package health

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// serveUDP answers each datagram with what a function makes of it; nil is no
// answer.
func serveUDP(t *testing.T, addr string, answer func([]byte) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			for _, a := range answer(buf[:n]) {
				_, _ = conn.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestUDPProbe(t *testing.T) {
	const patient, hasty = time.Minute, 100 * time.Millisecond
	tests := []struct {
		name    string
		probe   UDP
		timeout time.Duration
		want    string
	}{
		{"any answer", UDP{Send: []byte("ping")}, patient, ""},
		{"empty both ways", UDP{}, patient, ""},
		{"exact", UDP{Send: []byte{0, 255}, ExpectBytes: []byte{0, 255}}, patient, ""},
		{"not exact", UDP{Send: []byte{0, 255}, ExpectBytes: []byte{0}}, patient, `answer "\x00\xff", want "\x00"`},
		{"matches", UDP{Send: []byte("OK 12"), Expect: `^OK \d+$`}, patient, ""},
		{"does not match", UDP{Send: []byte("no"), Expect: `^OK`}, patient, `answer "no" does not match "^OK"`},
		{"both", UDP{Send: []byte("ab"), Expect: "a", ExpectBytes: []byte("a")}, patient, `answer "ab", want "a"`},
		{"no answer", UDP{Send: []byte("silence")}, hasty, "no answer within 100ms"},
		{"bad expression", UDP{Expect: "("}, patient, "cannot be made on this box"},
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := serveUDP(t, addr, func(b []byte) [][]byte {
			if string(b) == "silence" {
				return nil
			}
			return [][]byte{b}
		})
		for _, tt := range tests {
			t.Run(addr+" "+tt.name, func(t *testing.T) {
				expect(t, try(t, Check{Targets: []netip.AddrPort{at}, Probe: tt.probe}, tt.timeout), tt.want)
			})
		}
		t.Run(addr+" closed port", func(t *testing.T) {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
			if err != nil {
				t.Fatal(err)
			}
			closed := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			_ = conn.Close()
			expect(t, try(t, Check{Targets: []netip.AddrPort{closed}, Probe: UDP{Send: []byte("ping")}}, time.Minute), "connection refused")
		})
	}
}
