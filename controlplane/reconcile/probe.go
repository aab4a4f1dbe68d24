package reconcile

import (
	"weir/controlplane/config"
	"weir/controlplane/health"
)

// probe says to package health what a check asks.
func probe(h *config.Health) health.Probe {
	switch {
	case h.HTTP != nil:
		p := health.HTTP{
			Path: h.HTTP.Path, Host: h.HTTP.Host, Method: h.HTTP.Method, Body: h.HTTP.Body, TLS: tlsOf(h.HTTP.TLS),
		}
		for _, codes := range h.HTTP.Codes {
			p.Codes = append(p.Codes, health.Codes(codes))
		}
		return p
	case h.ICMP != nil:
		return health.ICMP{}
	case h.UDP != nil:
		return health.UDP{Send: h.UDP.Send, Expect: h.UDP.Expect, ExpectBytes: h.UDP.ExpectBytes}
	case h.DNS != nil:
		return health.DNS{
			Name: h.DNS.Name, Type: h.DNS.Type, Transport: h.DNS.Transport, Codes: h.DNS.Codes, Expect: h.DNS.Expect,
		}
	case h.GRPC != nil:
		return health.GRPC{Service: h.GRPC.Service, TLS: tlsOf(h.GRPC.TLS)}
	}
	return health.TCP{}
}

func tlsOf(t *config.TLS) *health.TLS {
	if t == nil {
		return nil
	}
	to := health.TLS(*t)
	return &to
}
