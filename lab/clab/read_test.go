package clab

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var nothing = environment(nil)

func TestRead(t *testing.T) {
	t.Setenv("HOST_IMAGE", "host/image:1")
	got, err := Read("testdata/all.clab.yml")
	if err != nil {
		t.Fatal(err)
	}
	sh := func(script string) []string { return []string{"sh", "-c", script} }
	none := map[Stage]Plan{Create: {}, CreateLinks: {}, Configure: {}}
	all := [][]string{sh("echo defaults >> /tmp/order"), sh("echo kind >> /tmp/order")}
	with := func(own ...[]string) [][]string { return append(append([][]string(nil), all...), own...) }
	greeting := []Bind{{"testdata/all/defaults", "/greeting", true}}
	env := map[string]string{"WHO": "kind", "FROM_DEFAULTS": "yes", "FROM_KIND": "2"}
	want := &Topology{
		Name: "test-all", File: "testdata/all.clab.yml",
		Nodes: []*Node{
			{
				Name: "a", Kind: Linux, Image: "host/image:1", Args: []string{"sleep", "infinity"},
				Exec: with(sh("echo node >> /tmp/order"), []string{"false"}),
				Env:  map[string]string{"WHO": `it's "a"`, "FROM_DEFAULTS": "yes", "FROM_KIND": "2"},
				Binds: []Bind{
					{"testdata/all/node", "/greeting", true},
					{"testdata/all", "/opt/weirlab-test/all", false},
					{"testdata/all/node", "/var/run/bound", false},
				},
				Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}, Restart: RestartAlways,
				Stages: map[Stage]Plan{
					Create: {Exit: [][]string{sh("ip -o link show up > /tmp/created")}}, CreateLinks: {},
					Configure: {
						Enter: [][]string{sh("echo enter >> /tmp/order"), sh("sleep 0.3; ip addr add 10.9.0.1/24 dev eth1")},
						Exit:  [][]string{sh("echo exit >> /tmp/order")},
					},
				},
			},
			{
				Name: "a-side", Kind: Linux, Image: "host/image:1", Shares: "a",
				Args: sh("echo started >> /tmp/starts; ip -o -4 addr show dev eth1 > /tmp/seen; echo it has started; exec sleep infinity"),
				Exec: all, Env: env, Binds: greeting, Sysctls: map[string]string{}, Restart: RestartAlways,
				Stages: map[Stage]Plan{Create: {WaitFor: []Wait{{"a", Configure}}}, CreateLinks: {}, Configure: {}},
			},
			{
				Name: "b", Kind: Linux, Image: "host/image:1", Args: []string{"sleep", "1000000"},
				Exec: with(strings.Fields("ip addr add 10.9.0.2/24 dev eth1"), strings.Fields("ip addr add 10.9.1.2/24 dev eth2")),
				Env:  env, Binds: greeting, Sysctls: map[string]string{}, Restart: RestartNo, Stages: none,
			},
			{
				Name: "c", Kind: Linux, Image: "host/image:1", Args: []string{"sleep", "infinity"},
				Exec: with(strings.Fields("ip addr add 10.9.1.3/24 dev net0")),
				Env:  env, Binds: greeting, Sysctls: map[string]string{}, Restart: RestartAlways, Stages: none,
			},
			{Name: "sw", Kind: Bridge, Stages: none},
		},
		Links: []Link{
			{Ends: [2]End{{"a", "eth1", ""}, {"b", "eth1", ""}}, MTU: 1400},
			{Ends: [2]End{{"b", "eth2", ""}, {"sw", "to-b", ""}}, MTU: 9500},
			{Ends: [2]End{{"sw", "to-c", ""}, {"c", "net0", "02:00:00:00:00:0c"}}, MTU: 1500},
		},
		Notes: []string{
			"testdata/all.clab.yml: labels is ignored: it is for Docker (line 28 34 91)",
			"testdata/all.clab.yml: mgmt is ignored: it is for Docker (line 5)",
			"testdata/all.clab.yml: ports is ignored: it is for Docker (line 35)",
			"testdata/all.clab.yml: prefix is ignored: it is for Docker (line 4)",
		},
	}
	if reflect.DeepEqual(got, want) {
		return
	}
	for i := range want.Nodes {
		if i < len(got.Nodes) && !reflect.DeepEqual(got.Nodes[i], want.Nodes[i]) {
			t.Errorf("got  %+v\nwant %+v", *got.Nodes[i], *want.Nodes[i])
		}
	}
	got.Nodes, want.Nodes = nil, nil
	t.Errorf("got  %+v\nwant %+v", *got, *want)
}

// TestMistakes has all that a file may do wrong come at once, each at its line.
func TestMistakes(t *testing.T) {
	_, err := Read("testdata/wrong.clab.yml")
	var wrong Mistakes
	if !errors.As(err, &wrong) {
		t.Fatalf("%v", err)
	}
	want := strings.TrimSpace(`
2: name "Wrong Name": it must match
3: the file: there is no key debug
5: topology: there is no key groups
8: defaults: there is no key imgae
11: node a: cmd: a quote is not closed: sleep "infinity
12: node a: user is not supported in network namespaces
13: node a: exec: want a list
15: node a: binds: not-there:/x: testdata/not-there: there is no such file or directory
16: node a: binds: all:relative: want an absolute path below / in the node, not relative
17: node a: binds: all:/x:shared: option "shared" is not supported: want ro or rw
18: node a: binds: all: want source:target or source:target:ro
19: node a: network-mode: host is not supported
22: node a: stages.create.wait-for: want the stage to wait for: create, create-links or configure
22: node a: wait-for: there is no node "nobody"
23: node a: stages.create.exec: on-enter: the node is not there yet: use on-exit
24: node a: stages.healthy: the stage is not supported
25: node b: it needs cmd or entrypoint: images are not run here
26: $NOT_SET: the variable is not set
28: node b: restart-policy sometimes: want always, unless-stopped, on-failure or no
29: nodes: b is there already, on line 25
33: node c: network-mode: there is no node "b-side"
31: nodes wait for each other and would do so for ever: c, d
37: node d: stages.configure.wait-for: stage done: only create, create-links and configure can be waited for
40: node sw: cmd has no meaning for a bridge
41: node Ü: the name must match
42: node Ü: kind srl: only linux and bridge are supported
45: link: d:eth1: the interface is there already, on line 44
46: link: c:eth0: eth0 is for Docker unless network-mode is none
47: link: want 2 endpoints, not 1
48: link: nobody:eth1: there is no node nobody
49: link: host:eth1: links to host are not supported
50: link: c:an-interface-too-long: the name of an interface has 15 characters at most
50: link: endpoint: want a node and an interface, as in node:eth1
51: link: type vxlan: only veth is supported
54: link: mtu: want a number from 68 to 65535, not 12
56: link: sw:p1: the interface is there already, on line 55`)
	lines := strings.Split(want, "\n")
	seen := make([]bool, len(wrong))
	for _, line := range lines {
		number, text, _ := strings.Cut(line, ": ")
		found := false
		for i, m := range wrong {
			if !seen[i] && fmt.Sprint(m.Line) == number && strings.HasPrefix(m.Text, text) {
				seen[i], found = true, true
				break
			}
		}
		if !found {
			t.Errorf("not reported: %s", line)
		}
	}
	for i, m := range wrong {
		if !seen[i] {
			t.Errorf("not expected: %s", m)
		}
		if i > 0 && m.Line < wrong[i-1].Line {
			t.Errorf("out of order: %s", m)
		}
	}
}

// TestMistake has mistakes that would hide others.
func TestMistake(t *testing.T) {
	const a = "name: x\ntopology: {nodes: {a: {kind: linux, cmd: x}, b: {kind: linux, cmd: x}, s1: {kind: bridge}, s2: {kind: bridge}}"
	for name, test := range map[string]struct {
		file string
		want string // beginning of the only mistake, with its line
	}{
		"empty":              {"", "f: the file is empty"},
		"comment only":       {"# nothing", "f: the file is empty"},
		"not yaml":           {"name: x\ntopology:\n\t- x", "f:3: not YAML: "},
		"no mapping":         {"- x", "f:1: the file: want key: value pairs"},
		"template":           {"name: x # {{ .Name }}\ntopology: {}", "f:1: {{: templates are not supported"},
		"no name":            {"topology: {}", "f: there is no name"},
		"no topology":        {"name: x", "f: there is no topology"},
		"nodes no mapping":   {"name: x\ntopology: {nodes: [a]}", "f:2: nodes: want key: value pairs"},
		"no kind":            {"name: x\ntopology:\n  nodes:\n    a: {cmd: x}", "f:4: node a: it has no kind"},
		"null node":          {"name: x\ntopology:\n  nodes:\n    a:", "f:4: node a: it has no kind"},
		"merge key":          {"name: x\ntopology:\n  defaults: &d {kind: linux}\n  nodes: {a: {<<: *d, cmd: x, kind: linux}}", "f:4: node a: merge keys are not supported"},
		"list as text":       {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: [x]}}}", "f:2: node a: cmd: want plain text"},
		"list as key":        {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, [a]: b}}}", "f:2: node a: a key has to be plain text"},
		"own network":        {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, network-mode: 'container:a'}}}", "f:2: node a: network-mode: a node can't use its own"},
		"network of none":    {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, network-mode: 'container:'}}}", `f:2: node a: network-mode: there is no node ""`},
		"network of bridge":  {"name: x\ntopology: {nodes: {s: {kind: bridge}, a: {kind: linux, cmd: x, network-mode: 'container:s'}}}", "f:2: node a: network-mode: node s is no container"},
		"network of network": {"name: x\ntopology: {nodes: {c: {kind: linux, cmd: x}, b: {kind: linux, cmd: x, network-mode: 'container:c'}, a: {kind: linux, cmd: x, network-mode: 'container:b'}}}", "f:2: node a: network-mode: node b itself uses the network of c"},
		"other mode":         {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, network-mode: 'ns:x'}}}", "f:2: node a: network-mode: ns:x is not supported"},
		"sysctl of machine":  {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, sysctls: {kernel.pid_max: 1}}}}", "f:2: node a: sysctls: kernel.pid_max: only net.* belongs"},
		"sysctl of other":    {"name: x\ntopology: {nodes: {b: {kind: linux, cmd: x}, a: {kind: linux, cmd: x, network-mode: 'container:b', sysctls: {net.x: 1}}}}", "f:2: node a: sysctls: net.x: give it to node b"},
		"import env":         {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, env: {__IMPORT_ENVS: true}}}}", "f:2: node a: env: __IMPORT_ENVS is not supported"},
		"home bind":          {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, binds: ['~/x:/x']}}}", "f:2: node a: binds: ~/x:/x: ~/x is not supported"},
		"bind to root":       {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, binds: ['x:/']}}}", "f:2: node a: binds: x:/: want an absolute path below /"},
		"wait for itself":    {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {configure: {wait-for: [{node: a, stage: create}]}}}}}", "f:2: nodes wait for each other and would do so for ever: a"},
		"wait in a circle":   {"name: x\ntopology: {nodes: {b: {kind: linux, cmd: x, network-mode: 'container:a'}, a: {kind: linux, cmd: x, stages: {create: {wait-for: [{node: b, stage: create}]}}}, z: {kind: linux, cmd: x, network-mode: 'container:a'}}}", "f:2: nodes wait for each other and would do so for ever: a, b"},
		"stage unknown":      {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {config: {}}}}}", "f:2: node a: stages: there is no stage config"},
		"command on host":    {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {configure: {exec: [{command: x, target: host}]}}}}}", "f:2: node a: stages.configure.exec: target host: commands run in nodes only"},
		"no command":         {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {configure: {exec: [{phase: on-exit}]}}}}}", "f:2: node a: stages.configure.exec: there is no command"},
		"phase unknown":      {"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {configure: {exec: [{command: x, phase: later}]}}}}}", "f:2: node a: stages.configure.exec: phase later: want"},
		"bridge commands":    {"name: x\ntopology: {nodes: {a: {kind: bridge, stages: {configure: {exec: [{command: x}]}}}}}", "f:2: node a: a bridge runs no commands"},
		"bridge name":        {"name: x\ntopology: {nodes: {a-bridge-too-long: {kind: bridge}}}", "f:2: node a-bridge-too-long: the name of a bridge has 15"},
		"bridges linked":     {a + ",\nlinks: [{endpoints: [s1:p, s2:q]}]}", "f:3: link: two bridges can't be linked"},
		"bridges share root": {a + ",\nlinks: [{endpoints: [s1:p, a:eth1]},\n{endpoints: [b:eth1, s2:p]}]}", "f:4: link: s2:p: the interface is there already, on line 3"},
		"no endpoints":       {a + ",\nlinks: [{mtu: 1500}]}", "f:3: link: want 2 endpoints, not 0"},
		"mtu no number":      {a + ",\nlinks: [{endpoints: [a:eth1, b:eth1], mtu: large}]}", "f:3: link: mtu: want a number from 68 to 65535, not large"},
		"mtu too large":      {a + ",\nlinks: [{endpoints: [a:eth1, b:eth1], mtu: 99999999999}]}", "f:3: link: mtu: want a number from 68 to 65535, not 99999999999"},
		"mac":                {a + ",\nlinks: [{type: veth, endpoints: [{node: a, interface: eth1, mac: x}, {node: b, interface: eth1}]}]}", `f:3: link: endpoint: mac "x": want six bytes`},
		"interface":          {a + ",\nlinks: [{endpoints: ['a:x/y', b:eth1]}]}", `f:3: link: a:x/y: "x/y" can't be`},
		"lo":                 {a + ",\nlinks: [{endpoints: [a:lo, b:eth1]}]}", `f:3: link: a:lo: "lo" can't be`},
		"link key":           {a + ",\nlinks: [{endpoints: [a:eth1, b:eth1], speed: 1}]}", "f:3: link: there is no key speed"},
	} {
		_, err := Parse("f", []byte(test.file), nothing)
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want only %s", name, err, test.want)
		}
	}
}

// TestAllowed has what looks odd and is right.
func TestAllowed(t *testing.T) {
	for name, file := range map[string]string{
		"null node":          "name: x\ntopology: {defaults: {kind: linux, cmd: x}, nodes: {a: , b: null}}",
		"kind in capitals":   "name: x\ntopology: {nodes: {a: {kind: Linux, cmd: x}}}",
		"unused kind":        "name: x\ntopology: {kinds: {srl: {image: x}}, nodes: {a: {kind: linux, cmd: x}}}",
		"eth0 without":       "name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, network-mode: none}, b: {kind: linux, cmd: x}}, links: [{endpoints: [a:eth0, b:eth1]}]}",
		"link to the shared": "name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, network-mode: 'container:b'}, b: {kind: linux, cmd: x}, c: {kind: linux, cmd: x}}, links: [{endpoints: [a:eth1, c:eth1]}]}",
		"a link to itself":   "name: x\ntopology: {nodes: {a: {kind: linux, cmd: x}}, links: [{endpoints: [a:eth1, a:eth2]}]}",
		"weir":               "name: x\ntopology: {nodes: {a: {kind: linux, image: ghcr.io/x/weir:1}}}",
	} {
		if _, err := Parse("f", []byte(file), nothing); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeirImage(t *testing.T) {
	for _, test := range []struct {
		image, variable string
		want            bool
	}{
		{"weir", "", true},
		{"weir:dev", "", true},
		{"localhost:5000/some/weir:1.2", "", true},
		{"weir@sha256:abc", "", true},
		{"weirlab:dev", "", false},
		{"weir/other", "", false},
		{"debian", "", false},
		{"", "", false},
		{"mine:1", "mine:1", true},
		{"mine:2", "mine:1", false},
	} {
		r := &reader{lookup: environment(map[string]string{"WEIR_IMAGE": test.variable})}
		if got := r.isWeir(test.image); got != test.want {
			t.Errorf("%q, WEIR_IMAGE %q: %v", test.image, test.variable, got)
		}
	}
	got, err := Parse("f", []byte("name: x\ntopology: {nodes: {a: {kind: linux, image: 'weir:dev', cmd: run --config x}, b: {kind: linux, image: 'weir:dev', entrypoint: sh, cmd: -c x}}}"), nothing)
	if err != nil {
		t.Fatal(err)
	}
	if args := fmt.Sprint(got.Nodes[0].Args, got.Nodes[1].Args); args != "[/weir run --config x] [sh -c x]" {
		t.Errorf("command lines %s", args)
	}
}

// FuzzParse looks for a file that makes the reader fail, or that it takes though
// the engine could not.
func FuzzParse(f *testing.F) {
	for _, file := range []string{
		"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x}}}",
		"name: x\ntopology:\n  defaults: &d {kind: linux, cmd: ${X:=y}}\n  nodes: {a: *d, b: }\n  links: [{endpoints: [a:eth1, b:eth1]}]",
		"name: x\ntopology: {nodes: {a: &a {kind: linux, env: *a}}}",
		"name: x\ntopology: {nodes: {a: {kind: linux, cmd: x, stages: {create: {wait-for: [{node: b, stage: create}]}}}, b: {kind: bridge}}}",
	} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		last := 2 // and where the parser finds the end
		for _, r := range string(data) {
			if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) { // YAML 1.1, section 4.2
				last++
			}
		}
		got, err := Parse("f", data, nothing)
		var wrong Mistakes
		switch {
		case err != nil:
			if !errors.As(err, &wrong) || len(wrong) == 0 {
				t.Fatalf("an error that is no mistake: %v", err)
			}
			for _, m := range wrong {
				if m.Text == "" || m.Line < 0 || m.Line > last {
					t.Errorf("%+v", m)
				}
			}
			return
		case got.Name == "":
			t.Error("no name")
		}
		ends := make(map[string]bool)
		for _, l := range got.Links {
			for _, e := range l.Ends {
				n := got.node(e.Node)
				if n == nil {
					t.Fatalf("link to no node: %s", e)
				}
				if at := n.network() + ":" + e.Interface; ends[at] {
					t.Errorf("twice: %s", at)
				} else {
					ends[at] = true
				}
			}
		}
		for _, n := range got.Nodes {
			if n.Kind == Linux && len(n.Args) == 0 {
				t.Errorf("node %s runs nothing", n.Name)
			}
			if n.Shares != "" && (got.node(n.Shares) == nil || got.node(n.Shares).Kind != Linux) {
				t.Errorf("node %s shares with none", n.Name)
			}
		}
	})
}
