package appliance

import (
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/announce/bgp"
	"weir/controlplane/announce/l2"
	"weir/controlplane/cluster"
	"weir/controlplane/config"
)

// Each part of weir has a configuration of its own, which knows nothing of the
// file. Here is what the file says to each.

func clusterConfig(cfg *config.Config) cluster.Config {
	return cluster.Config{
		Node: cfg.Node, Bind: cfg.Cluster.Bind, Advertise: cfg.Cluster.Advertise, Peers: cfg.Cluster.Peers, Key: cfg.Cluster.Key,
	}
}

func l2Config(cfg *config.Config) l2.Config {
	pools := make(map[string]l2.PoolConfig)
	for _, p := range cfg.Pools {
		pools[p.Name] = l2.PoolConfig{Interfaces: p.L2.Interfaces, AllActive: p.L2.AllActive}
	}
	return l2.Config{Pools: pools}
}

func bgpConfig(cfg *config.Config, id netip.Addr) bgp.Config {
	b := cfg.BGP
	c := bgp.Config{
		ASN: b.ASN, RouterID: id, Listen: b.Listen, NextHop: b.NextHop, NextHop6: b.NextHop6,
		ShutdownDelay: b.ShutdownDelay, Pools: make(map[string]bgp.Pool),
	}
	for _, p := range b.Peers {
		c.Peers = append(c.Peers, bgp.Peer{
			Name: p.Name, Address: p.Address, ASN: p.ASN, LocalASN: p.LocalASN, Port: p.Port, Source: p.Source,
			Multihop: p.Multihop, Password: p.Password, HoldTime: p.HoldTime, KeepaliveTime: p.KeepaliveTime,
			ConnectRetry: p.ConnectRetry, RestartTime: p.RestartTime,
			IPv4: slices.Contains(p.Families, config.IPv4), IPv6: slices.Contains(p.Families, config.IPv6),
			NextHop: p.NextHop, NextHop6: p.NextHop6, Communities: p.Communities, LocalPref: p.LocalPref, MED: p.MED,
			GracefulRestart: p.GracefulRestart, Pools: p.Pools,
		})
	}
	for _, p := range cfg.Pools {
		if slices.Contains(p.Announce, config.AnnounceBGP) {
			c.Pools[p.Name] = bgp.Pool{
				Communities: p.BGP.Communities, LocalPref: p.BGP.LocalPref, MED: p.BGP.MED,
				Aggregation: p.BGP.Aggregation, Aggregation6: p.BGP.Aggregation6, Peers: p.BGP.Peers,
			}
		}
	}
	return c
}

// withPools adds the pools that a configuration has no longer, so that addresses
// which still have their names keep what they were announced with. One whose peers
// have gone, all of them, must not be for all others instead.
func withPools(c bgp.Config, before map[string]bgp.Pool) bgp.Config {
	for name, pool := range before {
		if _, stays := c.Pools[name]; stays {
			continue
		}
		gone := func(peer string) bool {
			return !slices.ContainsFunc(c.Peers, func(p bgp.Peer) bool { return p.Name == peer })
		}
		peers := slices.DeleteFunc(slices.Clone(pool.Peers), gone)
		pool.Nobody = len(pool.Peers) > 0 && len(peers) == 0
		pool.Peers = peers
		c.Pools[name] = pool
	}
	return c
}

// routerID returns the router ID that is configured, or else the first global
// IPv4 address of the box.
func routerID(cfg *config.Config, host *config.Host) (netip.Addr, error) {
	if cfg.BGP.RouterID.IsValid() {
		return cfg.BGP.RouterID, nil
	}
	for _, p := range host.Addresses {
		if a := p.Addr(); a.Is4() && a.IsGlobalUnicast() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("bgp.router_id: this box has no IPv4 address to take for it; set one, as 10.0.0.2")
}
