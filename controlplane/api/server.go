package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weir/controlplane/config"
)

const (
	// askTimeout bounds how long a request waits for workers; one that does
	// not answer in this time is stuck.
	askTimeout = 2 * time.Second

	// listTimeout bounds a list of flows, which is many requests to each worker.
	// It is below what the client waits.
	listTimeout = 20 * time.Second

	// doctorTimeout bounds a diagnosis, which waits for many answers that do not
	// come. It is below what the client waits.
	doctorTimeout = 55 * time.Second

	// idleTimeout is how long a client may keep a connection for its next
	// request.
	idleTimeout = 2 * time.Minute

	// defaultFlowLimit bounds a list of flows unless the client says otherwise.
	defaultFlowLimit = 1000
	maxFlowLimit     = 1_000_000 // the list is built in memory, some 300 bytes each
)

// Server serves the api. Make one by Listen, start it by Run.
type Server struct {
	log       *slog.Logger
	appliance Appliance
	socket    net.Listener
	metrics   net.Listener // nil for none
}

// Listen opens the unix socket, which only root and its group may use, and the
// TCP address for Prometheus ("" for none). A socket that a killed weir has
// left behind is replaced; one that is answered is an error.
func Listen(socket, metrics string, appliance Appliance, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, appliance: appliance}
	var err error
	if s.socket, err = listenUnix(socket); err != nil {
		return nil, err
	}
	if metrics != "" {
		if s.metrics, err = net.Listen("tcp", metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for metrics (api.metrics): %w", err), s.socket.Close())
		}
	}
	return s, nil
}

func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of api socket: %w", err)
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the api: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict api socket: %w", err), l.Close())
	}
	return l, nil
}

// clearSocket removes a socket that nobody listens on any more.
func clearSocket(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look for an old api socket: %w", err)
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("listen on %s: there is a file that is no socket; remove it, or set api.socket to another path", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on %s: another weir answers there; stop it, or set api.socket to another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old api socket: %w", err)
	}
	return nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	serve := func(l net.Listener, h http.Handler) *http.Server {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: idleTimeout}
		go func() { failed <- srv.Serve(l) }()
		return srv
	}
	servers := []*http.Server{serve(s.socket, s.handler())}
	if s.metrics != nil {
		servers = append(servers, serve(s.metrics, metricsHandler(s.appliance)))
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("serve the api: %w", err)
	}
	for _, srv := range servers {
		_ = srv.Close()
	}
	return err
}

// Close closes the listeners and removes the socket. After Run, or twice, it
// does nothing.
func (s *Server) Close() {
	_ = s.socket.Close()
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	a := s.appliance
	// A wrong method or path gets a Problem as well.
	refuse := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			fail(w, code, fmt.Errorf("there is no %s %s", r.Method, r.URL.Path))
		})
	}
	get := func(path string, f func(r *http.Request) (any, error)) {
		refuse("/v1/"+path, http.StatusMethodNotAllowed)
		mux.HandleFunc("GET /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
			defer cancel()
			v, err := f(r.WithContext(ctx))
			answer(w, v, err)
		})
	}
	get("info", func(*http.Request) (any, error) { return a.Info(), nil })
	get("services", func(r *http.Request) (any, error) {
		return services(a.View(), totals(a.Status(r.Context()))), nil
	})
	get("backends", func(r *http.Request) (any, error) {
		return backends(a.View(), totals(a.Status(r.Context()))), nil
	})
	get("workers", func(r *http.Request) (any, error) { return workers(a.Status(r.Context())), nil })
	get("drops", func(r *http.Request) (any, error) { return drops(totals(a.Status(r.Context()))), nil })
	get("interfaces", func(*http.Request) (any, error) { return interfaces(a.Interfaces()), nil })
	get("nat", func(r *http.Request) (any, error) {
		return natOf(a.View(), a.NATSpace(), totals(a.Status(r.Context()))), nil
	})
	get("announcements", func(*http.Request) (any, error) { return announcements(a.Announcements(), a.View()), nil })
	get("pools", func(*http.Request) (any, error) { return orEmpty(a.Pools()), nil })
	get("members", func(*http.Request) (any, error) { return orEmpty(a.Members()), nil })
	get("peers", func(*http.Request) (any, error) { return orEmpty(a.Peers()), nil })
	mux.HandleFunc("GET /v1/doctor", func(w http.ResponseWriter, r *http.Request) {
		if err := onlyKeys(r, []string{"service"}); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), doctorTimeout)
		defer cancel()
		d, err := doctor(ctx, a, r.URL.Query().Get("service"))
		if err != nil {
			fail(w, http.StatusUnprocessableEntity, err)
			return
		}
		answer(w, d, nil)
	})
	refuse("/v1/doctor", http.StatusMethodNotAllowed)
	mux.HandleFunc("GET /v1/flows", func(w http.ResponseWriter, r *http.Request) {
		filter, err := parseFlowFilter(r)
		if err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
		defer cancel()
		v, err := flows(ctx, a, filter)
		answer(w, v, err)
	})
	refuse("/v1/flows", http.StatusMethodNotAllowed)
	post := func(path string, keys []string, f func(w http.ResponseWriter, r *http.Request) (any, error)) {
		refuse("/v1/"+path, http.StatusMethodNotAllowed)
		mux.HandleFunc("POST /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := onlyKeys(r, keys); err != nil {
				fail(w, http.StatusBadRequest, err)
				return
			}
			v, err := f(w, r)
			if err != nil {
				fail(w, http.StatusUnprocessableEntity, err)
				return
			}
			answer(w, v, nil)
		})
	}
	post("reload", nil, func(http.ResponseWriter, *http.Request) (any, error) { return a.Reload() })
	post("plan", []string{"name"}, func(w http.ResponseWriter, r *http.Request) (any, error) { return plan(w, r, a) })
	post("drain", []string{"backend", "service", "over"}, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return order(r, a, func(backend netip.Addr, service string) ([]string, error) {
			var over time.Duration
			if q := r.URL.Query(); q.Has("over") {
				v := q.Get("over")
				var err error
				if over, err = time.ParseDuration(v); err != nil {
					return nil, fmt.Errorf("over: %q is not a duration, as 60s or 5m", v)
				}
			}
			return a.Drain(backend, service, over)
		})
	})
	post("undrain", []string{"backend", "service"}, func(_ http.ResponseWriter, r *http.Request) (any, error) { return order(r, a, a.Undrain) })
	refuse("/", http.StatusNotFound)
	return mux
}

// onlyKeys refuses a verb with a key that it does not know, or has twice: without
// what was meant by it, it would do something else than was asked for.
func onlyKeys(r *http.Request, known []string) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("read query %q: %w", r.URL.RawQuery, err)
	}
	for _, key := range slices.Sorted(maps.Keys(q)) {
		switch {
		case len(known) == 0:
			return fmt.Errorf("%q is unknown here: %s wants no keys", key, r.URL.Path)
		case !slices.Contains(known, key):
			return fmt.Errorf("%q is unknown here: %s wants %s", key, r.URL.Path, strings.Join(known, ", "))
		case len(q[key]) > 1:
			return fmt.Errorf("%q is given %d times", key, len(q[key]))
		}
	}
	return nil
}

func parseFlowFilter(r *http.Request) (flowFilter, error) {
	q := r.URL.Query()
	f := flowFilter{service: q.Get("service"), limit: defaultFlowLimit}
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxFlowLimit {
			return f, fmt.Errorf("limit %q is not a number from 1 to %d", v, maxFlowLimit)
		}
		f.limit = n
	}
	if v := q.Get("backend"); v != "" {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return f, fmt.Errorf("backend: %w", err)
		}
		f.backend = a
	}
	return f, nil
}

// orEmpty has a list without anything in it say so.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error means the client has gone
}

func fail(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	p := Problem{Error: err.Error()}
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			p.Mistakes = append(p.Mistakes, m.Error())
		}
	}
	_ = json.NewEncoder(w).Encode(p)
}
