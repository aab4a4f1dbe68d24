package traffic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// backendHeader is the header in which every HTTP answer names its server.
const backendHeader = "X-Backend"

// maxBytes is the largest answer that /bytes and /slow give.
const maxBytes = 1 << 40

// ServerConfig says what a server is called and where it listens.
type ServerConfig struct {
	Name string // of the backend, without '|'

	// TCP and UDP are the addresses to serve HTTP and echo on; port 0 takes a
	// free one. An UDP answer comes from the address its socket is bound to, so
	// a VIP is named here and not left to the unspecified address.
	TCP, UDP []netip.AddrPort

	// Streams are the addresses to echo bytes over TCP on; port 0 takes a free one.
	Streams []netip.AddrPort

	// Listen and ListenPacket open the sockets; nil means package net.
	Listen       ListenFunc
	ListenPacket ListenPacketFunc

	Log *slog.Logger // nil: silent
}

// Server is a backend. Over HTTP it answers
//
//	GET  /bytes?n=N&seed=S         N bytes that follow from S
//	GET  /slow?n=N&rate=R&seed=S   the same at R bytes per second
//	POST /upload                   an [Upload]
//	GET  /whoami                   a [WhoAmI]
//	GET  /healthz                  200, or 503 after SetHealthy(false)
//
// and over UDP it echoes each datagram behind its own name and the client's
// address, see [Client.OpenEcho]. Over TCP it does the same with bytes, see
// [Client.OpenStream].
type Server struct {
	name      string
	log       *slog.Logger
	listeners []net.Listener
	streams   []net.Listener
	packets   []net.PacketConn
	unhealthy atomic.Bool

	mu   sync.Mutex
	seen map[netip.Addr]int
}

// Upload is the server's answer to an upload.
type Upload struct {
	Backend string `json:"backend"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"` // hexadecimal
}

// WhoAmI is what the server knows of the connection it is asked over.
type WhoAmI struct {
	Backend string         `json:"backend"`
	Client  netip.AddrPort `json:"client"` // as the server sees it
	VIP     netip.AddrPort `json:"vip"`    // the address the client was answered at
}

// NewServer opens all sockets of a server; the kernel takes connections from
// then on, and [Server.Run] serves them.
func NewServer(ctx context.Context, config ServerConfig) (*Server, error) {
	listen, listenPacket := config.Listen, config.ListenPacket
	if listen == nil {
		listen = new(net.ListenConfig).Listen
	}
	if listenPacket == nil {
		listenPacket = new(net.ListenConfig).ListenPacket
	}
	s := &Server{name: config.Name, log: config.Log, seen: make(map[netip.Addr]int)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := checkName(s.name); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	for _, tcp := range []struct {
		addresses []netip.AddrPort
		listeners *[]net.Listener
	}{{config.TCP, &s.listeners}, {config.Streams, &s.streams}} {
		for _, address := range tcp.addresses {
			l, err := listen(ctx, "tcp", address.String())
			if err != nil {
				return nil, errors.Join(fmt.Errorf("server %s: listen on tcp %s: %w", s.name, address, err), s.Close())
			}
			*tcp.listeners = append(*tcp.listeners, l)
		}
	}
	for _, address := range config.UDP {
		c, err := listenPacket(ctx, "udp", address.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("server %s: listen on udp %s: %w", s.name, address, err), s.Close())
		}
		s.packets = append(s.packets, c)
	}
	return s, nil
}

// TCP returns the addresses HTTP is served on, in the order of the
// configuration.
func (s *Server) TCP() (addrs []netip.AddrPort) {
	for _, l := range s.listeners {
		addrs = append(addrs, addrPort(l.Addr()))
	}
	return addrs
}

// Streams returns the addresses bytes are echoed on, in the order of the
// configuration.
func (s *Server) Streams() (addrs []netip.AddrPort) {
	for _, l := range s.streams {
		addrs = append(addrs, addrPort(l.Addr()))
	}
	return addrs
}

// UDP returns the addresses echo is served on, in the order of the
// configuration.
func (s *Server) UDP() (addrs []netip.AddrPort) {
	for _, c := range s.packets {
		addrs = append(addrs, addrPort(c.LocalAddr()))
	}
	return addrs
}

// Seen returns how many HTTP requests came from each address, as an access log
// has it.
func (s *Server) Seen() map[netip.Addr]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.seen)
}

// saw notes who makes a request.
func (s *Server) saw(r *http.Request) {
	if client, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		s.mu.Lock()
		s.seen[client.Addr().Unmap()]++
		s.mu.Unlock()
	}
}

// SetHealthy decides what /healthz answers; a server starts healthy.
func (s *Server) SetHealthy(healthy bool) { s.unhealthy.Store(!healthy) }

// Run serves until ctx is done and then returns nil. It leaves like a server
// that crashes: its sockets and connections are closed at once, whatever is
// under way. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	web := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		group.Go(func() error {
			if err := web.Serve(l); ctx.Err() == nil {
				return fmt.Errorf("server %s: serve %s: %w", s.name, l.Addr(), err)
			}
			return nil
		})
	}
	for _, l := range s.streams {
		group.Go(func() error {
			if err := s.stream(ctx, l); ctx.Err() == nil {
				return fmt.Errorf("server %s: streams on %s: %w", s.name, l.Addr(), err)
			}
			return nil
		})
	}
	for _, c := range s.packets {
		group.Go(func() error {
			if err := s.echo(c); ctx.Err() == nil {
				return fmt.Errorf("server %s: echo on %s: %w", s.name, c.LocalAddr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		web.Close()
		s.Close()
		return nil
	})
	return group.Wait()
}

// Close closes the listening sockets. It is only needed without Run, and may be
// called twice.
func (s *Server) Close() error {
	var errs []error
	for _, l := range slices.Concat(s.listeners, s.streams) {
		errs = append(errs, l.Close())
	}
	for _, c := range s.packets {
		errs = append(errs, c.Close())
	}
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) { s.send(w, r, false) })
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) { s.send(w, r, true) })
	mux.HandleFunc("POST /upload", s.upload)
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		s.answer(w, WhoAmI{Backend: s.name, Client: unmap(client), VIP: addrPort(local)})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if s.unhealthy.Load() {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.saw(r)
		w.Header().Set(backendHeader, s.name)
		mux.ServeHTTP(w, r)
	})
}

// send serves /bytes and, slowly, /slow.
func (s *Server) send(w http.ResponseWriter, r *http.Request, slow bool) {
	query := r.URL.Query()
	n, errN := strconv.ParseInt(query.Get("n"), 10, 64)
	seed, errSeed := strconv.ParseUint(query.Get("seed"), 10, 64)
	if query.Get("seed") == "" {
		errSeed = nil
	}
	if errN != nil || errSeed != nil || n < 0 || n > maxBytes {
		http.Error(w, fmt.Sprintf("want n=0..%d and seed=0..2^64-1", int64(maxBytes)), http.StatusBadRequest)
		return
	}
	chunk, pause := n, time.Duration(0)
	if slow {
		rate, err := strconv.ParseInt(query.Get("rate"), 10, 64)
		if err != nil || rate < 1 || rate > maxBytes {
			http.Error(w, fmt.Sprintf("want rate=1..%d, bytes per second", int64(maxBytes)), http.StatusBadRequest)
			return
		}
		chunk = max(1, rate/20)
		pause = time.Duration(float64(chunk) / float64(rate) * float64(time.Second))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	bytes, flusher := content(seed), http.NewResponseController(w)
	for left := n; left > 0; left -= chunk {
		chunk = min(chunk, left)
		if _, err := io.CopyN(w, bytes, chunk); err != nil {
			s.log.Debug("transfer ended early", "client", r.RemoteAddr, "left", left, "err", err)
			return
		}
		if !slow {
			continue
		}
		if err := flusher.Flush(); err != nil {
			s.log.Debug("transfer ended early", "client", r.RemoteAddr, "left", left, "err", err)
			return
		}
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("after %d bytes: %v", n, err), http.StatusBadRequest)
		return
	}
	s.answer(w, Upload{Backend: s.name, Bytes: n, SHA256: hex.EncodeToString(hash.Sum(nil))})
}

func (s *Server) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("answer not sent", "err", err)
	}
}

// addrPort returns the address of a TCP or UDP socket, IPv4 as IPv4.
func addrPort(addr net.Addr) netip.AddrPort {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
