// Package clab reads containerlab's topology files and runs them in network
// namespaces.
//
// The problem it solves: an example network is of use to a network engineer who
// can deploy it on a laptop as it is, with containerlab and Docker, and it stays
// true only if the project runs it too, wherever its tests run, and there is no
// Docker there. So there is one source, the topology file, and a second engine
// for it. [Read] understands the part of containerlab's language that the
// project's labs are written in and refuses the rest: what would make the two
// engines differ is a mistake, with its line, and what concerns Docker alone is
// said to be ignored. [Deploy] then makes of each node what a container is made
// of: a network namespace ([netlab]), and a root of its own, which shows the
// machine's files and keeps what is written to itself. Images are not used: a
// node's commands are the machine's.
//
// Where the file leaves something open, what containerlab 0.60.0 does is what
// counts (https://github.com/srl-labs/containerlab, directories clab, types,
// links, nodes and runtime/docker): in which order a node's stages go and its
// links appear, what waits for what, what a killed container loses.
//
// What differs from Docker all the same: there is no management network, so no
// eth0 and no names of other nodes; links carry finished checksums and no merged
// segments, IPv6 addresses are there at once, and nothing is forwarded unless the
// file says so, as on all hosts of [netlab]; the other end of a link that is up
// can be seen, down, before its node has come to its links; programs and users
// are the machine's, and so are its devices.
//
// A lab is removed however it ends. Processes of a node live in a PID namespace
// whose first process the kernel kills when the engine dies; what only has a name
// by then, namespaces and a directory, is removed by [netlab.Sweep] and [Sweep].
//
// In here, document, expand and words are the language, read, inherit and verify
// the topology; lab, stages, cables and node the engine; hold, root and guard what
// runs in processes of its own; commands and control are what scripts use, and run
// is the command line's.
package clab

import (
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong in a topology file.
type Mistake struct {
	File string
	Line int // 0: the file as a whole
	Text string
}

// String returns the mistake as compilers write theirs.
func (m Mistake) String() string {
	if m.Line == 0 {
		return m.File + ": " + m.Text
	}
	return fmt.Sprintf("%s:%d: %s", m.File, m.Line, m.Text)
}

// Mistakes is all that is wrong in a topology file, by line.
type Mistakes []Mistake

// Error has a line for each mistake.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, mistake := range m {
		lines[i] = mistake.String()
	}
	return strings.Join(lines, "\n")
}

// mistakes gathers what is wrong in one file.
type mistakes struct {
	file string
	all  Mistakes
}

func (m *mistakes) add(line int, format string, args ...any) {
	m.all = append(m.all, Mistake{File: m.file, Line: line, Text: fmt.Sprintf(format, args...)})
}

// err returns all of them, each once, by line, or nil.
func (m *mistakes) err() error {
	if len(m.all) == 0 {
		return nil
	}
	slices.SortStableFunc(m.all, func(a, b Mistake) int { return a.Line - b.Line })
	return slices.Compact(m.all)
}
