package via

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"testing"

	"weir/controlplane/health"
	"weir/dataplane/rewrite"
)

const securePort = 443

// secure serves TLS on all addresses of a backend.
func (w *world) secure(b *backend) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"weir.test"}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	w.must(err)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
	l, err := b.host.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", securePort))
	w.must(err)
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(tls.Server(c, config), b.name)
			}()
		}
	}()
}

// askSecurely makes a TLS connection, whose first message, with today's key
// exchange, is longer than a packet of any way.
func (w *world) askSecurely(n *Network, vip netip.Addr, way string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var c net.Conn
	err := w.box.Do(func() (err error) {
		c, err = n.DialContext(ctx, "tcp", netip.AddrPortFrom(vip, securePort), way)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	got, err := io.ReadAll(io.LimitReader(tls.Client(c, &tls.Config{InsecureSkipVerify: true}), int64(len(way))))
	return string(got), err
}

// A way with less room than the device has: connections get shorter segments, and a
// datagram that does not fit is no fault of the backend's.
func TestShortWays(t *testing.T) {
	w := newWorld(t)
	n := w.open()
	b := w.backends[0]
	w.decapsulate(b)
	w.secure(b)
	for _, filter := range []string{"0", "1"} {
		w.must(w.box.Sysctl("net.ipv4.conf.all.rp_filter", filter))
		for _, mtu := range []int{1200, 1280, 1500} {
			for _, kind := range []struct {
				name   string
				tunnel rewrite.Tunnel
				header int
			}{
				{"dsr", rewrite.Tunnel{}, 0},
				{"ipip over IPv4", rewrite.Tunnel{Source: box4.Addr(), Destination: b.addr4}, 20},
				{"ipip over IPv6", rewrite.Tunnel{Source: box6.Addr(), Destination: b.addr6}, 40},
			} {
				link := w.frameLink(b)
				link.MTU = mtu
				way := Way{Interface: "eth0", Has4: true, Has6: true}
				var err4, err6 error
				if kind.header == 0 {
					way.IPv4, err4 = rewrite.DSR(link, false)
					way.IPv6, err6 = rewrite.DSR(link, true)
				} else {
					way.IPv4, err4 = rewrite.IPIP(link, false, kind.tunnel)
					way.IPv6, err6 = rewrite.IPIP(link, true, kind.tunnel)
				}
				w.must(errors.Join(err4, err6))
				n.SetWays(map[string]Way{"b1": way})
				for _, vip := range vips {
					if got, err := w.askSecurely(n, vip, "b1"); got != "b1" {
						t.Errorf("%s, MTU %d, %s: answered by %q, error %v", kind.name, mtu, vip, got, err)
					}
					headers := 20 + 8
					if vip.Is6() {
						headers = 40 + 8
					}
					w.datagrams(n, vip, min(mtu-kind.header, deviceMTU)-headers)
				}
			}
		}
	}
	if s := n.Stats(); s.Unfit != 0 || s.Stray != 0 {
		t.Errorf("got %+v, want packets that fit", s)
	}
}

// datagrams sends the longest that fits, and one byte more.
func (w *world) datagrams(n *Network, vip netip.Addr, longest int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var c net.Conn
	w.must(w.box.Do(func() (err error) {
		c, err = n.DialContext(ctx, "udp", netip.AddrPortFrom(vip, port), "b1")
		return err
	}))
	defer c.Close()
	if _, err := c.Write(make([]byte, longest+1)); !errors.Is(err, health.ErrUnable) {
		w.t.Errorf("%d bytes to %s: %v", longest+1, vip, err)
	}
	_, err := c.Write(make([]byte, longest))
	w.must(err)
	if _, err := c.Read(make([]byte, 16)); err != nil {
		w.t.Errorf("%d bytes to %s: %v", longest, vip, err)
	}
}
