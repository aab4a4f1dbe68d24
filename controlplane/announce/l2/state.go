package l2

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"weir/controlplane/announce/election"
	"weir/dataplane/packet"
)

// stateVersion is that of what nodes publish about themselves.
const stateVersion = 1

// wireState is what a node publishes, as JSON.
type wireState struct {
	Version int          `json:"v"`
	Ready   []netip.Addr `json:"ready,omitempty"`  // could serve these
	Partly  []netip.Addr `json:"partly,omitempty"` // these as well, but some link is down
	Held    []netip.Addr `json:"held,omitempty"`   // answers for these
	Links   []wireLink   `json:"links,omitempty"`
	Own     []netip.Addr `json:"own,omitempty"` // all addresses of the node, on whatever interface
}

type wireLink struct {
	Name     string         `json:"name"`
	MAC      string         `json:"mac"`
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
}

// peer is another node, as it describes itself.
type peer struct {
	ready map[netip.Addr]election.Readiness
	held  map[netip.Addr]bool
	links []Interface // that are up, with workers
	own   []netip.Addr
}

func (s wireState) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil { // addresses, prefixes and strings: it cannot fail
		panic(err)
	}
	return b
}

// decodeState reads what another node has published.
func decodeState(b []byte) (*peer, error) {
	var s wireState
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("decode state: version %d, not %d: run the same weir on all nodes", s.Version, stateVersion)
	}
	p := &peer{ready: make(map[netip.Addr]election.Readiness), held: make(map[netip.Addr]bool), own: s.Own}
	for _, a := range s.Partly {
		p.ready[a] = election.Partly
	}
	for _, a := range s.Ready {
		p.ready[a] = election.Fully
	}
	for _, a := range s.Held {
		p.held[a] = true
	}
	for _, l := range s.Links {
		mac, err := net.ParseMAC(l.MAC)
		if err != nil || len(mac) != len(packet.MAC{}) {
			return nil, fmt.Errorf("decode state: MAC address %q of %s", l.MAC, l.Name)
		}
		p.links = append(p.links, Interface{Name: l.Name, MAC: packet.MAC(mac), Up: true, Workers: true, Prefixes: l.Prefixes})
	}
	return p, nil
}

// publication returns what the others are to know, if it differs from what they
// were told last; nil if not.
func (m *machine) publication() []byte {
	s := wireState{Version: stateVersion, Own: m.addresses}
	if m.open && !m.leaving {
		for _, v := range m.sorted() {
			switch {
			case v.own || v.phase == conflict:
			case v.ready == election.Fully:
				s.Ready = append(s.Ready, v.addr)
			case v.ready == election.Partly:
				s.Partly = append(s.Partly, v.addr)
			}
			if v.phase == held && !v.own {
				s.Held = append(s.Held, v.addr)
			}
		}
	}
	for _, i := range m.interfaces {
		if i.Up && i.Workers {
			s.Links = append(s.Links, wireLink{Name: i.Name, MAC: i.MAC.String(), Prefixes: i.Prefixes})
		}
	}
	b := s.encode()
	if slices.Equal(b, m.published) {
		return nil
	}
	m.published = b
	return b
}
