package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// userAgent is what checks call themselves.
const userAgent = "weir-health"

// TLS says how a connection is secured.
type TLS struct {
	ServerName  string // for SNI and the certificate; if empty, the host's, or the address
	Verify      bool   // the server's certificate must be valid
	CA          string // file of PEM certificates to verify by; the system's if empty
	Certificate string // file of the client certificate, PEM, with its chain; none if empty
	Key         string // file of its key
	MinVersion  string // "1.0" to "1.3"; "1.2" if empty
}

func (t *TLS) clone() *TLS {
	if t == nil {
		return nil
	}
	c := *t
	return &c
}

func (t *TLS) version() (uint16, error) {
	switch t.MinVersion {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "", "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unknown TLS version %q, want 1.0, 1.1, 1.2 or 1.3", t.MinVersion)
}

// credentials are the files of all checks, each read once for however many
// checks.
type credentials struct {
	mu    sync.Mutex
	known map[TLS]*credential // guarded by mu
}

// client returns what connections to one server need. It reads nothing yet.
func (c *credentials) client(spec TLS, name string, protocols ...string) *client {
	if spec.ServerName != "" {
		name = spec.ServerName
	}
	spec.ServerName = "" // the rest can be shared
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.known[spec]
	if found == nil {
		found = &credential{spec: spec}
		c.known[spec] = found
	}
	return &client{credential: found, name: name, protocols: protocols}
}

// keep forgets the credentials that none of these checks uses.
func (c *credentials) keep(checks map[string]*running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) == 0 {
		return
	}
	used := map[TLS]bool{}
	for _, r := range checks {
		var spec *TLS
		switch p := r.check.Probe.(type) {
		case HTTP:
			spec = p.TLS
		case GRPC:
			spec = p.TLS
		}
		if spec != nil {
			shared := *spec
			shared.ServerName = ""
			used[shared] = true
		}
	}
	for spec := range c.known {
		if !used[spec] {
			delete(c.known, spec)
		}
	}
}

// client makes the TLS configuration for connections to one server.
type client struct {
	credential *credential
	name       string
	protocols  []string // for ALPN, RFC 7301
}

// config returns the configuration for one connection. An error wraps
// ErrUnable.
func (c *client) config() (*tls.Config, error) {
	base, err := c.credential.current()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnable, err)
	}
	config := base.Clone()
	config.ServerName, config.NextProtos = c.name, c.protocols
	return config, nil
}

// credential is what one TLS has in files, read again when one has changed.
type credential struct {
	spec TLS

	mu     sync.Mutex
	files  [3]stamp
	looked time.Time   // at the files
	config *tls.Config // not modified; nil if err is set, or nothing was read
	err    error
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
	missing  bool
}

// recheck is how long files are taken to be what they were.
const recheck = time.Second

func (c *credential) current() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.looked.IsZero() && now.Sub(c.looked) < recheck {
		return c.config, c.err
	}
	files := [3]stamp{}
	for i, name := range []string{c.spec.CA, c.spec.Certificate, c.spec.Key} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			files[i].missing = errors.Is(err, fs.ErrNotExist)
			continue
		}
		files[i] = stamp{modified: info.ModTime(), size: info.Size()}
	}
	// What could not be read is tried again even if it looks the same: a file
	// may have been half written, or its mode may have changed.
	if c.looked.IsZero() || files != c.files || c.err != nil {
		c.config, c.err = c.spec.load()
	}
	c.files, c.looked = files, now
	return c.config, c.err
}

func (t *TLS) load() (*tls.Config, error) {
	version, err := t.version()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: version, InsecureSkipVerify: !t.Verify}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read CA certificates: no PEM certificate in %s", t.CA)
		}
	}
	if (t.Certificate == "") != (t.Key == "") {
		return nil, errors.New("a client certificate needs a certificate file and a key file")
	}
	if t.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
