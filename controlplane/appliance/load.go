package appliance

import (
	"fmt"

	"weir/controlplane/config"
	"weir/controlplane/ipam"
	"weir/controlplane/reserve"
)

// loaded is a configuration that is complete: its services have addresses.
type loaded struct {
	cfg      *config.Config
	host     *config.Host
	had      []ipam.Allocation // by services before
	given    ipam.Result
	warnings []string
}

// Load reads a configuration file and checks it, also against this host. Services
// that ask for addresses from pools have those that they would have if weir
// started now.
func Load(path string) (*config.Config, []string, error) {
	l, err := load(path)
	if err != nil {
		return nil, l.warnings, err
	}
	return l.cfg, l.warnings, nil
}

// load is for a start. A service that had an address which its pool does not have
// any more gets another: there is nothing to go on with.
func load(path string) (loaded, error) {
	host, err := thisHost(nil)
	if err != nil {
		return loaded{}, err
	}
	cfg, warnings, err := config.Load(path, &host)
	l := loaded{host: &host}
	if err := l.take(cfg, warnings, err); err != nil {
		return l, err
	}
	existing, err := ipam.NewStore(cfg.StateDir).Load()
	if err != nil {
		l.warnings = append(l.warnings, fmt.Sprintf("warning: %v", err))
	}
	lost, err := ipam.Tolerate(l.allocate(existing))
	for _, one := range lost {
		l.warnings = append(l.warnings, fmt.Sprintf("warning: %v", one))
	}
	return l, err
}

// reload is for a weir that runs: whatever would make a service lose its address
// is an error.
func reload(cfg *config.Config, warnings config.Warnings, err error, host *config.Host, given []ipam.Allocation) (loaded, error) {
	l := loaded{host: host}
	if err := l.take(cfg, warnings, err); err != nil {
		return l, err
	}
	return l, l.allocate(given)
}

// take turns the warnings of a configuration into texts, and holds its
// nat.shared.ports against this host's.
func (l *loaded) take(cfg *config.Config, warnings config.Warnings, err error) error {
	for _, w := range warnings {
		l.warnings = append(l.warnings, w.Error())
	}
	if err != nil {
		return err
	}
	l.cfg = cfg
	if len(cfg.NAT.Shared.Addresses) == 0 {
		return nil
	}
	if err := reserve.Check(shared(cfg)); err != nil {
		return fmt.Errorf("nat.shared.ports: %w", err)
	}
	if warning := socketsOn(shared(cfg)); warning != "" {
		l.warnings = append(l.warnings, warning)
	}
	return nil
}

// allocate gives services their addresses.
func (l *loaded) allocate(existing []ipam.Allocation) error {
	l.had = existing
	cfg, given, err := allocate(l.cfg, existing, l.host)
	if cfg != nil {
		l.cfg, l.given = cfg, given
	}
	return err
}
