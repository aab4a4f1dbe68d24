package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addrPorts(s ...string) (a []netip.AddrPort) {
	for _, s := range s {
		a = append(a, netip.MustParseAddrPort(s))
	}
	return a
}

// serve runs a server until the end of the test and checks that it ends well.
func serve(t *testing.T, config ServerConfig) *Server {
	t.Helper()
	s, err := NewServer(t.Context(), config)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error("second close:", err)
		}
	})
	return s
}

func onLoopback(t *testing.T, name string) *Server {
	t.Helper()
	return serve(t, ServerConfig{Name: name,
		TCP: addrPorts("127.0.0.1:0", "[::1]:0"), UDP: addrPorts("127.0.0.1:0", "[::1]:0")})
}

var patient = Client{Timeout: 30 * time.Second}

func TestExchanges(t *testing.T) {
	s := onLoopback(t, "web1")
	ctx := t.Context()
	sizes := []int64{0, 1, 1000, 16 << 10, 3<<20 + 7}
	for i := range s.TCP() {
		tcp, udp := s.TCP()[i], s.UDP()[i]
		var results []Result
		var want []int64
		for _, n := range sizes {
			results = append(results, patient.Fetch(ctx, tcp, n), patient.Upload(ctx, tcp, n), patient.FetchSlow(ctx, tcp, n, 64<<20))
			want = append(want, n, n, n)
		}
		for _, n := range []int{0, 1, 1400, 8000} {
			results = append(results, patient.Echo(ctx, udp, bytes.Repeat([]byte("|"), n)))
			want = append(want, int64(2*n))
		}
		for j, r := range results {
			if r.Err != nil || r.Backend != "web1" || r.Bytes != want[j] || r.Local.Addr() != tcp.Addr() || r.Local.Port() == 0 || r.Duration <= 0 {
				t.Errorf("%s; want %d bytes of web1", r, want[j])
			}
		}
		who, err := patient.WhoAmI(ctx, tcp)
		if err != nil || who.Backend != "web1" || who.VIP != tcp || who.Client.Addr() != tcp.Addr() {
			t.Errorf("whoami: %+v, %v", who, err)
		}
	}
	if r := patient.Echo(ctx, s.UDP()[1], make([]byte, MaxEcho)); r.Err != nil {
		t.Error(r)
	}
	if r := patient.Echo(ctx, s.UDP()[1], make([]byte, MaxEcho+1)); r.Err == nil {
		t.Error(r)
	}
}

func TestHealth(t *testing.T) {
	s := onLoopback(t, "web1")
	for _, healthy := range []bool{true, false, true} {
		if s.SetHealthy(healthy); (patient.Healthy(t.Context(), s.TCP()[0]) == nil) != healthy {
			t.Errorf("does not answer healthy=%v", healthy)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := onLoopback(t, "web1")
	for _, path := range []string{"/bytes", "/bytes?n=-1", "/bytes?n=1&seed=x", "/bytes?n=99999999999999999999",
		"/slow?n=1", "/slow?n=1&rate=0", "/nonsense"} {
		response, err := http.Get("http://" + s.TCP()[0].String() + path)
		check(t, err)
		response.Body.Close()
		if response.StatusCode/100 != 4 || response.Header.Get("X-Backend") != "web1" {
			t.Errorf("%s: %s, by %q", path, response.Status, response.Header.Get("X-Backend"))
		}
	}
	// The bytes are those of the seed, and two seeds have different ones.
	get := func(seed int) string {
		response, err := http.Get(fmt.Sprintf("http://%s/bytes?n=1000&seed=%d", s.TCP()[0], seed))
		check(t, err)
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		check(t, err)
		return string(data)
	}
	if a := get(1); a != get(1) || a == get(2) {
		t.Error("bytes do not follow from the seed")
	}
	if _, err := NewServer(t.Context(), ServerConfig{Name: "a|b"}); err == nil {
		t.Error("a name with | is accepted")
	}
	_, err := NewServer(t.Context(), ServerConfig{Name: "web2", TCP: append(addrPorts("127.0.0.1:0"), s.TCP()[0])})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "server web2: listen on tcp") {
		t.Errorf("address in use: %v", err)
	}
}

func TestVerify(t *testing.T) {
	const n = 100_000
	good := make([]byte, n)
	_, err := io.ReadFull(content(7), good)
	check(t, err)
	bad := bytes.Clone(good)
	bad[54321] ^= 1
	tests := []struct {
		name string
		r    io.Reader
		done int64
		err  error
	}{
		{"right", bytes.NewReader(good), n, nil},
		{"byte by byte", iotest.OneByteReader(bytes.NewReader(good)), n, nil},
		{"odd pieces", iotest.HalfReader(bytes.NewReader(good)), n, nil},
		{"data with EOF", iotest.DataErrReader(bytes.NewReader(good)), n, nil},
		{"short", bytes.NewReader(good[:n-1]), n - 1, io.ErrUnexpectedEOF},
		{"long", content(7), n, ErrCorrupt},
		{"flipped bit", bytes.NewReader(bad), 54321, ErrCorrupt},
		{"other seed", content(8), 0, ErrCorrupt},
		{"reset", io.MultiReader(bytes.NewReader(good[:5]), iotest.ErrReader(syscall.ECONNRESET)), 5, syscall.ECONNRESET},
	}
	for _, test := range tests {
		done, err := verify(test.r, 7, n)
		if done != test.done || !errors.Is(err, test.err) || err != nil && test.err == nil {
			t.Errorf("%s: %d, %v; want %d, %v", test.name, done, err, test.done, test.err)
		}
	}
}

// faulty dials connections on which the reads after the first n bytes go
// through fault.
func faulty(n int, fault func(net.Conn, []byte) (int, error)) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &faultyConn{Conn: c, left: n, fault: fault}, err
	}
}

type faultyConn struct {
	net.Conn
	left  int
	fault func(net.Conn, []byte) (int, error)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return c.fault(c.Conn, b)
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func flip(c net.Conn, b []byte) (int, error) {
	n, err := c.Read(b)
	for i := range b[:n] {
		b[i] ^= 0x20
	}
	return n, err
}

func reset(net.Conn, []byte) (int, error) { return 0, syscall.ECONNRESET }

func TestClientNoticesFaults(t *testing.T) {
	s := onLoopback(t, "web1")
	tcp, udp := s.TCP()[0], s.UDP()[0]
	ctx := t.Context()
	corrupt := Client{Dial: faulty(2000, flip), Timeout: 30 * time.Second}
	broken := Client{Dial: faulty(2000, reset), Timeout: 30 * time.Second}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects and says nothing
	check(t, err)
	defer silent.Close()
	deaf, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(t, err)
	defer deaf.Close()
	brief := Client{Timeout: 50 * time.Millisecond}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()

	tests := []struct {
		name    string
		result  Result
		cause   error
		backend string
	}{
		{"flipped bytes", corrupt.Fetch(ctx, tcp, 10000), ErrCorrupt, "web1"},
		{"reset", broken.Fetch(ctx, tcp, 10000), syscall.ECONNRESET, "web1"},
		{"reset, slow", broken.FetchSlow(ctx, tcp, 10000, 1<<20), syscall.ECONNRESET, "web1"},
		{"garbled echo", (&Client{Dial: faulty(0, func(c net.Conn, b []byte) (int, error) {
			n, err := c.Read(b)
			b[n-1]++
			return n, err
		}), Timeout: 30 * time.Second}).Echo(ctx, udp, []byte("hello")), ErrCorrupt, "web1"},
		{"nothing that is an echo", (&Client{Dial: faulty(0, func(c net.Conn, b []byte) (int, error) {
			return copy(b, "HTTP"), nil
		}), Timeout: 30 * time.Second}).Echo(ctx, udp, []byte("hello")), ErrCorrupt, ""},
		{"no answer", brief.Fetch(ctx, addrPort(silent.Addr()), 1), context.DeadlineExceeded, ""},
		{"no echo", brief.Echo(ctx, addrPort(deaf.LocalAddr()), nil), context.DeadlineExceeded, ""},
		{"cancelled", patient.Fetch(cancelled, tcp, 1), context.Canceled, ""},
		{"refused", patient.Fetch(ctx, netip.AddrPortFrom(tcp.Addr(), unused(t)), 1), syscall.ECONNREFUSED, ""},
	}
	for _, test := range tests {
		if r := test.result; !errors.Is(r.Err, test.cause) || r.Backend != test.backend || r.Start.IsZero() || !r.Remote.IsValid() {
			t.Errorf("%s: %s; want %v by %q", test.name, r, test.cause, test.backend)
		}
	}
}

func unused(t *testing.T) uint16 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return addrPort(l.Addr()).Port()
}

// An upload that arrives altered is only visible in what the server says of it.
func TestUploadNoticesAlteration(t *testing.T) {
	s := onLoopback(t, "web1")
	c := Client{Timeout: 30 * time.Second, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return &alteringConn{Conn: conn}, err
	}}
	if r := c.Upload(t.Context(), s.TCP()[0], 100_000); !errors.Is(r.Err, ErrCorrupt) {
		t.Error(r)
	}
}

// alteringConn changes a byte that it writes, far behind the header.
type alteringConn struct {
	net.Conn
	written int
}

func (c *alteringConn) Write(b []byte) (int, error) {
	const at = 50_000
	if i := at - c.written; i >= 0 && i < len(b) {
		b = bytes.Clone(b)
		b[i] ^= 0x80
	}
	n, err := c.Conn.Write(b)
	c.written += n
	return n, err
}

func TestEchoFlow(t *testing.T) {
	s := onLoopback(t, "dns1")
	e, err := patient.OpenEcho(t.Context(), s.UDP()[0])
	check(t, err)
	defer e.Close()
	first := e.Echo(t.Context(), []byte("one"))
	check(t, first.Err)
	if e.Client != first.Local {
		t.Errorf("server sees %s, sent from %s", e.Client, first.Local)
	}
	// A call that was given up leaves the flow usable, and its late answer is
	// not taken for that to the next.
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if r := e.Echo(done, []byte("late")); r.Err != nil && !errors.Is(r.Err, context.Canceled) {
			t.Fatal(r)
		}
	}
	if r := e.Echo(t.Context(), []byte("next")); r.Err != nil || r.Local != first.Local || r.Bytes != 8 {
		t.Errorf("%s; want from %s", r, first.Local)
	}
}

func FuzzParseEcho(f *testing.F) {
	for _, seed := range []string{"web1|192.0.2.1:4242|hello", "a|[2001:db8::1]:1|", "a|b", "||", "a|192.0.2.1:1|x|y", "\n|1.1.1.1:1|"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		answer, err := parseEcho(datagram)
		if err != nil {
			return
		}
		again, err := parseEcho(answer.appendTo(nil))
		if err != nil || again.backend != answer.backend || again.client != answer.client || !bytes.Equal(again.payload, answer.payload) {
			t.Errorf("%q became %+v and then %+v, %v", datagram, answer, again, err)
		}
		if !bytes.HasPrefix(datagram, []byte(answer.backend+"|")) || !bytes.HasSuffix(datagram, append([]byte("|"), answer.payload...)) {
			t.Errorf("%q became %+v", datagram, answer)
		}
	})
}

// breaker dials connections that the test can all break at once.
type breaker struct{ broken atomic.Bool }

func (b *breaker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return faulty(0, func(c net.Conn, buf []byte) (int, error) {
		if b.broken.Load() {
			return 0, syscall.ECONNRESET
		}
		return c.Read(buf)
	})(ctx, network, address)
}
