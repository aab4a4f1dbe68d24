package site

// Pool is a pool of addresses for services.
type Pool struct {
	Name      string            `yaml:"name"`
	Addresses []string          `yaml:"addresses,flow"`
	Announce  *[]string         `yaml:"announce,omitempty,flow"` // nil: weir's default
	Auto      *bool             `yaml:"auto_assign,omitempty"`   // nil: weir's default
	AvoidBugs bool              `yaml:"avoid_buggy_ips,omitempty"`
	Priority  int               `yaml:"priority,omitempty"`
	Services  map[string]string `yaml:"services,omitempty,flow"`
	L2        *PoolL2           `yaml:"l2,omitempty"`
	BGP       *PoolBGP          `yaml:"bgp,omitempty"`
}

// PoolL2 is how a pool's addresses are announced by ARP and NDP.
type PoolL2 struct {
	Interfaces []string `yaml:"interfaces,omitempty,flow"`
	AllActive  bool     `yaml:"all_active,omitempty"`
}

// PoolBGP is how a pool's addresses are announced by BGP.
type PoolBGP struct {
	Communities  []string `yaml:"communities,omitempty,flow"`
	LocalPref    *uint32  `yaml:"local_pref,omitempty"`
	MED          *uint32  `yaml:"med,omitempty"`
	Aggregation  int      `yaml:"aggregation,omitempty"`
	Aggregation6 int      `yaml:"aggregation6,omitempty"`
	Peers        []string `yaml:"peers,omitempty,flow"`
}

// Cluster is who the other weirs are.
type Cluster struct {
	Bind      string   `yaml:"bind,omitempty"`
	Advertise string   `yaml:"advertise,omitempty"`
	Peers     []string `yaml:"peers,flow"`
	Key       string   `yaml:"key,omitempty"`
	KeyFile   string   `yaml:"key_file,omitempty"`
}

// BGP is this weir as a BGP speaker.
type BGP struct {
	ASN           uint32    `yaml:"asn"`
	RouterID      string    `yaml:"router_id,omitempty"`
	Listen        string    `yaml:"listen,omitempty"`
	NextHop       string    `yaml:"next_hop,omitempty"`
	NextHop6      string    `yaml:"next_hop6,omitempty"`
	ShutdownDelay string    `yaml:"shutdown_delay,omitempty"`
	Peers         []BGPPeer `yaml:"peers"`
}

// BGPPeer is a router that a weir speaks to.
type BGPPeer struct {
	Name            string   `yaml:"name,omitempty"`
	Address         string   `yaml:"address"`
	ASN             uint32   `yaml:"asn"`
	Port            uint16   `yaml:"port,omitempty"`
	LocalASN        uint32   `yaml:"local_asn,omitempty"`
	Source          string   `yaml:"source,omitempty"`
	Multihop        int      `yaml:"multihop,omitempty"`
	Password        string   `yaml:"password,omitempty"`
	PasswordFile    string   `yaml:"password_file,omitempty"`
	HoldTime        string   `yaml:"hold_time,omitempty"`
	KeepaliveTime   string   `yaml:"keepalive_time,omitempty"`
	ConnectRetry    string   `yaml:"connect_retry,omitempty"`
	Families        []string `yaml:"families,omitempty,flow"`
	NextHop         string   `yaml:"next_hop,omitempty"`
	NextHop6        string   `yaml:"next_hop6,omitempty"`
	Communities     []string `yaml:"communities,omitempty,flow"`
	LocalPref       *uint32  `yaml:"local_pref,omitempty"`
	MED             *uint32  `yaml:"med,omitempty"`
	GracefulRestart bool     `yaml:"graceful_restart,omitempty"`
	RestartTime     string   `yaml:"restart_time,omitempty"`
	Pools           []string `yaml:"pools,omitempty,flow"`
}
