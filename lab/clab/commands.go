package clab

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"weir/lab/netlab"
)

// directories is where the directory of each lab is.
const directories = "/run/weirlab"

// directory holds what a lab has in the file system: the commands by which
// scripts reach its nodes, and the places at which nodes mount their roots, each
// in a mount namespace of its own. Its name has the pid of the lab's process, as
// those of namespaces have, so that [Sweep] knows whose it is.
//
//	NODE ARG...     runs a command in the node
//	.kill NODE      kills all that runs in the node
//	.start NODE     starts the node's main process again
//	.stopped/NODE   is there while the main process does not run
//	.control        is the socket of the engine
//	.place/NODE     is where the node mounts its root
//	.tmp            is for files of scripts
type directory string

// directoryName takes a directory's name apart.
var directoryName = regexp.MustCompile(`^weir-[a-z0-9_]+-([0-9]+)$`)

// newDirectory makes the directory of a lab of this process.
func newDirectory(lab string) (directory, error) {
	d := directory(filepath.Join(directories, fmt.Sprintf("weir-%s-%d", lab, os.Getpid())))
	if err := os.MkdirAll(directories, 0o755); err != nil {
		return "", fmt.Errorf("make the lab's directory: %w", err)
	}
	if err := os.Mkdir(string(d), 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%w: a lab of this name is up in this process", err)
		}
		return "", fmt.Errorf("make the lab's directory: %w", err)
	}
	for _, below := range []string{".stopped", ".place", ".tmp"} {
		if err := os.Mkdir(d.path(below), 0o755); err != nil {
			return "", errors.Join(fmt.Errorf("make the lab's directory: %w", err), d.remove())
		}
	}
	return d, nil
}

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) socket() string { return d.path(".control") }

func (d directory) temporary() string { return d.path(".tmp") }

// place makes the place of a node's root.
func (d directory) place(node string) (string, error) {
	p := filepath.Join(string(d), ".place", node)
	return p, os.Mkdir(p, 0o755)
}

// setStopped notes whether a node's main process runs.
func (d directory) setStopped(node string, stopped bool) error {
	path := filepath.Join(string(d), ".stopped", node)
	if stopped {
		return os.WriteFile(path, nil, 0o644)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// remove removes the directory. Nothing is mounted in it but in mount namespaces
// of nodes.
func (d directory) remove() error {
	if err := os.RemoveAll(string(d)); err != nil {
		return fmt.Errorf("remove the lab's directory: %w", err)
	}
	return nil
}

// writeNode writes the command of a node whose first process has that pid. The
// command starts with the environment that the node's main process has, and
// without what its caller may have done to SIGPIPE.
func (d directory) writeNode(node string, pid int, env []string) error {
	var assignments strings.Builder
	for _, e := range env {
		assignments.WriteString(" " + quote(e))
	}
	script := fmt.Sprintf(`#!/bin/sh
# Runs a command in node %[1]s, as docker exec does.
if [ -e %[2]s ]; then
	echo "node %[1]s is not running" >&2
	exit 1
fi
if [ $# -eq 0 ]; then
	echo "usage: $0 COMMAND [ARGUMENT]..." >&2
	exit 2
fi
exec env -i --default-signal=PIPE TERM="${TERM:-dumb}"%[3]s \
	nsenter --target %[4]d --mount --uts --ipc --net --pid -- "$@"
`, node, quote(filepath.Join(string(d), ".stopped", node)), assignments.String(), pid)
	return d.writeScript(node, script)
}

// writeControls writes the commands that ask the engine, which is the program
// self.
func (d directory) writeControls(self string) error {
	for name, verb := range map[string]string{".kill": killAll, ".start": startMain} {
		script := fmt.Sprintf(`#!/bin/sh
if [ $# -ne 1 ]; then
	echo "usage: $0 NODE" >&2
	exit 2
fi
exec %s %s %s %s %s "$1"
`, quote(self), PartCommand, controlPart, quote(d.socket()), verb)
		if err := d.writeScript(name, script); err != nil {
			return err
		}
	}
	return nil
}

func (d directory) writeScript(name, script string) error {
	return os.WriteFile(d.path(name), []byte(script), 0o755)
}

// quote makes one word of a shell of a text.
func quote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// environ returns variables as a process has them: what an image would set, and
// what the node says.
func environ(hostname string, own map[string]string) []string {
	all := map[string]string{
		"PATH":     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":     "/root",
		"HOSTNAME": hostname,
	}
	maps.Copy(all, own)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		env = append(env, name+"="+all[name])
	}
	return env
}

// Sweep removes the directories of labs whose process has ended, see
// [netlab.Ended], and returns those. Their namespaces are for [netlab.Sweep].
func Sweep() ([]string, error) {
	entries, err := os.ReadDir(directories)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweep topologies: %w", err)
	}
	var removed []string
	var errs []error
	for _, entry := range entries {
		parts := directoryName.FindStringSubmatch(entry.Name())
		if parts == nil {
			continue
		}
		pid, err := strconv.Atoi(parts[1])
		if err != nil || !netlab.Ended(pid) {
			continue
		}
		d := directory(filepath.Join(directories, entry.Name()))
		if err := d.remove(); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, string(d))
	}
	return removed, errors.Join(errs...)
}
