// Package offload switches off what a NIC does to received frames while weir
// reads them.
//
// The problem it solves: GRO and LRO glue the segments of a TCP stream together
// before anything else sees them. What they make is larger than the MTU: it
// fits neither a packet buffer nor the link it has to go out on. And a VLAN tag
// that the NIC takes off is nowhere to be seen for an XDP program. A load
// balancer has nothing to gain from either, so they are off while weir runs,
// and on again afterwards. A weir that is killed cannot do the latter, so it
// leaves a record for the next one, to which they would seem to have been off
// all along.
package offload

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// Settings remembers what was switched off on one interface.
type Settings struct {
	ifname string
	record string // path of the record; empty for none
	log    *slog.Logger

	mu     sync.Mutex
	nic    *ethtool.Ethtool // stays in the network namespace it was opened in; nil once restored
	turned []Feature        // those to be switched on again
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

// Open gets ready to switch features of an interface off, by its name in the
// calling thread's network namespace. The record is a file in the folder dir;
// without a folder there is none. What an earlier weir has recorded there
// counts as switched off by this one. A record that cannot be read or written is
// logged, and no error. Whoever calls Open calls [Settings.Restore] in the end.
func Open(ifname, dir string, log *slog.Logger) (*Settings, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", ifname, err)
	}
	nic, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("open ethtool socket: %w", err)
	}
	s := &Settings{ifname: ifname, log: log, nic: nic}
	if dir != "" {
		s.record = recordPath(dir, ifi)
		if s.turned, err = readRecord(s.record); err != nil {
			log.Warn("offloads that an earlier weir left switched off stay off",
				"interface", ifname, "error", err)
		}
	}
	return s, nil
}

// Disable switches features off. One that the NIC does not have or that is off
// already is left alone; one that cannot be switched off is logged, as frames
// larger than the MTU will be dropped, or tags go unseen. It may be called from
// any thread, and again for more features. After an error some may be off.
func (s *Settings) Disable(features ...Feature) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nic == nil {
		return fmt.Errorf("switch off features of %s: already restored", s.ifname)
	}
	before, err := s.nic.FeaturesWithState(s.ifname)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read features of %s: %w", s.ifname, err)
	}
	var on []Feature
	for _, f := range features {
		if state := before[string(f)]; state.Active && state.Available && !state.NeverChanged {
			on = append(on, f)
		}
	}
	s.keepRecord(on)
	for _, f := range on {
		err := s.nic.Change(s.ifname, map[string]bool{string(f): false})
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("switch off %s on %s (run as root or with CAP_NET_ADMIN): %w", f, s.ifname, err)
		}
		if err != nil {
			return fmt.Errorf("switch off %s on %s: %w", f, s.ifname, err)
		}
		if !slices.Contains(s.turned, f) {
			s.turned = append(s.turned, f)
		}
	}

	// A driver may keep what it was asked to switch off without an error.
	after, err := s.nic.Features(s.ifname)
	if err != nil {
		return fmt.Errorf("read features of %s: %w", s.ifname, err)
	}
	for _, f := range features {
		if after[string(f)] {
			s.log.Warn("an offload cannot be switched off; frames larger than the MTU will be dropped, and VLAN tags may go unseen",
				"interface", s.ifname, "feature", f)
		}
	}
	return nil
}

// keepRecord records what is about to be switched off, and what is already.
func (s *Settings) keepRecord(more []Feature) {
	if s.record == "" || len(more) == 0 {
		return
	}
	if err := writeRecord(s.record, union(s.turned, more)); err != nil {
		s.log.Warn("if weir is killed, offloads will stay off after it",
			"interface", s.ifname, "features", more, "error", err)
	}
}

// Restore switches on again what [Settings.Disable] switched off, and what the
// record said, and nothing else; then the record goes. If something cannot be
// switched on, the record stays for the next weir. An interface that does not
// exist any more is no error. It may be called from any thread, and twice: the
// second time does nothing.
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
	for _, f := range s.turned {
		err := s.nic.Change(s.ifname, map[string]bool{string(f): true})
		if errors.Is(err, unix.ENODEV) {
			errs = nil
			break
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("switch on %s on %s: %w", f, s.ifname, err))
		}
	}
	if errs == nil && s.record != "" {
		errs = append(errs, removeRecord(s.record))
	}
	return errors.Join(errs...)
}
