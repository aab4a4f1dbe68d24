package clab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Read reads a topology file, with the variables of this process's environment.
// What it binds has to be there. An error that is not about opening the file is
// of type [Mistakes] and has all of them.
func Read(file string) (*Topology, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	return read(file, string(data), os.LookupEnv, func(path string) error {
		_, err := os.Stat(path)
		return err
	})
}

// Parse reads a topology from memory and looks at no other file. The file's name
// is for mistakes, and binds are relative to its directory.
func Parse(file string, data []byte, lookup Lookup) (*Topology, error) {
	return read(file, string(data), lookup, func(string) error { return nil })
}

// reader is a file that is being read.
type reader struct {
	document
	lookup Lookup
	exists func(path string) error

	name     text
	defaults definition
	kinds    map[string]*definition
	nodes    map[string]*definition
	links    []link
	ignored  map[string][]int // lines, by key
}

func read(file, data string, lookup Lookup, exists func(string) error) (*Topology, error) {
	r := &reader{lookup: lookup, exists: exists, kinds: map[string]*definition{}, nodes: map[string]*definition{}, ignored: map[string][]int{}}
	r.file = file
	for number, line := range strings.Split(data, "\n") {
		if strings.Contains(line, "{{") {
			r.add(number+1, "{{: templates are not supported")
		}
	}
	r.top(r.parse(expand(data, lookup, &r.mistakes)))
	t := r.topology()
	if err := r.err(); err != nil {
		return nil, err
	}
	return t, nil
}

// What says something to Docker, or to those who draw, and makes no difference to
// what a lab does.
var (
	fileIgnored = []string{"prefix", "mgmt", "settings"}
	nodeIgnored = []string{
		"group", "type", "position", "labels", "ports", "publish", "aliases", "dns", "mgmt-ipv4", "mgmt-ipv6", "mgmt_ipv4", "mgmt_ipv6",
		"image-pull-policy", "runtime", "sandbox", "kernel", "cpu", "cpu-set", "memory",
	}
	linkIgnored = []string{"labels", "vars"}
)

// unsupportedKeys of nodes would make a difference that is not made here.
var unsupportedKeys = []string{
	"startup-config", "startup-delay", "enforce-startup-config", "suppress-startup-config", "auto-remove", "config", "license",
	"env-files", "user", "extras", "certificate", "healthcheck",
}

// other deals with a key that has no meaning here.
func (r *reader) other(f field, what string, ignored []string) {
	switch {
	case slices.Contains(ignored, f.key):
		r.ignored[f.key] = append(r.ignored[f.key], f.line)
	case slices.Contains(unsupportedKeys, f.key):
		r.add(f.line, "%s: %s is not supported in network namespaces", what, f.key)
	default:
		r.add(f.line, "%s: there is no key %s", what, f.key)
	}
}

// top reads the file's top level.
func (r *reader) top(n *yaml.Node) {
	if n == nil {
		return
	}
	mistakes := len(r.all)
	fields := r.mapping(n, "the file")
	if len(fields) == 0 && len(r.all) > mistakes {
		return
	}
	topology := false
	for _, f := range fields {
		switch f.key {
		case "name":
			r.name = r.scalar(f.value, "name")
		case "topology":
			topology = true
			r.sections(f.value)
		default:
			r.other(f, "the file", fileIgnored)
		}
	}
	if r.name.value == "" {
		r.add(0, "there is no name")
	}
	if !topology {
		r.add(0, "there is no topology")
	}
}

func (r *reader) sections(n *yaml.Node) {
	for _, f := range r.mapping(n, "topology") {
		switch f.key {
		case "defaults":
			r.defaults = r.definition(f.value, "defaults")
		case "kinds":
			for _, kind := range r.mapping(f.value, "kinds") {
				d := r.definition(kind.value, "kind "+kind.key)
				r.kinds[kind.key] = &d
			}
		case "nodes":
			for _, node := range r.mapping(f.value, "nodes") {
				d := r.definition(node.value, "node "+node.key)
				d.line = node.line
				r.nodes[node.key] = &d
			}
		case "links":
			for _, l := range r.list(f.value, "links") {
				r.link(l)
			}
		default:
			r.other(f, "topology", nil)
		}
	}
}

// definition is what the file says of one node, of all nodes of a kind, or of
// all. It says nothing about what is empty.
type definition struct {
	line int

	kind, image, entrypoint, cmd, network, restart text

	exec, binds  []text
	env, sysctls map[string]text
	stages       map[Stage]*stage
	keys         []field
}

// stage is a [Plan] with lines.
type stage struct {
	waitFor     []wait
	enter, exit [][]string
}

type wait struct {
	Wait
	line int
}

func (r *reader) definition(n *yaml.Node, what string) definition {
	d := definition{stages: make(map[Stage]*stage)}
	d.keys = r.mapping(n, what)
	for _, f := range d.keys {
		as := what + ": " + f.key
		switch f.key {
		case "kind":
			d.kind = r.scalar(f.value, as)
		case "image":
			d.image = r.scalar(f.value, as)
		case "entrypoint":
			d.entrypoint = r.scalar(f.value, as)
		case "cmd":
			d.cmd = r.scalar(f.value, as)
		case "network-mode":
			d.network = r.scalar(f.value, as)
		case "restart-policy":
			d.restart = r.scalar(f.value, as)
		case "exec":
			d.exec = r.texts(f.value, as)
		case "binds":
			d.binds = r.texts(f.value, as)
		case "env":
			d.env = r.textMap(f.value, as)
		case "sysctls":
			d.sysctls = r.textMap(f.value, as)
		case "stages":
			r.stages(d.stages, f.value, as)
		default:
			r.other(f, what, nodeIgnored)
		}
	}
	return d
}

func (r *reader) stages(into map[Stage]*stage, n *yaml.Node, what string) {
	for _, f := range r.mapping(n, what) {
		as := what + "." + f.key
		switch name := Stage(f.key); name {
		case Create, CreateLinks, Configure:
			into[name] = r.stage(name, f.value, as)
		case "healthy", "exit":
			r.add(f.line, "%s: the stage is not supported in network namespaces", as)
		default:
			r.add(f.line, "%s: there is no stage %s", what, f.key)
		}
	}
}

func (r *reader) stage(name Stage, n *yaml.Node, what string) *stage {
	s := new(stage)
	for _, f := range r.mapping(n, what) {
		switch f.key {
		case "wait-for":
			for _, item := range r.list(f.value, what+".wait-for") {
				s.waitFor = append(s.waitFor, r.wait(item, what+".wait-for"))
			}
		case "exec":
			for _, item := range r.list(f.value, what+".exec") {
				r.stageCommand(s, name, item, what+".exec")
			}
		default:
			r.other(f, what, nil)
		}
	}
	return s
}

func (r *reader) wait(n *yaml.Node, what string) wait {
	w := wait{line: n.Line}
	for _, f := range r.mapping(n, what) {
		switch f.key {
		case "node":
			w.Node = r.scalar(f.value, what+".node").value
		case "stage":
			w.Stage = Stage(r.scalar(f.value, what+".stage").value)
		default:
			r.other(f, what, nil)
		}
	}
	switch w.Stage {
	case Create, CreateLinks, Configure:
	case "":
		r.add(w.line, "%s: want the stage to wait for: create, create-links or configure", what)
	default:
		r.add(w.line, "%s: stage %s: only create, create-links and configure can be waited for", what, w.Stage)
	}
	return w
}

func (r *reader) stageCommand(s *stage, name Stage, n *yaml.Node, what string) {
	var command []string
	phase := "on-enter"
	for _, f := range r.mapping(n, what) {
		switch f.key {
		case "command":
			command = r.command(r.scalar(f.value, what+".command"), what)
		case "phase":
			phase = r.scalar(f.value, what+".phase").value
		case "target":
			if target := r.scalar(f.value, what+".target"); target.value != "container" && target.value != "" {
				r.add(target.line, "%s: target %s: commands run in nodes only", what, target.value)
			}
		default:
			r.other(f, what, nil)
		}
	}
	switch {
	case len(command) == 0:
		r.add(n.Line, "%s: there is no command", what)
	case phase == "on-exit":
		s.exit = append(s.exit, command)
	case phase != "on-enter" && phase != "":
		r.add(n.Line, "%s: phase %s: want on-enter or on-exit", what, phase)
	case name == Create:
		r.add(n.Line, "%s: on-enter: the node is not there yet: use on-exit", what)
	default:
		s.enter = append(s.enter, command)
	}
}

// labName is what containerlab and the engine take for a lab's name. A dash
// becomes an underscore in names of namespaces.
var labName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// topology puts together what has been read.
func (r *reader) topology() *Topology {
	t := &Topology{Name: r.name.value, File: r.file}
	if t.Name != "" && !labName.MatchString(t.Name) {
		r.add(r.name.line, "name %q: it must match %s", t.Name, labName)
	}
	for _, name := range slices.Sorted(maps.Keys(r.nodes)) {
		t.Nodes = append(t.Nodes, r.node(name))
	}
	r.verify(t)
	for _, key := range slices.Sorted(maps.Keys(r.ignored)) {
		lines := strings.Trim(fmt.Sprint(r.ignored[key]), "[]")
		t.Notes = append(t.Notes, fmt.Sprintf("%s: %s is ignored: it is for Docker (line %s)", r.file, key, lines))
	}
	return t
}

// path returns where a path of the file is.
func (r *reader) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(filepath.Dir(r.file), p)
}

// missing says why a path can't be bound, in few words.
func missing(err error) string {
	if errors.Is(err, os.ErrNotExist) {
		return "there is no such file or directory"
	}
	return err.Error()
}
