// Package nginx runs a real nginx in a host of a lab, as a backend.
//
// The problem it solves: the lab's own servers verify every byte, and speak
// HTTP and TLS by the same library as weir's health checks. A user's backend is
// neither. So some tests have the web server behind weir that is behind most
// load balancers, with its own idea of HTTP, TLS and open connections.
package nginx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"weir/lab/netlab"
)

// program is where Debian has nginx.
const program = "/usr/sbin/nginx"

// ErrMissing is in the error when nginx is not installed.
var ErrMissing = errors.New("not installed: run scripts/deps")

const (
	readyWithin  = 10 * time.Second // until it answers
	stopGrace    = 5 * time.Second  // from SIGTERM to SIGKILL
	pollInterval = 5 * time.Millisecond
)

// Config says what a server is called and where it listens.
type Config struct {
	Name string // of letters, digits and -

	// HTTP and HTTPS are the addresses to listen on. The host has to have them.
	HTTP, HTTPS []netip.AddrPort

	// Names are those in the certificate, host names and addresses, in addition
	// to the addresses of HTTPS.
	Names []string
}

// Server is an nginx in a host. It answers
//
//	GET /          its name
//	GET /whoami    what traffic.WhoAmI decodes
//	GET /healthz   200 and "ok", or 503 after SetHealthy(false)
//
// and names itself in the header X-Backend of every answer. Its methods are not
// to be called by two goroutines at once.
type Server struct {
	host   *netlab.Host
	dir    string
	config Config
	nginx  *netlab.Process // nil while it is not running
}

// Start starts an nginx and waits until it listens.
func Start(ctx context.Context, host *netlab.Host, config Config) (*Server, error) {
	s := &Server{host: host, config: config}
	err := s.prepare()
	if err == nil {
		err = s.Restart(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start nginx on %s: %w", host.Name(), err), s.Stop())
	}
	return s, nil
}

func (s *Server) prepare() (err error) {
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("%s: %w", program, ErrMissing)
	}
	if len(s.config.HTTP)+len(s.config.HTTPS) == 0 {
		return errors.New("no address to listen on")
	}
	if s.dir, err = os.MkdirTemp("", "weir-nginx-"); err != nil {
		return err
	}
	if len(s.config.HTTPS) > 0 {
		names := s.config.Names
		for _, a := range s.config.HTTPS {
			names = append(names, a.Addr().String())
		}
		if err := certify(s.Certificate(), s.file("key.pem"), names); err != nil {
			return fmt.Errorf("make certificate: %w", err)
		}
	}
	return os.WriteFile(s.file("nginx.conf"), []byte(s.text()), 0o600)
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// Certificate returns the path of the server's certificate, which is signed by
// itself.
func (s *Server) Certificate() string { return s.file("certificate.pem") }

// text returns the configuration. Without a master, nginx is one process, which
// the kernel ends with the lab's: workers would outlive their master.
func (s *Server) text() string {
	var listen strings.Builder
	for _, a := range s.config.HTTP {
		fmt.Fprintf(&listen, "\t\tlisten %s;\n", a)
	}
	for _, a := range s.config.HTTPS {
		fmt.Fprintf(&listen, "\t\tlisten %s ssl;\n", a)
	}
	certificate := ""
	if len(s.config.HTTPS) > 0 {
		certificate = fmt.Sprintf("\t\tssl_certificate %s;\n\t\tssl_certificate_key %s;\n", s.Certificate(), s.file("key.pem"))
	}
	return strings.NewReplacer("DIR", s.dir, "NAME", s.config.Name, "\t\tLISTEN\n", listen.String()+certificate).Replace(`
daemon off;
master_process off;
user root;
pid DIR/nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
	log_format lab '$remote_addr $server_addr:$server_port $scheme $host $request_method $request_uri $status';
	access_log DIR/access.log lab;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	map $remote_addr $client { ~: "[$remote_addr]"; default $remote_addr; }
	map $server_addr $vip { ~: "[$server_addr]"; default $server_addr; }
	default_type text/plain;
	server {
		LISTEN
		add_header X-Backend NAME always;
		location = / { return 200 "NAME\n"; }
		location = /whoami { return 200 '{"backend":"NAME","client":"$client:$remote_port","vip":"$vip:$server_port"}\n'; }
		location = /healthz {
			if (-f DIR/sick) { return 503 "sick\n"; }
			return 200 "ok\n";
		}
		location / { return 404 "not here\n"; }
	}
}
`)
}

// Restart starts a server again that was killed, and waits until it listens.
func (s *Server) Restart(ctx context.Context) error {
	if s.nginx != nil {
		return errors.New("it is running")
	}
	p, err := s.host.Start(exec.Command(program, "-p", s.dir, "-c", s.file("nginx.conf"), "-e", "stderr"))
	if err != nil {
		return err
	}
	s.nginx = p
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		err := s.connect(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			s.nginx = nil
			return fmt.Errorf("it ended (%v): %s", p.Wait(), strings.TrimSpace(p.Output()))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w: %s", err, strings.TrimSpace(p.Output()))
		case <-time.After(pollInterval):
		}
	}
}

// connect tries the address that is opened last.
func (s *Server) connect(ctx context.Context) error {
	all := append(append([]netip.AddrPort{}, s.config.HTTP...), s.config.HTTPS...)
	var c net.Conn
	c, err := s.host.DialContext(ctx, "tcp", all[len(all)-1].String())
	if err == nil {
		err = c.Close()
	}
	return err
}

// SetHealthy decides what /healthz answers; a server starts healthy.
func (s *Server) SetHealthy(healthy bool) error {
	if !healthy {
		return os.WriteFile(s.file("sick"), nil, 0o600)
	}
	if err := os.Remove(s.file("sick")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Requests returns the access log, a line for each request: the client's
// address, the server's address and port, scheme, host, method, path, status.
func (s *Server) Requests() (string, error) {
	text, err := os.ReadFile(s.file("access.log"))
	return string(text), err
}

// Kill ends nginx at once; its host stays, and refuses connections.
func (s *Server) Kill() error {
	p := s.nginx
	if p == nil {
		return errors.New("kill nginx: it is not running")
	}
	s.nginx = nil
	if err := p.Signal(os.Kill); err != nil {
		return err
	}
	_ = p.Wait() // says that it was killed
	return nil
}

// Stop ends nginx and removes its files. It may be called twice.
func (s *Server) Stop() error {
	var errs []error
	if s.nginx != nil {
		errs = append(errs, s.nginx.Stop(stopGrace))
		s.nginx = nil
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
