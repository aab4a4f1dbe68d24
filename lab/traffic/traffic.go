// Package traffic is the real servers and real clients that talk through a load
// balancer in the lab.
//
// The problem it solves: that packets came out somewhere says little. What a
// user of a VIP has is a connection, and it is fine only if every byte is right,
// all of it comes from one backend, and it outlives every change made around
// it. So the servers send bytes that the client can compute for itself and say
// who they are, and the clients check all of it and name for each failure the
// backend, the connection and the cause.
//
// It speaks HTTP/1.1 over TCP (RFC 9112), and echo over UDP. Nothing in here
// knows about namespaces: who wants the sockets elsewhere passes functions that
// open them there.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// DialFunc connects, like [net.Dialer.DialContext].
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ListenFunc announces on a TCP address, like [net.ListenConfig.Listen].
type ListenFunc func(ctx context.Context, network, address string) (net.Listener, error)

// ListenPacketFunc announces on a UDP address, like
// [net.ListenConfig.ListenPacket].
type ListenPacketFunc func(ctx context.Context, network, address string) (net.PacketConn, error)

var (
	// ErrCorrupt is the cause when what was received is not what was sent.
	ErrCorrupt = errors.New("received bytes differ from those sent")

	// ErrMoved is the cause when one connection was answered by two backends.
	ErrMoved = errors.New("answered by another backend than before")
)

// Result is how one exchange went.
type Result struct {
	Start    time.Time
	Duration time.Duration  // from before connecting to the last byte
	Backend  string         // the name the server gave; empty if it never answered
	Local    netip.AddrPort // the client's end of the connection; zero if there was none
	Remote   netip.AddrPort // the address asked
	Bytes    int64          // of payload verified, both directions together
	Err      error          // nil if all was right
}

// String describes the result in one line.
func (r Result) String() string {
	backend, verdict := r.Backend, "ok"
	if backend == "" {
		backend = "(nobody)"
	}
	if r.Err != nil {
		verdict = r.Err.Error()
	}
	return fmt.Sprintf("%s from %s by %s, %d bytes in %v: %s",
		r.Remote, r.Local, backend, r.Bytes, r.Duration.Round(time.Microsecond), verdict)
}

// content returns the endless bytes that belong to a seed. They are the same
// for everyone, whatever the sizes of the reads.
func content(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

// verify reads from r until it ends and compares with the content of the seed,
// of which there should be n bytes. It returns how many were right.
func verify(r io.Reader, seed uint64, n int64) (int64, error) {
	var got, want [16 << 10]byte
	expected := content(seed)
	var done int64
	for {
		k, err := r.Read(got[:])
		_, _ = io.ReadFull(expected, want[:k]) // cannot fail
		for i := range k {
			if got[i] != want[i] || done == n {
				return done, fmt.Errorf("byte %d of %d: %w", done, n, ErrCorrupt)
			}
			done++
		}
		switch {
		case errors.Is(err, io.EOF) && done == n:
			return done, nil
		case errors.Is(err, io.EOF):
			return done, fmt.Errorf("after %d of %d bytes: %w", done, n, io.ErrUnexpectedEOF)
		case err != nil:
			return done, fmt.Errorf("after %d of %d bytes: %w", done, n, err)
		}
	}
}
