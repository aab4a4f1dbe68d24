package clab

// Kind is what a node is.
type Kind string

// The kinds of nodes that are understood.
const (
	Linux  Kind = "linux"  // a container, here a namespace with a root of its own
	Bridge Kind = "bridge" // an Ethernet switch
)

// Stage is a part of a node's deployment, which another node may wait for.
type Stage string

// The stages, in the order that each node goes through them.
const (
	Create      Stage = "create"       // the node's main process is started
	CreateLinks Stage = "create-links" // its ends of links are made and set up
	Configure   Stage = "configure"    // for the sake of the stage's own commands
)

// Restart says when a main process that has ended is started again.
type Restart string

// The restart policies, as Docker has them. A node that was killed on purpose
// stays so under each of them.
const (
	RestartAlways        Restart = "always"
	RestartUnlessStopped Restart = "unless-stopped" // as always, while the lab lives
	RestartOnFailure     Restart = "on-failure"
	RestartNo            Restart = "no"
)

// defaultMTU is that of a link which names none, in bytes of IP packet
// (containerlab's links/link.go).
const defaultMTU = 9500

// Topology is what a topology file says, with kinds and defaults applied.
type Topology struct {
	Name  string
	File  string  // as it was given to [Read]
	Nodes []*Node // by name
	Links []Link  // in the file's order, which is that of each node's interfaces

	// Notes say what in the file has no meaning without Docker, one a line.
	Notes []string
}

// Node is one node of a topology.
type Node struct {
	Name    string
	Kind    Kind
	Image   string // says no more than whether the node is a weir
	Weir    bool   // the image is that of weir: /weir is there
	Args    []string
	Exec    [][]string // commands after all stages, in order
	Env     map[string]string
	Binds   []Bind            // by target
	Sysctls map[string]string // of the network namespace
	Restart Restart

	// Shares names the node whose network namespace this one uses; empty: it has
	// one of its own.
	Shares string

	Stages map[Stage]Plan
}

// Bind shows a file or directory of the machine in a node.
type Bind struct {
	Source   string // relative to the working directory of who calls Read, or absolute
	Target   string // absolute, in the node
	ReadOnly bool
}

// Plan is what a node does about a stage beside the stage's own work.
type Plan struct {
	WaitFor []Wait     // before it enters the stage
	Enter   [][]string // commands, before the stage's work
	Exit    [][]string // commands, after it and before others may go on
}

// Wait is another node's stage that is to be over.
type Wait struct {
	Node  string
	Stage Stage
}

// Link is a cable between two interfaces.
type Link struct {
	Ends [2]End
	MTU  int // bytes of IP packet
}

// End is one end of a link.
type End struct {
	Node      string
	Interface string
	MAC       string // empty: the engine picks one
}

// node returns the node of that name, or nil.
func (t *Topology) node(name string) *Node {
	for _, n := range t.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// network returns the name of the node that has the namespace which a node uses.
func (n *Node) network() string {
	if n.Shares != "" {
		return n.Shares
	}
	return n.Name
}
