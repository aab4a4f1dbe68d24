// Package offload switches off what a NIC does to received frames while weir
// reads them.
//
// The problem it solves: GRO and LRO glue the segments of a TCP stream together
// before anything else sees them. What they make is larger than the MTU: it
// fits neither a packet buffer nor the link it has to go out on. And a VLAN tag
// that the NIC takes off is nowhere to be seen for an XDP program. A load
// balancer has nothing to gain from either, so they are off while weir runs,
// and on again afterwards.
package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// Settings remembers what Disable switched off on one interface.
type Settings struct {
	ifname string

	mu     sync.Mutex
	nic    *ethtool.Ethtool // stays in the network namespace it was opened in; nil once restored
	turned []string         // features that were on
}

// Feature is something a NIC does, by its name in the kernel
// (net/ethtool/common.c, netdev_features_strings).
type Feature string

// The features that are in weir's way.
const (
	LRO          Feature = "rx-lro"
	HardwareGRO  Feature = "rx-gro-hw"
	GRO          Feature = "rx-gro"
	VLANStripped Feature = "rx-vlan-hw-parse"
)

// Disable switches features off on the interface of this name in the calling
// thread's network namespace. A feature that the NIC does not have or that is
// off already is left alone; one that cannot be switched off is logged, as
// frames larger than the MTU will be dropped, or tags go unseen. Whoever calls
// it calls [Settings.Restore] in the end.
func Disable(ifname string, features []Feature, log *slog.Logger) (*Settings, error) {
	nic, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open ethtool socket: %w", err)
	}
	s := &Settings{ifname: ifname, nic: nic}
	if err := s.disable(features, log); err != nil {
		return nil, errors.Join(err, s.Restore())
	}
	return s, nil
}

func (s *Settings) disable(features []Feature, log *slog.Logger) error {
	names := make([]string, len(features))
	for i, f := range features {
		names[i] = string(f)
	}
	before, err := s.nic.FeaturesWithState(s.ifname)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read features of %s: %w", s.ifname, err)
	}
	for _, name := range names {
		if !before[name].Active {
			continue
		}
		if before[name].Available && !before[name].NeverChanged {
			err := s.nic.Change(s.ifname, map[string]bool{name: false})
			if errors.Is(err, unix.EPERM) {
				return fmt.Errorf("switch off %s on %s (run as root or with CAP_NET_ADMIN): %w", name, s.ifname, err)
			}
			if err != nil {
				return fmt.Errorf("switch off %s on %s: %w", name, s.ifname, err)
			}
			s.turned = append(s.turned, name)
		}
	}

	// A driver may keep what it was asked to switch off without an error.
	after, err := s.nic.Features(s.ifname)
	if err != nil {
		return fmt.Errorf("read features of %s: %w", s.ifname, err)
	}
	for _, name := range names {
		if after[name] {
			log.Warn("an offload cannot be switched off; frames larger than the MTU will be dropped, and VLAN tags may go unseen",
				"interface", s.ifname, "feature", name)
		}
	}
	return nil
}

// Restore switches on again what [Disable] switched off, and nothing else. An
// interface that does not exist any more is no error. It may be called from any
// thread, and twice: the second time does nothing.
func (s *Settings) Restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nic == nil {
		return nil
	}
	defer func() {
		s.nic.Close()
		s.nic = nil
	}()

	var errs []error
	for _, name := range s.turned {
		err := s.nic.Change(s.ifname, map[string]bool{name: true})
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("switch on %s on %s: %w", name, s.ifname, err))
		}
	}
	return errors.Join(errs...)
}
