package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/apiutil"
	gobgppacket "github.com/osrg/gobgp/v3/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v3/pkg/server"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// server is a gobgp without its gRPC port. Nothing but this file and its log
// knows gobgp.
//
// Every peer is in a VRF of its own, which holds exactly the routes that this
// peer is told, with its attributes. In one table for all, a prefix would have
// one set of attributes, and what differs by peer would have to be export
// policies, which gobgp does not apply again to what it has already sent, nor
// withdraws what a new policy refuses. That the VRFs have no route targets in
// common also keeps what one router says from another, even without the import
// policy.
type server struct {
	bgp   *gobgp.BgpServer
	watch context.CancelFunc
	vrfs  uint32 // serial number of the last one
}

// stopWithin is how long gobgp may take to close its sessions.
const stopWithin = 3 * time.Second

// startServer starts gobgp. It calls changed, from a goroutine of gobgp, with the
// address of a peer whose session is in another state, and that state.
func startServer(c *prepared, log *bridge, changed func(address string, state sessionState)) (*server, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{bgp: gobgp.NewBgpServer(gobgp.LoggerOption(log)), watch: cancel}
	go s.bgp.Serve()
	global := &api.Global{Asn: c.ASN, RouterId: c.RouterID.String(), ListenPort: -1}
	if c.Listen.IsValid() {
		global.ListenPort = int32(c.Listen.Port())
		global.ListenAddresses = []string{c.Listen.Addr().String()}
	}
	err := s.bgp.StartBgp(ctx, &api.StartBgpRequest{Global: global})
	switch {
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("listen on %s: %w: ports below 1024 need the capability CAP_NET_BIND_SERVICE; or do not set listen", c.Listen, err)
	case errors.Is(err, unix.EADDRINUSE):
		err = fmt.Errorf("listen on %s: %w: another BGP daemon runs here; stop it, or do not set listen", c.Listen, err)
	case err != nil && c.Listen.IsValid():
		err = fmt.Errorf("listen on %s: %w", c.Listen, err)
	}
	if err == nil {
		err = s.refuseLearned(ctx)
	}
	if err == nil {
		err = s.bgp.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}, func(r *api.WatchEventResponse) {
			if p := r.GetPeer().GetPeer().GetState(); p != nil {
				changed(p.NeighborAddress, sessionState(p.SessionState))
			}
		})
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("start bgp: %w", err)
	}
	return s, nil
}

// refuseLearned keeps routes of peers out of all tables.
func (s *server) refuseLearned(ctx context.Context) error {
	own := &api.Policy{Name: "own", Statements: []*api.Statement{{
		Name:       "own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}
	if err := s.bgp.AddPolicy(ctx, &api.AddPolicyRequest{Policy: own}); err != nil {
		return fmt.Errorf("add import policy: %w", err)
	}
	err := s.bgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name:          "global",
		Direction:     api.PolicyDirection_IMPORT,
		Policies:      []*api.Policy{own},
		DefaultAction: api.RouteAction_REJECT,
	}})
	if err != nil {
		return fmt.Errorf("assign import policy: %w", err)
	}
	return nil
}

// stop closes all sessions and the listener. The goroutine of Serve stays, since
// gobgp has no way to end it; it waits and does nothing.
func (s *server) stop() {
	s.watch()
	done := make(chan struct{})
	go func() {
		s.bgp.Stop()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stopWithin):
	}
}

// addVRF makes the table of a peer and returns its name.
func (s *server) addVRF() (string, error) {
	s.vrfs++
	name := fmt.Sprintf("peer-%d", s.vrfs)
	distinguisher, err := anypb.New(&api.RouteDistinguisherTwoOctetASN{Assigned: s.vrfs})
	if err != nil {
		return "", fmt.Errorf("encode vrf: %w", err)
	}
	const routeTarget = 2 // RFC 4360 section 4
	target, err := anypb.New(&api.TwoOctetAsSpecificExtended{IsTransitive: true, SubType: routeTarget, LocalAdmin: s.vrfs})
	if err != nil {
		return "", fmt.Errorf("encode vrf: %w", err)
	}
	err = s.bgp.AddVrf(context.Background(), &api.AddVrfRequest{Vrf: &api.Vrf{
		Name: name, Id: s.vrfs, Rd: distinguisher, ImportRt: []*anypb.Any{target}, ExportRt: []*anypb.Any{target},
	}})
	if err != nil {
		return "", fmt.Errorf("add vrf: %w", err)
	}
	return name, nil
}

func (s *server) removeVRF(name string) error {
	if err := s.bgp.DeleteVrf(context.Background(), &api.DeleteVrfRequest{Name: name}); err != nil {
		return fmt.Errorf("delete vrf: %w", err)
	}
	return nil
}

// addPeer begins to open a session. With restarting, the peer is told that this
// node has just started again and still has what it was told before.
func (s *server) addPeer(p *preparedPeer, vrf string, restarting bool) error {
	if err := s.bgp.AddPeer(context.Background(), &api.AddPeerRequest{Peer: peerConfig(p, vrf, restarting)}); err != nil {
		return fmt.Errorf("add peer: %w", err)
	}
	return nil
}

// removePeer ends a session, if there is one, with a notification.
func (s *server) removePeer(p *preparedPeer, vrf string, listens bool) error {
	ctx := context.Background()
	if listens && p.Password != "" {
		// Else the listener would ask this address for the password for ever:
		// only an update takes it from there.
		without := peerConfig(p, vrf, false)
		without.Conf.AuthPassword = ""
		if _, err := s.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: without}); err != nil {
			return fmt.Errorf("take password from peer: %w", err)
		}
	}
	if err := s.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("delete peer: %w", err)
	}
	return nil
}

// shutdownPeer ends a session with Cease, administrative shutdown, and the text
// (RFC 9003), and opens none any more.
func (s *server) shutdownPeer(p *preparedPeer, text string) error {
	err := s.bgp.DisablePeer(context.Background(), &api.DisablePeerRequest{Address: p.Address.String(), Communication: text})
	if err != nil {
		return fmt.Errorf("shut peer down: %w", err)
	}
	return nil
}

func peerConfig(p *preparedPeer, vrf string, restarting bool) *api.Peer {
	seconds := func(d time.Duration) uint64 { return uint64(d / time.Second) }
	peer := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN,
			AuthPassword: p.Password, Vrf: vrf,
		},
		Transport: &api.Transport{RemotePort: uint32(p.Port)},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(p.HoldTime), KeepaliveInterval: max(seconds(p.KeepaliveTime), 1),
			// gobgp waits one to two times this long between two attempts, each of
			// which may take as long minus a second.
			ConnectRetry: max((seconds(p.ConnectRetry)+1)/3, 1),
		}},
		GracefulRestart: &api.GracefulRestart{
			Enabled: true, HelperOnly: !p.GracefulRestart, RestartTime: uint32(seconds(p.RestartTime)),
			DeferralTime: restartDeferral, LocalRestarting: restarting,
		},
	}
	if p.Source.IsValid() {
		peer.Transport.LocalAddress = p.Source.String()
	}
	if p.Multihop > 0 && !p.ibgp {
		peer.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	for _, six := range []bool{false, true} {
		if six && p.IPv6 || !six && p.IPv4 {
			peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
				Config:            &api.AfiSafiConfig{Family: family(six), Enabled: true},
				PrefixLimits:      &api.PrefixLimit{Family: family(six), MaxPrefixes: maxPrefixes, ShutdownThresholdPct: 75},
				MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: p.GracefulRestart}},
			})
		}
	}
	return peer
}

// maxPrefixes is how many prefixes a router may send in each family. gobgp keeps them
// in memory, though none is used; a full table would take what the data plane needs.
const maxPrefixes = 50_000

// restartDeferral is how long, in seconds, a restarted node waits for routers
// that do not end what they have to say (RFC 4724 section 4.1, the
// Selection_Deferral_Timer). Nothing they say matters here, so it is short.
const restartDeferral = 5

func family(six bool) *api.Family {
	if six {
		return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
}

// announce puts a route into a peer's table, or replaces the one there.
func (s *server) announce(vrf string, prefix netip.Prefix, r *route) error {
	p, err := path(prefix, r)
	if err == nil {
		_, err = s.bgp.AddPath(context.Background(), &api.AddPathRequest{TableType: api.TableType_VRF, VrfId: vrf, Path: p})
	}
	if err != nil {
		return fmt.Errorf("announce %s: %w", prefix, err)
	}
	return nil
}

// withdraw takes a route out of a peer's table.
func (s *server) withdraw(vrf string, prefix netip.Prefix, r *route) error {
	p, err := path(prefix, r)
	if err == nil {
		p.IsWithdraw = true
		err = s.bgp.DeletePath(context.Background(), &api.DeletePathRequest{TableType: api.TableType_VRF, VrfId: vrf, Family: p.Family, Path: p})
	}
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", prefix, err)
	}
	return nil
}

func path(prefix netip.Prefix, r *route) (*api.Path, error) {
	six := prefix.Addr().Is6()
	destination := &api.IPAddressPrefix{Prefix: prefix.Addr().String(), PrefixLen: uint32(prefix.Bits())}
	nlri, err := anypb.New(destination)
	if err != nil {
		return nil, err
	}
	// For an unspecified next hop gobgp fills in the session's local address.
	nextHop := r.nextHop
	attributes := []proto.Message{&api.OriginAttribute{}} // IGP
	if six {
		if !nextHop.IsValid() {
			nextHop = netip.IPv6Unspecified()
		}
		attributes = append(attributes, &api.MpReachNLRIAttribute{
			Family: family(six), NextHops: []string{nextHop.String()}, Nlris: []*anypb.Any{nlri},
		})
	} else {
		if !nextHop.IsValid() {
			nextHop = netip.IPv4Unspecified()
		}
		attributes = append(attributes, &api.NextHopAttribute{NextHop: nextHop.String()})
	}
	if r.med != nil {
		attributes = append(attributes, &api.MultiExitDiscAttribute{Med: *r.med})
	}
	if r.localPref != nil {
		attributes = append(attributes, &api.LocalPrefAttribute{LocalPref: *r.localPref})
	}
	if len(r.communities.standard) > 0 {
		attributes = append(attributes, &api.CommunitiesAttribute{Communities: r.communities.standard})
	}
	if len(r.communities.large) > 0 {
		a := &api.LargeCommunitiesAttribute{}
		for _, l := range r.communities.large {
			a.Communities = append(a.Communities, &api.LargeCommunity{GlobalAdmin: l.global, LocalData1: l.data1, LocalData2: l.data2})
		}
		attributes = append(attributes, a)
	}
	p := &api.Path{Family: family(six), Nlri: nlri}
	for _, a := range attributes {
		encoded, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		p.Pattrs = append(p.Pattrs, encoded)
	}
	return p, nil
}

// facts are what a session is like at one moment.
type facts struct {
	state sessionState

	// What the router offers, while the session is established.
	ipv4, ipv6, gracefulRestart bool
}

// inspect asks for the state of a session.
func (s *server) inspect(p *preparedPeer) (facts, error) {
	var f facts
	found := false
	var errs []error
	err := s.bgp.ListPeer(context.Background(), &api.ListPeerRequest{Address: p.Address.String()}, func(peer *api.Peer) {
		found = true
		f.state = sessionState(peer.GetState().GetSessionState())
		offered, err := apiutil.UnmarshalCapabilities(peer.GetState().GetRemoteCap())
		errs = append(errs, err)
		multi := false
		for _, c := range offered {
			switch c := c.(type) {
			case *gobgppacket.CapMultiProtocol:
				multi = true
				f.ipv4 = f.ipv4 || c.CapValue == gobgppacket.RF_IPv4_UC
				f.ipv6 = f.ipv6 || c.CapValue == gobgppacket.RF_IPv6_UC
			case *gobgppacket.CapGracefulRestart:
				f.gracefulRestart = true
			}
		}
		f.ipv4 = f.ipv4 || !multi // a router that has never heard of families (RFC 4760)
	})
	if err == nil && !found {
		err = errors.New("there is no such peer")
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return f, fmt.Errorf("inspect session: %w", err)
	}
	return f, nil
}
