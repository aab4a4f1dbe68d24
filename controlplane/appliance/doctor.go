package appliance

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"weir/controlplane/api"
	"weir/controlplane/config"
	"weir/controlplane/doctor"
	"weir/controlplane/health"
	"weir/controlplane/reconcile"
	"weir/controlplane/via"
)

// atATime is how many backends are examined at once: enough that a large service
// does not take minutes, and few packets.
const atATime = 16

// Doctor implements api.Appliance.
func (a *Appliance) Doctor(ctx context.Context, service string) (api.Diagnosis, error) {
	var steering doctor.Steering
	if n, ok := a.network.(*via.Network); ok {
		steering = n
	}
	d := doctor.New(steering, 0)
	view := a.reconciler.View()
	var interfaces []string
	for _, i := range a.reconciler.Config().Interfaces {
		interfaces = append(interfaces, i.Name)
	}
	all := api.Diagnosis{Subject: "weir", Children: []api.Diagnosis{}}
	var group errgroup.Group
	group.SetLimit(atATime)
	for i := range view.Services {
		s := &view.Services[i]
		if service != "" && s.Name != service {
			continue
		}
		parts := withheld(view, s)
		first := len(parts)
		parts = append(parts, make([]api.Diagnosis, len(s.Backends))...)
		all.Children = append(all.Children, api.Diagnosis{Subject: "service " + s.Name, Children: parts})
		for k := range s.Backends {
			group.Go(func() error {
				parts[first+k] = examine(ctx, d, s, &s.Backends[k], interfaces)
				return nil
			})
		}
	}
	_ = group.Wait() // none fails
	for i := range all.Children {
		sum(&all.Children[i])
	}
	sum(&all)
	return all, nil
}

// withheld says which VIPs of a service are not announced, and why.
func withheld(view *reconcile.View, s *reconcile.Service) []api.Diagnosis {
	var all []api.Diagnosis
	for _, vip := range s.Addresses {
		for _, a := range view.Addresses {
			if a.Address != vip {
				continue
			}
			for _, by := range a.By {
				if why := a.Withheld(by); why != "" {
					all = append(all, api.Diagnosis{
						Subject: fmt.Sprintf("announcing %s by %s", vip, by), Status: api.DiagnosisWarn, Text: "it is not announced: " + why,
					})
				}
			}
		}
	}
	return all
}

// examine has one backend looked at.
func examine(ctx context.Context, d *doctor.Doctor, s *reconcile.Service, b *reconcile.Backend, interfaces []string) api.Diagnosis {
	subject := "backend " + b.Address.String()
	if b.Admin == config.Disabled {
		return api.Diagnosis{Subject: subject, Status: api.DiagnosisSkipped, Text: "it is disabled"}
	}
	found := translate(d.Examine(ctx, doctor.Subject{
		Service: s.Name, Mode: string(s.Mode), Backend: b.Address, Port: ownPort(s, b), VIPs: tcpVIPs(s, b),
		Hop: b.Hop, Interfaces: interfaces, Way: reconcile.WayTo(s.Name, b.Address), MTU: b.MTU,
		Healthy:    len(b.Checks) > 0 && b.Health.State == health.Up,
		KeepClient: s.ClientAddress == config.ClientKeep,
	}))
	found.Subject = subject
	return found
}

// ownPort is the TCP port that a backend should answer on at its own address; 0
// for none.
func ownPort(s *reconcile.Service, b *reconcile.Backend) uint16 {
	if b.Port != 0 {
		return b.Port
	}
	return tcpPort(s, b)
}

// tcpPort is the TCP port that a backend is checked on, or else the first that the
// service names; 0 for none.
func tcpPort(s *reconcile.Service, b *reconcile.Backend) uint16 {
	if h := s.Health; h != nil && (h.TCP != nil || h.HTTP != nil || h.GRPC != nil) {
		for i := range s.Service.Backends {
			if s.Service.Backends[i].Address == b.Address {
				return s.Service.Backends[i].CheckPort
			}
		}
	}
	return firstTCP(s)
}

// firstTCP returns the first TCP port that a service names; 0 for none.
func firstTCP(s *reconcile.Service) uint16 {
	for _, p := range s.Ports {
		if p.Proto == config.TCP && !p.All() {
			return p.Lo
		}
	}
	return 0
}

// tcpVIPs returns the VIPs that a backend serves, each with a TCP port.
func tcpVIPs(s *reconcile.Service, b *reconcile.Backend) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range s.Addresses {
		if reconcile.Serves(s.Service, b.Address, a.Is6()) {
			all = append(all, netip.AddrPortFrom(a, tcpPort(s, b)))
		}
	}
	return all
}

// translate takes over what the doctor found, each thing once: what a check has
// from a part of it stands with the part, unless there is no other.
func translate(d doctor.Diagnosis) api.Diagnosis {
	to := api.Diagnosis{Subject: d.Check, Status: api.Verdict(d.Status), Text: d.Text, Fix: d.Fix}
	if len(d.Children) == 1 && d.Children[0].Text == d.Text && len(d.Children[0].Children) == 0 {
		return to
	}
	for _, child := range d.Children {
		if child.Text == d.Text {
			to.Text, to.Fix = "", ""
		}
		to.Children = append(to.Children, translate(child))
	}
	return to
}

// sum says of a whole what is true of its parts.
func sum(d *api.Diagnosis) {
	count := make(map[api.Verdict]int)
	for i := range d.Children {
		count[d.Children[i].Status]++
	}
	d.Status = api.DiagnosisOK
	switch {
	case count[api.DiagnosisFail] > 0:
		d.Status = api.DiagnosisFail
		d.Text = fmt.Sprintf("%d of %d fail", count[api.DiagnosisFail], len(d.Children))
	case count[api.DiagnosisWarn] > 0:
		d.Status = api.DiagnosisWarn
	}
}
