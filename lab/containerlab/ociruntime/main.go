// Command ociruntime runs runc, after it has struck from what runc is to start those
// capabilities that this host has not got to give.
//
// The problem it solves: containerlab's nodes are privileged, so Docker asks for every
// capability that the kernel knows. On a host that is itself confined, a container or a
// small VM of a CI, some are not in the bounding set, and runc then fails to start the
// container at all. setup.sh makes this the daemon's default runtime on such hosts, and
// on no others. Docker passes arguments on as they are for runc: the process to start is
// described by config.json in the bundle, for `create`, and by a file of its own, for
// `exec` (OCI runtime specification, config.md, "process.capabilities").
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capabilities by their numbers, as in <linux/capability.h>.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

func main() {
	fmt.Fprintln(os.Stderr, "ociruntime:", run(os.Args[1:]))
	os.Exit(1)
}

// run becomes runc, so it returns only if that is not to be.
func run(args []string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	lacking, err := withheld(string(status))
	if err != nil {
		return err
	}
	if path, inProcess := description(args); path != "" {
		if err := edit(path, inProcess, lacking); err != nil {
			return fmt.Errorf("strike capabilities: %w", err)
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return unix.Exec(runc, append([]string{runc}, args...), os.Environ())
}

// withheld returns the names of the capabilities that a process with this
// /proc/PID/status cannot pass on.
func withheld(status string) ([]string, error) {
	for line := range strings.Lines(status) {
		text, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		bounding, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read the bounding set: %w", err)
		}
		var lacking []string
		for number, name := range names {
			if bounding&(1<<number) == 0 {
				lacking = append(lacking, name)
			}
		}
		return lacking, nil
	}
	return nil, fmt.Errorf("read the bounding set: no CapBnd in the status")
}

// description returns the file that describes what these arguments have runc start,
// or "", and whether the process is a part of what it describes or all of it.
func description(args []string) (path string, inProcess bool) {
	takesValue := []string{"root", "log", "log-format", "criu", "rootless"} // of runc's global options
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name := strings.TrimLeft(args[0], "-")
		args = args[1:]
		if len(args) > 0 && slices.Contains(takesValue, name) {
			args = args[1:]
		}
	}
	if len(args) == 0 {
		return "", false
	}
	switch args[0] {
	case "create", "run":
		return filepath.Join(option(args[1:], "bundle", "b"), "config.json"), true
	case "exec":
		return option(args[1:], "process", "p"), false
	}
	return "", false
}

// option returns the value of an option of either name, or "".
func option(args []string, long, short string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-") || name != long && name != short:
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}

// edit strikes capabilities from a file, and leaves all else in it as it was.
func edit(path string, inProcess bool, lacking []string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if inProcess {
		text, err = inside(text, "process", func(process []byte) ([]byte, error) { return strike(process, lacking) })
	} else {
		text, err = strike(text, lacking)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, text, 0o600) // keeps the mode of what is there
}

// strike takes the description of a process.
func strike(process []byte, lacking []string) ([]byte, error) {
	return inside(process, "capabilities", func(text []byte) ([]byte, error) {
		var sets map[string][]string // bounding, effective, inheritable, permitted, ambient
		if err := json.Unmarshal(text, &sets); err != nil {
			return nil, err
		}
		for name, set := range sets {
			sets[name] = slices.DeleteFunc(set, func(capability string) bool { return slices.Contains(lacking, capability) })
		}
		return json.Marshal(sets)
	})
}

// inside changes the value of one key of a JSON object, if it has that key.
func inside(object []byte, key string, change func([]byte) ([]byte, error)) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil {
		return nil, err
	}
	value, ok := fields[key]
	if !ok {
		return object, nil
	}
	changed, err := change(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	fields[key] = changed
	return json.Marshal(fields)
}
