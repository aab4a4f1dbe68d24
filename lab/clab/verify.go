package clab

import (
	"maps"
	"net"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxInterface is how many bytes the name of an interface has at most (IFNAMSIZ
// of linux/if.h less the zero).
const maxInterface = 15

// link is a [Link] with its lines.
type link struct {
	Link
	line int
}

// link reads one link, in the brief form, `endpoints: ["a:eth1", "b:eth1"]`, or
// in the extended form of type veth, where an endpoint is a mapping.
func (r *reader) link(n *yaml.Node) {
	l := link{line: n.Line}
	mistakes := len(r.all)
	extended := false
	var ends *yaml.Node
	for _, f := range r.mapping(n, "link") {
		switch f.key {
		case "endpoints":
			ends = f.value
		case "mtu":
			l.MTU = r.number(f.value, "link: mtu", 68, 65535) // as the kernel has it for veth
		case "type":
			kind := r.scalar(f.value, "link: type")
			extended = strings.EqualFold(kind.value, "veth")
			if !extended && !strings.EqualFold(kind.value, "brief") && kind.value != "" {
				r.add(kind.line, "link: type %s: only veth is supported", kind.value)
			}
		default:
			r.other(f, "link", linkIgnored)
		}
	}
	if l.MTU == 0 {
		l.MTU = defaultMTU
	}
	items := r.list(ends, "link: endpoints")
	if len(items) != len(l.Ends) {
		r.add(l.line, "link: want 2 endpoints, not %d", len(items))
		return
	}
	for i, item := range items {
		l.Ends[i] = r.end(item, extended)
	}
	if len(r.all) == mistakes {
		r.links = append(r.links, l)
	}
}

func (r *reader) end(n *yaml.Node, extended bool) End {
	var e End
	if extended {
		for _, f := range r.mapping(n, "link: endpoint") {
			switch f.key {
			case "node":
				e.Node = r.scalar(f.value, "link: endpoint: node").value
			case "interface":
				e.Interface = r.scalar(f.value, "link: endpoint: interface").value
			case "mac":
				e.MAC = r.scalar(f.value, "link: endpoint: mac").value
			default:
				r.other(f, "link: endpoint", nil)
			}
		}
	} else {
		e.Node, e.Interface, _ = strings.Cut(r.scalar(n, "link: endpoint").value, ":")
	}
	if mac, err := net.ParseMAC(e.MAC); e.MAC != "" && (err != nil || len(mac) != 6) {
		r.add(n.Line, "link: endpoint: mac %q: want six bytes", e.MAC)
	}
	switch {
	case e.Node == "" || e.Interface == "":
		r.add(n.Line, "link: endpoint: want a node and an interface, as in node:eth1")
	case r.nodes[e.Node] == nil && slices.Contains([]string{"host", "mgmt-net", "macvlan"}, e.Node):
		r.add(n.Line, "link: %s: links to %s are not supported", e, e.Node)
	case len(e.Interface) > maxInterface:
		r.add(n.Line, "link: %s: the name of an interface has %d characters at most", e, maxInterface)
	case strings.ContainsAny(e.Interface, "/: \t\n") || e.Interface == "." || e.Interface == ".." || e.Interface == "lo":
		r.add(n.Line, "link: %s: %q can't be the name of an interface", e, e.Interface)
	}
	return e
}

// String returns the end as the file has it.
func (e End) String() string { return e.Node + ":" + e.Interface }

// verify checks what concerns more than one node, and fills in the links.
func (r *reader) verify(t *Topology) {
	r.verifyLinks(t)
	for _, n := range t.Nodes {
		owner := t.node(n.Shares)
		switch {
		case owner == nil:
		case owner.Kind != Linux:
			r.add(r.nodes[n.Name].line, "node %s: network-mode: node %s is no container", n.Name, owner.Name)
		case owner.Shares != "":
			r.add(r.nodes[n.Name].line, "node %s: network-mode: node %s itself uses the network of %s: name that", n.Name, owner.Name, owner.Shares)
		}
	}
	r.verifyWaits(t)
}

func (r *reader) verifyLinks(t *Topology) {
	type place struct{ where, name string }
	taken := make(map[place]int)
	for _, l := range r.links {
		bridges := 0
		mistakes := len(r.all)
		for _, e := range l.Ends {
			n := t.node(e.Node)
			if n == nil {
				r.add(l.line, "link: %s: there is no node %s", e, e.Node)
				continue
			}
			at := place{n.network(), e.Interface}
			if n.Kind == Bridge {
				bridges++
				at.where = "" // containerlab has all of them in the machine's namespace
			} else if e.Interface == "eth0" && !r.unconnected(e.Node) {
				r.add(l.line, "link: %s: eth0 is for Docker unless network-mode is none", e)
			}
			if line, there := taken[at]; there {
				r.add(l.line, "link: %s: the interface is there already, on line %d", e, line)
			}
			taken[at] = l.line
		}
		if bridges == 2 {
			r.add(l.line, "link: two bridges can't be linked: put a node between %s and %s", l.Ends[0].Node, l.Ends[1].Node)
		}
		if len(r.all) == mistakes {
			t.Links = append(t.Links, l.Link)
		}
	}
}

// unconnected tells whether Docker gives a node no network of its own.
func (r *reader) unconnected(name string) bool {
	d := r.nodes[name]
	kind := r.kinds[first(d.kind, r.defaults.kind).value]
	if kind == nil {
		kind = new(definition)
	}
	return strings.EqualFold(first(d.network, kind.network, r.defaults.network).value, "none")
}

// verifyWaits checks that nodes that wait for others get on in the end. As in
// containerlab, no node may wait for one that waits for it, at whatever stages.
func (r *reader) verifyWaits(t *Topology) {
	waiting := make(map[string]map[string]bool) // a node: for whom it waits
	for _, n := range t.Nodes {
		waiting[n.Name] = make(map[string]bool)
		if n.Shares != "" {
			waiting[n.Name][n.Shares] = true
		}
		for _, stage := range []Stage{Create, CreateLinks, Configure} {
			for _, w := range n.Stages[stage].WaitFor {
				if r.nodes[w.Node] == nil {
					r.add(r.lineOf(n.Name, w), "node %s: wait-for: there is no node %q", n.Name, w.Node)
					continue
				}
				waiting[n.Name][w.Node] = true
			}
		}
	}
	if names := circle(waiting); len(names) > 0 {
		r.add(r.nodes[names[0]].line, "nodes wait for each other and would do so for ever: %s", strings.Join(names, ", "))
	}
}

// circle returns the nodes that can't go on, as each waits for another of them,
// sorted. It takes those away that wait for nobody, and those for whom nobody
// waits, until nothing changes.
func circle(waiting map[string]map[string]bool) []string {
	for changed := true; changed; {
		changed = false
		awaited := make(map[string]bool)
		for _, others := range waiting {
			maps.DeleteFunc(others, func(other string, _ bool) bool { return waiting[other] == nil })
			maps.Copy(awaited, others)
		}
		for name, others := range waiting {
			if len(others) == 0 || !awaited[name] {
				delete(waiting, name)
				changed = true
			}
		}
	}
	return slices.Sorted(maps.Keys(waiting))
}

// lineOf returns where a node is told to wait.
func (r *reader) lineOf(name string, w Wait) int {
	own := r.nodes[name]
	of := []*definition{own, r.kinds[first(own.kind, r.defaults.kind).value], &r.defaults}
	for _, d := range of {
		if d == nil {
			continue
		}
		for _, s := range d.stages {
			for _, has := range s.waitFor {
				if has.Wait == w {
					return has.line
				}
			}
		}
	}
	return own.line
}
