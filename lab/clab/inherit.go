package clab

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// nodeName is what a network namespace can be called after. Capitals are out for
// containerlab's sake: it puts network-mode in lower case.
var nodeName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// weirName is what weir's image is called, by whoever made it.
const weirName = "weir"

// node puts a node together from its own definition, its kind's and that of all
// nodes, as containerlab does (types/topology.go): of a single value the most
// specific counts, lists are joined from the general to the specific, and of a
// mapping, or of two binds to one place, the most specific entry counts.
func (r *reader) node(name string) *Node {
	own := r.nodes[name]
	what := "node " + name
	kindName := first(own.kind, r.defaults.kind)
	of := []*definition{own, r.kinds[kindName.value], &r.defaults} // from the specific to the general
	if of[1] == nil {
		of[1] = new(definition)
	}
	single := func(value func(*definition) text) text {
		return first(value(of[0]), value(of[1]), value(of[2]))
	}
	n := &Node{Name: name, Kind: Kind(strings.ToLower(kindName.value)), Stages: make(map[Stage]Plan)}
	if !nodeName.MatchString(name) {
		r.add(own.line, "%s: the name must match %s", what, nodeName)
	}
	for _, stage := range []Stage{Create, CreateLinks, Configure} {
		n.Stages[stage] = plan(stage, of)
	}
	switch n.Kind {
	case Linux:
	case Bridge:
		r.bridge(n, own)
		return n
	case "":
		r.add(own.line, "%s: it has no kind", what)
	default:
		r.add(kindName.line, "%s: kind %s: only linux and bridge are supported", what, kindName.value)
	}
	for _, d := range slices.Backward(of) {
		for _, e := range d.exec {
			if command := r.command(e, what+": exec"); len(command) > 0 {
				n.Exec = append(n.Exec, command)
			}
		}
	}
	n.Image = single(func(d *definition) text { return d.image }).value
	n.Weir = r.isWeir(n.Image)
	n.Args = r.args(n, own, single)
	n.Env = merge(of, func(d *definition) map[string]text { return d.env })
	if _, there := n.Env["__IMPORT_ENVS"]; there {
		r.add(own.line, "%s: env: __IMPORT_ENVS is not supported", what)
	}
	n.Shares = r.shares(name, single(func(d *definition) text { return d.network }))
	n.Sysctls = r.sysctls(n, of)
	n.Binds = r.binds(what, of)
	n.Restart = r.restart(what, single(func(d *definition) text { return d.restart }))
	return n
}

// first returns the first value that is there.
func first(values ...text) text {
	for _, v := range values {
		if v.value != "" || v.wrong {
			return v
		}
	}
	return text{}
}

// merge joins mappings; what the first definition says counts.
func merge(of []*definition, value func(*definition) map[string]text) map[string]string {
	all := make(map[string]string)
	for _, d := range slices.Backward(of) {
		for key, v := range value(d) {
			all[key] = v.value
		}
	}
	return all
}

// plan joins what definitions say about a stage. A wait that two of them have is
// one.
func plan(name Stage, of []*definition) Plan {
	var p Plan
	for _, d := range slices.Backward(of) {
		s := d.stages[name]
		if s == nil {
			continue
		}
		for _, w := range s.waitFor {
			if !slices.Contains(p.WaitFor, w.Wait) {
				p.WaitFor = append(p.WaitFor, w.Wait)
			}
		}
		p.Enter = append(p.Enter, s.enter...)
		p.Exit = append(p.Exit, s.exit...)
	}
	return p
}

// containerKeys have no meaning for a bridge.
var containerKeys = []string{"image", "entrypoint", "cmd", "exec", "binds", "env", "network-mode", "restart-policy", "sysctls"}

// bridge checks that nothing is asked of a bridge that it can't do.
func (r *reader) bridge(n *Node, own *definition) {
	for _, f := range own.keys {
		if slices.Contains(containerKeys, f.key) {
			r.add(f.line, "node %s: %s has no meaning for a bridge", n.Name, f.key)
		}
	}
	for _, p := range n.Stages {
		if len(p.Enter)+len(p.Exit) > 0 {
			r.add(own.line, "node %s: a bridge runs no commands", n.Name)
		}
	}
	if len(n.Name) > maxInterface {
		r.add(own.line, "node %s: the name of a bridge has %d characters at most", n.Name, maxInterface)
	}
}

// isWeir tells whether an image is weir's, by its name: its registry, folder and
// version don't matter.
func (r *reader) isWeir(image string) bool {
	if named, ok := r.lookup("WEIR_IMAGE"); ok && named != "" && image == named {
		return true
	}
	base := image[strings.LastIndexByte(image, '/')+1:]
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	return base == weirName
}

// args returns the command line of a node's main process.
func (r *reader) args(n *Node, own *definition, single func(func(*definition) text) text) []string {
	what := "node " + n.Name
	entrypoint := single(func(d *definition) text { return d.entrypoint })
	cmd := single(func(d *definition) text { return d.cmd })
	if entrypoint.value == "" && n.Weir {
		entrypoint.value = "/weir"
	}
	if entrypoint.value+cmd.value == "" && !entrypoint.wrong && !cmd.wrong && n.Kind == Linux {
		r.add(own.line, "%s: it needs cmd or entrypoint: images are not run here", what)
	}
	return append(r.command(entrypoint, what+": entrypoint"), r.command(cmd, what+": cmd")...)
}

// shares returns whose network namespace a node uses.
func (r *reader) shares(name string, mode text) string {
	what := "node " + name + ": network-mode"
	kind, of, _ := strings.Cut(strings.ToLower(mode.value), ":")
	switch other := r.nodes[of]; {
	case mode.value == "", kind == "none", kind == "bridge":
	case kind == "host":
		r.add(mode.line, "%s: host is not supported: nodes have no part in the machine's network", what)
	case kind != "container":
		r.add(mode.line, "%s: %s is not supported", what, mode.value)
	case of == "" || other == nil:
		r.add(mode.line, "%s: there is no node %q", what, of)
	case of == name:
		r.add(mode.line, "%s: a node can't use its own namespace", what)
	default:
		return of
	}
	return ""
}

func (r *reader) sysctls(n *Node, of []*definition) map[string]string {
	all := merge(of, func(d *definition) map[string]text { return d.sysctls })
	for _, key := range slices.Sorted(maps.Keys(all)) {
		switch {
		case !strings.HasPrefix(key, "net."):
			r.add(of[0].line, "node %s: sysctls: %s: only net.* belongs to a node", n.Name, key)
		case n.Shares != "":
			r.add(of[0].line, "node %s: sysctls: %s: give it to node %s, whose network this is", n.Name, key, n.Shares)
		}
	}
	return all
}

// binds returns what is bound, by target.
func (r *reader) binds(what string, of []*definition) []Bind {
	at := make(map[string]Bind)
	for _, d := range slices.Backward(of) {
		for _, t := range d.binds {
			if b, ok := r.bind(t, what+": binds: "+t.value); ok {
				at[b.Target] = b
			}
		}
	}
	var all []Bind
	for _, target := range slices.Sorted(maps.Keys(at)) {
		all = append(all, at[target])
	}
	return all
}

func (r *reader) bind(t text, what string) (b Bind, ok bool) {
	parts := strings.Split(t.value, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		r.add(t.line, "%s: want source:target or source:target:ro", what)
		return b, false
	}
	b = Bind{Source: r.path(parts[0]), Target: filepath.Clean(parts[1])}
	mistakes := len(r.all)
	if strings.HasPrefix(parts[0], "~") || strings.Contains(parts[0], "__clab") {
		r.add(t.line, "%s: %s is not supported: want a path that is relative to the file, or absolute", what, parts[0])
	} else if err := r.exists(b.Source); err != nil {
		r.add(t.line, "%s: %s: %s", what, b.Source, missing(err))
	}
	if !filepath.IsAbs(b.Target) || b.Target == "/" {
		r.add(t.line, "%s: want an absolute path below / in the node, not %s", what, parts[1])
	}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "ro":
				b.ReadOnly = true
			case "rw", "z", "Z": // the latter are for SELinux
			default:
				r.add(t.line, "%s: option %q is not supported: want ro or rw", what, option)
			}
		}
	}
	return b, len(r.all) == mistakes
}

func (r *reader) restart(what string, t text) Restart {
	switch policy := Restart(t.value); policy {
	case "":
		return RestartAlways // of kind linux
	case RestartAlways, RestartUnlessStopped, RestartOnFailure, RestartNo:
		return policy
	}
	r.add(t.line, "%s: restart-policy %s: want always, unless-stopped, on-failure or no", what, t.value)
	return RestartNo
}
