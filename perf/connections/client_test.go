package connections

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each way in which a connection can end is counted as what it was, and not as
// answered but for the one that is right.
func TestClientCounts(t *testing.T) {
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0) } // closing resets then
	for _, test := range []struct {
		name     string
		answer   func(*net.TCPConn) // the connection is closed after it; nil: nobody listens
		backend  int                // that has answered, -1 for none
		reason   string
		patience time.Duration // 0: a minute
	}{
		{name: "first backend", backend: 0, answer: func(c *net.TCPConn) { c.Write([]byte("a")) }},
		{name: "last backend", backend: 2, answer: func(c *net.TCPConn) { c.Write([]byte("c")) }},
		{name: "end later than the answer", backend: 1, answer: func(c *net.TCPConn) { c.Write([]byte("b")); time.Sleep(5 * time.Millisecond) }},
		{name: "no such backend", backend: -1, reason: failedAnswer, answer: func(c *net.TCPConn) { c.Write([]byte("d")) }},
		{name: "before the first", backend: -1, reason: failedAnswer, answer: func(c *net.TCPConn) { c.Write([]byte("A")) }},
		{name: "two at once", backend: -1, reason: failedAnswer, answer: func(c *net.TCPConn) { c.Write([]byte("ab")) }},
		{name: "two", backend: -1, reason: failedAnswer, answer: func(c *net.TCPConn) {
			c.Write([]byte("a"))
			time.Sleep(5 * time.Millisecond)
			c.Write([]byte("a"))
		}},
		{name: "no answer", backend: -1, reason: failedUnanswered, answer: func(*net.TCPConn) {}},
		{name: "reset", backend: -1, reason: unix.ECONNRESET.Error(), answer: reset},
		{name: "nobody", backend: -1, reason: unix.ECONNREFUSED.Error()},
		{name: "no end", backend: -1, reason: failedTime, patience: 20 * time.Millisecond, answer: func(c *net.TCPConn) {
			c.Write([]byte("a"))
			_, _ = io.Copy(io.Discard, c) // until the client goes
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			to := l.Addr().(*net.TCPAddr).AddrPort()
			if test.answer == nil {
				l.Close()
			} else {
				defer l.Close()
				go serve(l, test.answer)
			}
			patience := time.Minute
			if test.patience != 0 {
				patience = test.patience
			}
			c, err := newClients(clientOptions{
				To: []netip.AddrPort{to}, From: []netip.Addr{to.Addr()}, Number: 2, Backends: 3, Patience: patience,
			})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.run() }()
			for n := uint64(0); n < 4; {
				time.Sleep(time.Millisecond)
				s := c.status()
				n = s.answered()
				for _, m := range s.Failed {
					n += m
				}
			}
			c.stop()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			s := c.status()
			answered, failed := make([]uint64, 3), map[string]uint64{}
			if test.backend >= 0 {
				answered[test.backend] = s.Opened
			} else {
				failed[test.reason] = s.Opened
			}
			for i, n := range answered {
				if s.Answered[i] != n {
					t.Errorf("%d answered by backend %d, want %d", s.Answered[i], i, n)
				}
			}
			if !maps.Equal(s.Failed, failed) {
				t.Errorf("failed are %v, want %v", s.Failed, failed)
			}
			if took := s.Took.Count(); took != s.answered() {
				t.Errorf("%d times of %d answered connections", took, s.answered())
			}
		})
	}
}

func serve(l *net.TCPListener, answer func(*net.TCPConn)) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := c.Read(make([]byte, 8)); err == nil {
				answer(c)
			}
		}()
	}
}

// A rate is not exceeded, whatever the machine does meanwhile: what is due late
// is made up for, and counted.
func TestRate(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serve(l, func(c *net.TCPConn) { c.Write([]byte("a")) })
	to := l.Addr().(*net.TCPAddr).AddrPort()
	const rate, want = 1000, 50
	c, err := newClients(clientOptions{
		To: []netip.AddrPort{to}, From: []netip.Addr{to.Addr()}, Number: 2, Rate: rate, Backends: 1, Patience: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- c.run() }()
	for c.status().Opened < want {
		time.Sleep(time.Millisecond)
	}
	opened, after := c.status().Opened, time.Since(start)
	if most := uint64(after.Seconds()*rate) + 1; opened > most {
		t.Errorf("%d opened within %v, want %d at most", opened, after, most)
	}
	c.stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if s := c.status(); s.answered() != s.Opened {
		t.Errorf("%+v", s)
	}
}

// A server answers who asks, each listener by its own name, also when the
// question comes later than the connection, and says nothing to others.
func TestServers(t *testing.T) {
	var listeners []int
	var at []netip.AddrPort
	for range 2 {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		file, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		listeners = append(listeners, int(file.Fd()))
		at = append(at, l.Addr().(*net.TCPAddr).AddrPort())
	}
	s, err := newServers(listeners)
	if err != nil {
		t.Fatal(err)
	}
	go s.run() // until the test's process ends
	for _, test := range []struct {
		to    int
		says  string
		later bool
		want  string
	}{
		{to: 0, says: "?", want: "a"},
		{to: 1, says: "?", want: "b"},
		{to: 1, says: "?", want: "b", later: true},
		{to: 0, says: "!"},
		{to: 0, says: "??"},
	} {
		c, err := net.Dial("tcp4", at[test.to].String())
		if err != nil {
			t.Fatal(err)
		}
		if test.later { // than the kernel has a connection wait for its first byte
			time.Sleep(1200 * time.Millisecond)
		}
		_, err = c.Write([]byte(test.says))
		got, errRead := io.ReadAll(c)
		if errors.Is(errRead, os.ErrDeadlineExceeded) || err != nil || string(got) != test.want {
			t.Errorf("%+v: %q, %v, %v", test, got, err, errRead)
		}
		c.Close()
	}
	if n := s.status(); n[0] != 1 || n[1] != 2 {
		t.Errorf("answered %v", n)
	}
}
